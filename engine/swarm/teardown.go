package swarm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

const (
	// firstPause is the time between two looks while something happens; a stack of two services is gone in 0.7 s. While
	// nothing new is found the pause grows by a quarter each time, up to lastPause: a look is a dozen calls.
	firstPause = 20 * time.Millisecond
	lastPause  = 100 * time.Millisecond

	// workers is how many services or containers are removed at the same time. The rest goes one by one: a volume or a
	// secret takes the daemon about a millisecond.
	workers = 16
)

// teardown is the removal of one build's objects, or of an app's: looks and passes in turn. It is used once, by one
// goroutine.
type teardown struct {
	s     *Swarm
	build string
	look  func(context.Context) (*holding, error)
	order []string // keys, as first seen
	seen  map[string]thing

	// refusals say by key why the daemon would not remove a thing; what goes after all loses its own. mu guards them while
	// atOnce runs; outside of it nobody else is there to write.
	mu       sync.Mutex
	refusals map[string]string
}

// Teardown removes what the build made and waits until two looks in a row find nothing. It returns what it removed
// also when it cannot finish in time. That something is left then is no error of its own: Remaining names it. Errors say
// that it could not look.
//
// The engine has ended the build's processes before, and the socket is sealed first: what still makes objects is
// containers alone, and they go in the first pass. It may be called for builds of other processes, and again.
func (s *Swarm) Teardown(ctx context.Context, build string) ([]leftover.Item, error) {
	if s.cfg.Mode != ModeProxy {
		return nil, nil
	}
	if at := s.attached(build); at != nil {
		at.proxy.Seal()
	}
	limited, cancel := context.WithTimeout(ctx, s.cfg.TeardownTimeout)
	defer cancel()
	t := newTeardown(s, build, func(ctx context.Context) (*holding, error) { return s.holding(ctx, build) })
	left, err := t.run(limited)
	removed := t.removed(left)
	// Not under limited: a volume that cannot be removed must not keep the files as well.
	files, fileErr := s.removeEnvFiles(ctx, build)
	removed, err = append(removed, files...), errors.Join(err, fileErr)
	s.remember(build, t.refusals)
	var late *lateError
	if errors.As(err, &late) {
		return removed, fileErr
	}
	// Of an attached build Detach forgets, when the socket is closed.
	if err == nil && s.attached(build) == nil {
		err = s.forget(ctx, build)
	}
	return removed, err
}

// lateError names what is left of an app or a build when its time is over. It is a type because the two callers differ:
// a build's survivors are named by Remaining, an app's by this error only.
type lateError struct{ text string }

// Error implements error.
func (e *lateError) Error() string { return e.text }

// newTeardown prepares the removal of what look finds; build is its name in errors and the ledger for anonymous volumes.
func newTeardown(s *Swarm, build string, look func(context.Context) (*holding, error)) *teardown {
	return &teardown{s: s, build: build, look: look, seen: map[string]thing{}, refusals: map[string]string{}}
}

// run removes until nothing is found twice in a row, and returns what is left when the time is over. Twice, because a
// task can turn into a container between the list of tasks and that of containers, and be in neither.
func (t *teardown) run(ctx context.Context) (*holding, error) {
	var last *holding
	var failure error
	pause := firstPause
	for clean := 0; clean < 2; {
		h, err := t.look(ctx)
		switch {
		case err != nil && last != nil && ctx.Err() != nil: // the look was cut short: what the last one found stands
		case err != nil:
			failure, clean = err, 0
		case h.empty():
			last, clean, pause, failure = h, clean+1, firstPause, nil
		default:
			last, clean, failure = h, 0, nil
			if t.note(h) {
				pause = firstPause
			}
			t.pass(ctx, h)
		}
		select {
		case <-ctx.Done():
			return last, t.late(last, failure)
		case <-time.After(pause):
			pause = min(lastPause, pause*5/4)
		}
	}
	return nil, nil
}

// late is the error of a teardown that ran out of time: why nobody could look, or else what was found last.
func (t *teardown) late(left *holding, failure error) error {
	if failure != nil {
		return fmt.Errorf("remove the Docker objects of %s: %w", t.build, failure)
	}
	if left == nil || left.empty() {
		return nil
	}
	var names []string
	for _, v := range left.all() {
		text := v.item().String()
		if why := t.refusals[v.key()]; why != "" {
			text += ": " + why
		}
		names = append(names, text)
	}
	return &lateError{fmt.Sprintf("remove the Docker objects of %s: still there after %s: %s", t.build, t.s.cfg.TeardownTimeout,
		strings.Join(names, "; "))}
}

// note remembers what was seen, and says whether anything of it is new.
func (t *teardown) note(h *holding) bool {
	fresh := false
	for _, v := range h.all() {
		if _, known := t.seen[v.key()]; !known {
			t.order = append(t.order, v.key())
			t.seen[v.key()] = v
			fresh = true
		}
	}
	return fresh
}

// removed lists what was seen and is no longer there. Tasks are left out: they are a service's shadow. What went by itself
// meanwhile, such as a container of `docker run --rm`, is listed as well: the pipeline had left it.
func (t *teardown) removed(left *holding) []leftover.Item {
	still := map[string]bool{}
	if left != nil {
		for _, v := range left.all() {
			still[v.key()] = true
		}
	}
	var out []leftover.Item
	for _, key := range t.order {
		if v := t.seen[key]; !still[key] && v.kind != "task" {
			out = append(out, v.item())
		}
	}
	return out
}

