package swarm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// thing is one Docker object of a build.
type thing struct {
	node *node // where it is; the manager for what the whole Swarm shares

	// kind is the ledger's and leftover.Item's word. id is what the API removes the thing by: a volume's is its name, that
	// of a tag the tag. name is what people know it by, and may be empty. A task's name is the node's id and its own.
	kind, id, name string
	detail         string
	volumes        []string // a container's anonymous volumes
	removed        bool     // only found as a task of a service that is gone
}

// key tells things apart across two looks. Volumes of one name on two nodes share a key: they are reported once, while
// both are removed.
func (t thing) key() string { return t.kind + " " + t.id }

// item is the thing as the engine reports it.
func (t thing) item() leftover.Item {
	name := t.name
	if name == "" {
		name = t.id
	}
	return leftover.Item{Kind: t.kind, Name: name, Detail: t.detail}
}

// holding is everything that a build holds, as one look found it. A look is a dozen lists one after another, not one
// moment: what is made meanwhile may be in none of them, so emptiness is believed only when two looks agree.
type holding struct {
	services, tasks, containers []thing
	networks, data, volumes     []thing // data are secrets and configs
	images                      []thing
	unverified                  []thing // nodes that nobody could look at
}

// all lists the holding without the nodes, in the order in which reports name it: it is about that of removal.
func (h *holding) all() []thing {
	var out []thing
	for _, l := range [][]thing{h.services, h.containers, h.tasks, h.networks, h.data, h.volumes, h.images} {
		out = append(out, l...)
	}
	return out
}

// empty says whether the build holds nothing where somebody could look. Nodes that nobody could look at do not count:
// waiting for them could take for ever, so they are reported instead.
func (h *holding) empty() bool { return len(h.all()) == 0 }

// hasVolume says whether the look has found a volume already, as that of a container.
func (h *holding) hasVolume(name string) bool {
	return slices.ContainsFunc(h.volumes, func(v thing) bool { return v.id == name })
}

// holding looks for everything that a build made: by label, and by the ledger what no label can mark. An error means
// that nothing is known, which is not the same as nothing left: nobody may then call the build clean.
func (s *Swarm) holding(ctx context.Context, build string) (*holding, error) {
	header, entries, err := ledger.Read(s.cfg.LedgerDir, build)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	h := &holding{}
	if header.Keep { // its objects are meant to stay
		return h, nil
	}
	if err := s.cluster(ctx, h, build); err != nil {
		return nil, err
	}
	if err := s.stackData(ctx, h, header, entries); err != nil {
		return nil, err
	}
	if err := s.local(ctx, h, s.nodes[0], build); err != nil {
		return nil, err
	}
	if err := s.ledgered(ctx, h, build, entries); err != nil {
		return nil, err
	}
	for _, n := range s.nodes[1:] {
		err := n.try(ctx, func(ctx context.Context) error { return s.local(ctx, h, n, build) })
		if err != nil { // a node that is cut off must not keep the others from being cleaned
			h.unverified = append(h.unverified, thing{kind: "node", id: n.endpoint, detail: "not checked: " + err.Error()})
		}
	}
	return h, s.unreached(ctx, h, entries)
}

// byLabel matches what a build made, but for images; the daemon compares the whole value.
func byLabel(build string) client.Filters {
	return client.Filters{}.Add("label", proxy.LabelBuild+"="+build)
}

