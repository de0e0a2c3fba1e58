package proxy

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// kind is the field's word for what the API calls by a path: /containers, /volumes and so on.
type kind string

// The kinds, as the ledger and leftover.Item spell them.
const (
	container kind = "container"
	volume    kind = "volume"
	network   kind = "network"
	service   kind = "service"
	task      kind = "task"
	secret    kind = "secret"
	config    kind = "config"
	image     kind = "image"

	// execution is a command in a container, which is never an object of its own.
	execution kind = "exec"
)

// found is an object that a reference led to. A reference can be a name that means something else a moment later;
// the id cannot. Volumes have no ids: theirs is the name.
type found struct {
	id, name string
	labels   map[string]string // of a task: those of its containers
	pulled   bool              // an image that is in a registry too
}

// look finds an object, by one call of the socket's own. The error is errdefs' NotFound when there is none. A ref is a
// name, an id or the beginning of an id, as with the docker command; which of them it was, the daemon decides.
func (p *Proxy) look(ctx context.Context, k kind, ref string) (found, error) {
	if err := plain(k, ref); err != nil {
		return found{}, err
	}
	switch k {
	case container:
		r, err := p.Docker.ContainerInspect(ctx, ref, client.ContainerInspectOptions{})
		// Without a configuration there are no labels: then it is nobody's, and so refused.
		if err != nil || r.Container.Config == nil {
			return found{}, err
		}
		return found{id: r.Container.ID, name: strings.TrimPrefix(r.Container.Name, "/"), labels: r.Container.Config.Labels}, nil
	case volume:
		r, err := p.Docker.VolumeInspect(ctx, ref, client.VolumeInspectOptions{})
		return found{id: r.Volume.Name, name: r.Volume.Name, labels: r.Volume.Labels}, err
	case network:
		r, err := p.Docker.NetworkInspect(ctx, ref, client.NetworkInspectOptions{})
		return found{id: r.Network.ID, name: r.Network.Name, labels: r.Network.Labels}, err
	case service:
		r, err := p.Docker.ServiceInspect(ctx, ref, client.ServiceInspectOptions{})
		return found{id: r.Service.ID, name: r.Service.Spec.Name, labels: r.Service.Spec.Labels}, err
	case task:
		r, err := p.Docker.TaskInspect(ctx, ref, client.TaskInspectOptions{})
		// A task that is no container, but a plugin or an attachment, is nobody's either.
		if err != nil || r.Task.Spec.ContainerSpec == nil {
			return found{}, err
		}
		return found{id: r.Task.ID, name: r.Task.ID, labels: r.Task.Spec.ContainerSpec.Labels}, nil
	case secret:
		r, err := p.Docker.SecretInspect(ctx, ref, client.SecretInspectOptions{})
		return found{id: r.Secret.ID, name: r.Secret.Spec.Name, labels: r.Secret.Spec.Labels}, err
	case config:
		r, err := p.Docker.ConfigInspect(ctx, ref, client.ConfigInspectOptions{})
		return found{id: r.Config.ID, name: r.Config.Spec.Name, labels: r.Config.Spec.Labels}, err
	case image:
		r, err := p.Docker.ImageInspect(ctx, ref)
		if err != nil || r.Config == nil {
			return found{id: r.ID}, err
		}
		return found{id: r.ID, name: ref, labels: r.Config.Labels, pulled: len(r.RepoDigests) > 0}, nil
	}
	return found{}, fmt.Errorf("look for a %s: unknown kind", k)
}

// plain refuses references that would lead the runner's own look at an object to another path of the API: the client
// library puts a reference into the path as it is, and "../volumes/x" is not what was asked for.
func plain(k kind, ref string) error {
	rest := strings.TrimPrefix(ref, "/") // containers may be called so
	if path.Clean("/"+rest) == "/"+rest && (k == image || !strings.Contains(rest, "/")) {
		return nil
	}
	return &invalid{http.StatusBadRequest, fmt.Sprintf("%q is not the name of a %s", ref, k)}
}

// mine says whether the build made an object. Only what cannot carry a label is looked up in the ledger: another name
// that the build once used may be somebody else's by now. A label is proof because no client can write it: the socket
// sets it, and takes reserved ones out of every object that a build sends.
func (p *Proxy) mine(k kind, f found) bool {
	if k == image {
		return f.labels[LabelImage] == p.Build
	}
	if p.labelled(f.labels) {
		return true
	}
	return k == volume && Anonymous(f.id) && f.labels[LabelBuild] == "" && p.Ledger.Knows(string(volume), f.id)
}