// pass does one round of removals. Nothing that tasks or containers use is touched while they are there: a network
// that goes before its tasks costs the addresses that they hold on other networks, for good. (swarmkit's allocator skips
// a task that names an unknown network, with all its other addresses; a /28 is exhausted after some ten stacks.)
//
// What is refused is tried again in the next pass. pass itself waits for nothing: the next look tells how far it got.
func (t *teardown) pass(ctx context.Context, h *holding) {
	// The Swarm gives each task that still runs when its service goes two seconds to leave its networks, and two more when
	// it removes its container. Dead ones are spared that, unless they have been replaced: so all die at once, and their
	// services go before anybody notices.
	// SIGKILL at once: one that ignores SIGTERM would hold all up for its grace period, and its state is of no use.
	if len(h.services) > 0 {
		atOnce(h.containers, func(v thing) {
			_, _ = v.node.docker.ContainerKill(ctx, v.id, client.ContainerKillOptions{Signal: "KILL"}) // it need not run
		})
	}
	atOnce(h.services, func(v thing) {
		_, err := v.node.docker.ServiceRemove(ctx, v.id, client.ServiceRemoveOptions{})
		t.result(v, err)
	})
	// By force and without waiting for the Swarm, which would take six seconds for them.
	atOnce(h.containers, func(v thing) { t.removeContainer(ctx, v) })
	if len(h.services)+len(h.tasks)+len(h.containers) > 0 {
		// A container that cannot be removed must not hold up the rest for ever, but its own network and volumes stay.
		if len(h.services)+len(h.tasks) > 0 || !t.refused(h.containers) {
			return
		}
	}
	for _, v := range h.networks {
		t.result(v, t.removeNetwork(ctx, v))
	}
	// After the services: the Swarm refuses to remove a secret or a config that a service names.
	for _, v := range h.data {
		var err error
		if v.kind == "secret" {
			_, err = v.node.docker.SecretRemove(ctx, v.id, client.SecretRemoveOptions{})
		} else {
			_, err = v.node.docker.ConfigRemove(ctx, v.id, client.ConfigRemoveOptions{})
		}
		t.result(v, err)
	}
	// After the containers: the daemon refuses a volume that even a stopped container has, force or not.
	for _, v := range h.volumes {
		_, err := v.node.docker.VolumeRemove(ctx, v.id, client.VolumeRemoveOptions{Force: true})
		t.result(v, err)
	}
	// By id an image goes with all its names, which takes force; a name that the build gave goes alone.
	for _, v := range h.images {
		opts := client.ImageRemoveOptions{Force: strings.HasPrefix(v.id, "sha256:"), PruneChildren: true}
		_, err := v.node.docker.ImageRemove(ctx, v.id, opts)
		t.result(v, err)
	}
}

// atOnce calls a function for all things, for several at a time, and returns when all calls have.
func atOnce(things []thing, do func(thing)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, workers)
	for _, v := range things {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			do(v)
		})
	}
	wg.Wait()
}

// removeContainer writes the container's anonymous volumes down before it removes both, so that none is forgotten
// when only the first half works: an anonymous volume has no label, and only its container leads to it.
func (t *teardown) removeContainer(ctx context.Context, v thing) {
	for _, name := range v.volumes {
		if err := t.s.recordVolume(t.build, name); err != nil {
			t.result(v, err)
			return
		}
	}
	_, err := v.node.docker.ContainerRemove(ctx, v.id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && strings.Contains(err.Error(), "is already in progress") {
		err = nil // the Swarm is faster: "removal of container x is already in progress"
	}
	t.result(v, err)
}

// refused says whether the daemon refused to remove any of these things.
func (t *teardown) refused(things []thing) bool {
	for _, v := range things {
		if t.refusals[v.key()] != "" {
			return true
		}
	}
	return false
}

// removeNetwork removes a network once no removed task sits on it, and detaches what others put on it: the network
// is the build's, so is its end. Only a manager can list tasks, and a build's networks on other nodes are local ones. An
// error after a detachment is the first refusal: the next pass tries again.
func (t *teardown) removeNetwork(ctx context.Context, v thing) error {
	if v.node == t.s.nodes[0] {
		pending, err := proxy.TasksOn(ctx, v.node.docker, v.id)
		if err != nil {
			return err
		}
		if pending > 0 {
			return fmt.Errorf("%d tasks of removed services are still on it", pending)
		}
	}
	// The daemon answers `not found` for one that it is still removing: that is as good as gone.
	_, err := v.node.docker.NetworkRemove(ctx, v.id, client.NetworkRemoveOptions{})
	if err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	r, inspectErr := v.node.docker.NetworkInspect(ctx, v.id, client.NetworkInspectOptions{})
	if inspectErr != nil {
		return errors.Join(err, inspectErr)
	}
	for id := range r.Network.Containers {
		_, detachErr := v.node.docker.NetworkDisconnect(ctx, v.id, client.NetworkDisconnectOptions{Container: id, Force: true})
		if detachErr != nil && !errdefs.IsNotFound(detachErr) {
			err = errors.Join(err, detachErr)
		}
	}
	return err
}

// result remembers why something could not be removed. That it was gone already is what is wanted.
func (t *teardown) result(v thing, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil || errdefs.IsNotFound(err) {
		delete(t.refusals, v.key())
		return
	}
	if errors.Is(err, context.DeadlineExceeded) && t.refusals[v.key()] != "" {
		return // what the daemon said before the time was over tells more
	}
	reason := strings.TrimPrefix(err.Error(), "Error response from daemon: ")
	// For example: rpc error: code = FailedPrecondition desc = network x is in use by service y
	if _, plain, ok := strings.Cut(reason, " desc = "); ok && strings.HasPrefix(reason, "rpc error: ") {
		reason = plain // the rest says how the daemon speaks to itself
	}
	t.refusals[v.key()] = reason
}
