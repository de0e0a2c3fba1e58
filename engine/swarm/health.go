package swarm

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
)

// stuckAfter is how old a task may become without an address before something is wrong. A task is `new` until the
// Swarm has given it its addresses, which takes less than a second; on a full network it stays so, without any error
// (the daemon's log says "could not find an available IP").
const stuckAfter = 10 * time.Second

// Problem is a state of Docker in which no build should start. While there is one the runner does not ask for builds; its
// text is logged and shown by /readyz and `cc-ci-runner doctor`.
type Problem struct {
	// Name is one word for metrics and logs.
	Name string
	text string
}

// Error is one sentence: what is wrong and what to do. It may have the daemon's own words in brackets.
func (p *Problem) Error() string { return p.text }

// Health returns a *Problem while Docker or the Swarm is in no state to run builds, and nil in the other modes. It only
// reads, and it does not wait: ctx bounds it. The order is from the general to the particular, so that the first thing
// named is the one to repair.
func (s *Swarm) Health(ctx context.Context) error {
	if s.cfg.Mode != ModeProxy {
		return nil
	}
	info, err := s.docker.Info(ctx, client.InfoOptions{})
	if err != nil {
		return &Problem{"unreachable", fmt.Sprintf("Docker does not answer at %s (%v): start the daemon, or correct the endpoint",
			s.cfg.Endpoint, err)}
	}
	state := info.Info.Swarm
	switch {
	// dockerd itself says: "--live-restore daemon configuration is incompatible with swarm mode".
	case info.Info.LiveRestoreEnabled:
		return &Problem{"live-restore", "Docker runs with live-restore, which does not go with Swarm: remove it from daemon.json and restart Docker"}
	case state.LocalNodeState == swarm.LocalNodeStateLocked:
		return &Problem{"locked", "the Swarm is locked: run `docker swarm unlock`"}
	case state.LocalNodeState != swarm.LocalNodeStateActive:
		return &Problem{"no-swarm", fmt.Sprintf("Docker is not part of a Swarm (%s): run `docker swarm init`", state.LocalNodeState)}
	// Only a manager lists services, and teardown begins with them.
	case !state.ControlAvailable:
		return &Problem{"no-manager", "this node is no manager of the Swarm: run the runner on a manager, or `docker node promote` this node"}
	}
	for _, name := range s.cfg.Networks {
		_, err := s.docker.NetworkInspect(ctx, name, client.NetworkInspectOptions{})
		if errdefs.IsNotFound(err) {
			return &Problem{"no-network", fmt.Sprintf("there is no network %s: run `docker network create -d overlay --attachable "+
				"--subnet 10.10.0.0/16 %s`, or take it out of DRONE_RUNNER_DOCKER_NETWORKS", name, name)}
		}
		if err != nil {
			return &Problem{"unreachable", fmt.Sprintf("Docker does not tell about the network %s (%v): look at the daemon's log", name, err)}
		}
	}
	return s.stuck(ctx)
}

// stuck finds tasks that wait for an address. `docker network inspect` does not show that a network has leaked its
// addresses, see pass; the tasks do. Restarting Docker helps because it counts the addresses anew.
func (s *Swarm) stuck(ctx context.Context) error {
	tasks, err := s.docker.TaskList(ctx, client.TaskListOptions{})
	if err != nil {
		return &Problem{"no-leader", fmt.Sprintf("the Swarm does not list its tasks (%v): bring back a majority of its managers", err)}
	}
	var services []string
	for _, t := range tasks.Items {
		ends := t.DesiredState == swarm.TaskStateShutdown || t.DesiredState == swarm.TaskStateRemove
		if t.Status.State == swarm.TaskStateNew && !ends && time.Since(t.CreatedAt) > stuckAfter {
			services = append(services, t.ServiceID)
		}
	}
	if len(services) == 0 {
		return nil
	}
	return &Problem{"no-addresses", fmt.Sprintf("%d tasks get no network address (services %s): a network is full or has leaked "+
		"its addresses; restart Docker, and give the network a larger subnet", len(services), strings.Join(services, " "))}
}