// labelled says whether labels name this build.
func (p *Proxy) labelled(labels map[string]string) bool { return labels[LabelBuild] == p.Build }

// need finds an object and refuses what the build did not make. Under the other policies it only finds it. A container's
// id means the same for ever, and so do its labels: one that was found to be the build's is not looked at again.
func (p *Proxy) need(ctx context.Context, k kind, ref string) (found, error) {
	if f, ok := p.known.Load(knownID{k, ref}); ok {
		return f.(found), nil
	}
	f, err := p.look(ctx, k, ref)
	if err == nil {
		err = p.judgeOwner(k, ref, f)
	}
	if err == nil && k == container && p.labelled(f.labels) {
		p.known.Store(knownID{k, f.id}, f)
	}
	return f, err
}

// judgeOwner refuses an object that the build did not make, under the policy Own.
func (p *Proxy) judgeOwner(k kind, ref string, f found) error {
	if p.Policy == Own && !p.mine(k, f) {
		return &Refusal{"own-objects", fmt.Sprintf("this build did not make the %s %s", k, ref), varPolicy}
	}
	return nil
}

// knownID is an id that is known to lead to an object of the build's. It is always a full id: a name is looked up anew.
type knownID struct {
	kind kind
	id   string
}

// inspected forwards the inspection of an object. Whose it is stands in the answer, so nobody else has to be asked. That
// there is such an object shows in the refusal, 403 in place of 404; names are no secrets here.
func inspected(k kind) func(*call) error {
	return func(c *call) error {
		if !c.own() {
			return c.forward(nil)
		}
		return c.forward(func(resp *http.Response) error {
			if resp.StatusCode != http.StatusOK {
				return nil
			}
			// Each kind has its labels elsewhere, and one structure takes them all.
			type labels map[string]string
			var answer struct {
				ID, Name string
				Labels   labels
				Config   struct{ Labels labels }
				Spec     struct {
					Labels        labels
					ContainerSpec struct{ Labels labels }
				}
			}
			if err := readAnswer(resp, &answer); err != nil {
				return err
			}
			f := found{id: answer.ID, name: answer.Name, labels: answer.Spec.Labels}
			switch k {
			case container:
				f.labels = answer.Config.Labels
			case volume:
				f.id, f.labels = answer.Name, answer.Labels
			case task:
				f.labels = answer.Spec.ContainerSpec.Labels
			}
			return c.p.judgeOwner(k, c.args[0], f)
		})
	}
}

// owned forwards a call on one object that the build made, by the object's id, and without a body.
func owned(k kind) func(*call) error {
	return func(c *call) error {
		if !c.own() {
			return c.forward(nil)
		}
		f, err := c.p.need(c.ctx(), k, c.args[0])
		if err != nil {
			return err
		}
		c.retarget(f.id)
		return c.forward(nil)
	}
}

// retarget puts another reference into the second element of the path: /containers/REF/stop.
func (c *call) retarget(id string) {
	// The first part is empty, for the path begins with a slash; the last takes all that follows.
	parts := strings.SplitN(c.path, "/", 4)
	parts[2] = id
	c.path = strings.Join(parts, "/")
}

// needExec refuses commands that do not run in one of the build's containers. A command has an id and no label: its
// container says whose it is.
func (c *call) needExec() error {
	if !c.own() {
		return nil
	}
	if _, known := c.p.known.Load(knownID{execution, c.args[0]}); known {
		return nil
	}
	if err := plain(execution, c.args[0]); err != nil {
		return err
	}
	r, err := c.p.Docker.ExecInspect(c.ctx(), c.args[0], client.ExecInspectOptions{})
	if err != nil {
		return err
	}
	_, err = c.p.need(c.ctx(), container, r.ContainerID)
	return err
}

// ownedExec forwards a call on a command that runs in one of the build's containers.
func ownedExec(c *call) error {
	if err := c.needExec(); err != nil {
		return err
	}
	return c.forward(nil)
}

// absent says whether an error means that there is no such object, now: a moment later there may be one.
func absent(err error) bool { return errdefs.IsNotFound(err) }

// unavailable says whether an error means that the daemon is no manager of a Swarm, or of one that is locked.
func unavailable(err error) bool { return errdefs.IsUnavailable(err) }