// cluster looks for what the whole Swarm shares. A daemon outside a Swarm holds none of it.
func (s *Swarm) cluster(ctx context.Context, h *holding, build string) error {
	services, err := s.docker.ServiceList(ctx, client.ServiceListOptions{Filters: byLabel(build)})
	if notManager(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	alive := map[string]bool{}
	for _, v := range services.Items {
		alive[v.ID] = true
		h.services = append(h.services, thing{node: s.nodes[0], kind: "service", id: v.ID, name: v.Spec.Name})
	}
	// Tasks keep a copy of their service's labels, by which the Swarm filters (swarmkit, manager/controlapi/task.go).
	// Unlike the service's id, which is an error once the service is gone, the label still leads there.
	tasks, err := s.docker.TaskList(ctx, client.TaskListOptions{Filters: byLabel(build)})
	if err != nil {
		return fmt.Errorf("list tasks: %w", err)
	}
	for _, v := range tasks.Items {
		h.tasks = append(h.tasks, thing{node: s.nodes[0], kind: "task", id: v.ID, name: v.NodeID + "/" + v.ID,
			detail: string(v.Status.State), removed: !alive[v.ServiceID]})
	}
	secrets, err := s.docker.SecretList(ctx, client.SecretListOptions{Filters: byLabel(build)})
	if err != nil {
		return fmt.Errorf("list secrets: %w", err)
	}
	for _, v := range secrets.Items {
		h.data = append(h.data, thing{node: s.nodes[0], kind: "secret", id: v.ID, name: v.Spec.Name})
	}
	configs, err := s.docker.ConfigList(ctx, client.ConfigListOptions{Filters: byLabel(build)})
	if err != nil {
		return fmt.Errorf("list configs: %w", err)
	}
	for _, v := range configs.Items {
		h.data = append(h.data, thing{node: s.nodes[0], kind: "config", id: v.ID, name: v.Spec.Name})
	}
	return nil
}

// local looks for what one node holds. Containers of services are among it: they carry the label that the service's
// ContainerSpec has. Their anonymous volumes have none and are found by their containers' mounts.
func (s *Swarm) local(ctx context.Context, h *holding, n *node, build string) error {
	containers, err := n.docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: byLabel(build)})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, v := range containers.Items {
		t := thing{node: n, kind: "container", id: v.ID, name: firstName(v), detail: v.Image + ", " + v.Status}
		for _, m := range v.Mounts {
			if m.Type == "volume" && proxy.Anonymous(m.Name) {
				t.volumes = append(t.volumes, m.Name)
			}
		}
		h.containers = append(h.containers, t)
		for _, name := range t.volumes {
			h.volumes = append(h.volumes, thing{node: n, kind: "volume", id: name, detail: "anonymous"})
		}
	}
	networks, err := n.docker.NetworkList(ctx, client.NetworkListOptions{Filters: byLabel(build)})
	if err != nil {
		return fmt.Errorf("list networks: %w", err)
	}
	for _, v := range networks.Items {
		if n != s.nodes[0] && v.Scope == "swarm" {
			continue // the manager removes it
		}
		h.networks = append(h.networks, thing{node: n, kind: "network", id: v.ID, name: v.Name})
	}
	volumes, err := n.docker.VolumeList(ctx, client.VolumeListOptions{Filters: byLabel(build)})
	if err != nil {
		return fmt.Errorf("list volumes: %w", err)
	}
	for _, v := range volumes.Items {
		h.volumes = append(h.volumes, thing{node: n, kind: "volume", id: v.Name})
	}
	// All: the layers of a build that carry the label too have no name.
	built := client.Filters{}.Add("label", proxy.LabelImage+"="+build)
	images, err := n.docker.ImageList(ctx, client.ImageListOptions{All: true, Filters: built})
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	// What others run from stays, without being called a leak: see there.
	busy, err := n.imagesOfOthers(ctx, build, images.Items)
	if err != nil {
		return err
	}
	for _, v := range images.Items {
		if busy[v.ID] {
			continue
		}
		t := thing{node: n, kind: "image", id: v.ID, name: strings.Join(v.RepoTags, " ")}
		if t.name == "<none>:<none>" {
			t.name = ""
		}
		h.images = append(h.images, t)
	}
	return nil
}

// firstName is what a container is called. One that is being removed may have lost its name; links add further ones.
func firstName(c container.Summary) string {
	if len(c.Names) == 0 {
		return ""
	}
	return strings.TrimPrefix(c.Names[0], "/")
}

// imagesOfOthers are those of a build's images that containers of others run from: once deployed, an image is no longer
// the build's to remove, nor are the images that it is made from. The daemon would refuse most of that by itself, but a
// refusal is a survivor, and the build would fail for what is no leak.
func (n *node) imagesOfOthers(ctx context.Context, build string, images []image.Summary) (map[string]bool, error) {
	busy := map[string]bool{}
	if len(images) == 0 {
		return busy, nil
	}
	containers, err := n.docker.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	parents := map[string]string{}
	for _, i := range images {
		parents[i.ID] = i.ParentID
	}
	for _, c := range containers.Items {
		if c.Labels[proxy.LabelBuild] == build {
			continue
		}
		for id := c.ImageID; id != ""; id = parents[id] {
			busy[id] = true
		}
	}
	return busy, nil
}

