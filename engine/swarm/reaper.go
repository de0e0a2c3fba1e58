package swarm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// KindNode is the kind of a leftover that is none: a node on which the build had tasks and that could not be looked
// at. It deserves a warning, not a failed build: a worker that is down says nothing about the pipeline. The engine tells
// it from survivors by this kind.
const KindNode = "node"

// Builds names the builds that hold Docker objects, a ledger or a socket's directory, those that run among them. The
// three are asked because each can be all that a crash left: a ledger is opened before the socket is, and labels
// outlive a state directory that somebody deleted.
func (s *Swarm) Builds(ctx context.Context) ([]string, error) {
	if s.cfg.Mode != ModeProxy {
		return nil, nil
	}
	found := map[string]bool{}
	ledgers, err := ledger.Builds(s.cfg.LedgerDir)
	if err != nil {
		return nil, err
	}
	for _, b := range ledgers {
		found[b] = true
	}
	dirs, err := os.ReadDir(s.cfg.SocketDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list sockets: %w", err)
	}
	for _, d := range dirs {
		found[d.Name()] = true
	}
	objects, err := s.marked(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		found[o.build] = true
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// Remaining looks again and returns what the build still holds, with the daemon's reason where a teardown was refused,
// and a KindNode for each node that could not be looked at. Before a build's teardown it lists what the build has so far.
func (s *Swarm) Remaining(ctx context.Context, build string) ([]leftover.Item, error) {
	if s.cfg.Mode != ModeProxy {
		return nil, nil
	}
	h, err := s.holding(ctx, build)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	why := s.refusals[build]
	s.mu.Unlock()
	var out []leftover.Item
	for _, v := range append(h.all(), h.unverified...) {
		item := v.item()
		if reason := why[v.key()]; reason != "" {
			item.Detail = reason
		}
		out = append(out, item)
	}
	return out, nil
}

// Kept lists what a build whose objects are meant to stay (see Build.Keep) left, as far as its ledger knows: they carry
// no label, and some may be gone again. It has to be asked before Teardown, which forgets the ledger.
func (s *Swarm) Kept(_ context.Context, build string) ([]leftover.Item, error) {
	header, entries, err := ledger.Read(s.cfg.LedgerDir, build)
	if errors.Is(err, os.ErrNotExist) || (err == nil && !header.Keep) {
		return nil, nil
	}
	var out []leftover.Item
	for _, e := range entries {
		name := e.Name
		if name == "" {
			name = e.ID
		}
		out = append(out, leftover.Item{Kind: e.Kind, Name: name, Detail: "kept"})
	}
	return out, err
}

// remember keeps the reasons of the last teardown for Remaining; Detach drops them. A reason is only at hand when the
// removal is tried, and Remaining must not try.
func (s *Swarm) remember(build string, refusals map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(refusals) == 0 {
		delete(s.refusals, build)
		return
	}
	s.refusals[build] = refusals
}

// recordVolume writes an anonymous volume into the build's ledger, if need be one that is made for it: of a build that an
// earlier process ran, only labels may be left. Workers may do so at the same time, each with a file of its own; lines
// are appended whole.
func (s *Swarm) recordVolume(build, name string) error {
	entry := ledger.Entry{Kind: "volume", Name: name, Note: "anonymous"}
	if at := s.attached(build); at != nil {
		return at.ledger.Add(entry)
	}
	l, err := ledger.Open(s.cfg.LedgerDir, ledger.Header{Build: build})
	if err != nil {
		return err
	}
	return errors.Join(l.Add(entry), l.Close())
}

// mark is an object that carries a build's label. The build need not be one of this runner's state directory.
type mark struct {
	thing
	build string
	info  map[string]string // all labels
}

// marked lists every object on every reachable node that carries the label of a build. It is how a start finds builds
// whose ledger is lost. A node that does not answer is only a warning here: the teardown of each build names it.
func (s *Swarm) marked(ctx context.Context) ([]mark, error) {
	filter := client.Filters{}.Add("label", proxy.LabelBuild)
	var out []mark
	add := func(t thing, labels map[string]string) {
		if build := labels[proxy.LabelBuild]; build != "" { // it is empty for what runs from a committed image
			out = append(out, mark{t, build, labels})
		}
	}
	if err := s.markedCluster(ctx, filter, add); err != nil {
		return nil, err
	}
	for i, n := range s.nodes {
		n.swarmID(ctx) // while it answers: it is needed when it does not
		look := func(ctx context.Context) error { return markedLocal(ctx, n, filter, add) }
		if i == 0 {
			if err := look(ctx); err != nil {
				return nil, err
			}
		} else if err := n.try(ctx, look); err != nil {
			s.cfg.Log.WithError(err).Warnf("node %s was not looked at for objects of builds", n.endpoint)
		}
	}
	return out, nil
}

// adder takes one labelled object. A filter by a label's key matches empty values too; marked drops those.
type adder func(t thing, labels map[string]string)

// markedCluster lists what the Swarm shares. Tasks are left out: a service leads to the build, and what a removed one
// leaves of them the Swarm removes by itself.
func (s *Swarm) markedCluster(ctx context.Context, filter client.Filters, add adder) error {
	services, err := s.docker.ServiceList(ctx, client.ServiceListOptions{Filters: filter})
	if notManager(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	for _, v := range services.Items {
		add(thing{node: s.nodes[0], kind: "service", id: v.ID, name: v.Spec.Name}, v.Spec.Labels)
	}
	secrets, err := s.docker.SecretList(ctx, client.SecretListOptions{Filters: filter})
	if err != nil {
		return fmt.Errorf("list secrets: %w", err)
	}
	for _, v := range secrets.Items {
		add(thing{node: s.nodes[0], kind: "secret", id: v.ID, name: v.Spec.Name}, v.Spec.Labels)
	}
	configs, err := s.docker.ConfigList(ctx, client.ConfigListOptions{Filters: filter})
	if err != nil {
		return fmt.Errorf("list configs: %w", err)
	}
	for _, v := range configs.Items {
		add(thing{node: s.nodes[0], kind: "config", id: v.ID, name: v.Spec.Name}, v.Spec.Labels)
	}
	return nil
}

// markedLocal lists what one node holds, but for images: their label says who made them, not that they were left here,
// for it goes with them to a registry and comes back when somebody pulls them. An unfinished build's are found by its
// ledger.
func markedLocal(ctx context.Context, n *node, filter client.Filters, add adder) error {
	containers, err := n.docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filter})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, v := range containers.Items {
		add(thing{node: n, kind: "container", id: v.ID, name: v.ID[:12]}, v.Labels)
	}
	networks, err := n.docker.NetworkList(ctx, client.NetworkListOptions{Filters: filter})
	if err != nil {
		return fmt.Errorf("list networks: %w", err)
	}
	for _, v := range networks.Items {
		add(thing{node: n, kind: "network", id: v.ID, name: v.Name}, v.Labels)
	}
	volumes, err := n.docker.VolumeList(ctx, client.VolumeListOptions{Filters: filter})
	if err != nil {
		return fmt.Errorf("list volumes: %w", err)
	}
	for _, v := range volumes.Items {
		add(thing{node: n, kind: "volume", id: v.Name, name: v.Name}, v.Labels)
	}
	return nil
}