// ledgered looks for what only the ledger knows: anonymous volumes, and names that the build gave to images of others.
// A volume's made-up name is never used again, so the ledger is proof enough; a tag may have been moved meanwhile, so it
// must still lead to the image that it was given to. Images that were pulled are in the ledger too, and stay.
func (s *Swarm) ledgered(ctx context.Context, h *holding, build string, entries []ledger.Entry) error {
	n := s.nodes[0] // the socket leads there
	for _, e := range entries {
		switch {
		case e.Kind == "volume" && e.Note == "anonymous":
			r, err := n.docker.VolumeInspect(ctx, e.Name, client.VolumeInspectOptions{})
			if err == nil && r.Volume.Labels[proxy.LabelBuild] != build && !h.hasVolume(e.Name) {
				h.volumes = append(h.volumes, thing{node: n, kind: "volume", id: e.Name, detail: "anonymous"})
			}
			if err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("look for volume %s: %w", e.Name, err)
			}
		case e.Kind == "image" && e.Note == "tag" && e.ID != "":
			r, err := n.docker.ImageInspect(ctx, e.Name)
			if err == nil && r.ID == e.ID {
				h.images = append(h.images, thing{node: n, kind: "image", id: e.Name, detail: "a name for an image of others"})
			}
			if err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("look for image %s: %w", e.Name, err)
			}
		}
	}
	return nil
}

// unreached names the nodes on which the build had tasks and that have no endpoint here. Tasks tell where they run while
// they are there; of services that the build removed by itself the socket wrote the nodes into the ledger. It also takes
// out the tasks of nodes that are down, for which a teardown would wait in vain.
func (s *Swarm) unreached(ctx context.Context, h *holding, entries []ledger.Entry) error {
	// By the ids of the nodes.
	used := map[string]bool{}
	for _, e := range entries {
		if e.Kind == "node" {
			used[e.ID] = true
		}
	}
	for _, t := range h.tasks {
		if id, _, ok := strings.Cut(t.name, "/"); ok && id != "" {
			used[id] = true
		}
	}
	if len(used) == 0 {
		return nil
	}
	nodes, err := s.docker.NodeList(ctx, client.NodeListOptions{})
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	reached, silent := s.reached(ctx)
	for _, v := range nodes.Items {
		if v.Status.State == swarm.NodeStateDown {
			// The Swarm remembers the tasks of a node that is down until it comes back.
			h.tasks = slices.DeleteFunc(h.tasks, func(t thing) bool { return t.removed && strings.HasPrefix(t.name, v.ID+"/") })
		}
		named := func(n *node) bool { return n.leadsTo(v) } // then its endpoint tells about it
		if !used[v.ID] || reached[v.ID] || slices.ContainsFunc(silent, named) {
			continue
		}
		detail := "not checked: tasks of this build ran there; name the node in DRONE_RUNNER_SWARM_NODES"
		for _, n := range silent {
			detail += ", unless it is " + n.endpoint + ", which has not answered yet"
		}
		h.unverified = append(h.unverified, thing{kind: "node", id: v.ID, name: v.Description.Hostname, detail: detail})
	}
	return nil
}

// reached are the ids of the nodes that have an endpoint here; silent are those that have one and no id, because they have
// not answered since the start.
func (s *Swarm) reached(ctx context.Context) (ids map[string]bool, silent []*node) {
	ids = map[string]bool{}
	for _, n := range s.nodes {
		if id := n.swarmID(ctx); id != "" {
			ids[id] = true
		} else {
			silent = append(silent, n)
		}
	}
	return ids, silent
}

// notManager says whether an error means that the daemon is in no Swarm, or no manager of one. The text is compared
// because a Swarm that is locked is `unavailable` as well (moby, daemon/cluster/errors.go), and that one holds objects.
func notManager(err error) bool {
	return err != nil && errdefs.IsUnavailable(err) && strings.Contains(err.Error(), "not a swarm manager")
}
