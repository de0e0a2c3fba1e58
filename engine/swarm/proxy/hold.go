package proxy

import (
	"context"
	"time"

	"github.com/moby/moby/client"
)

// holdPoll is how often a held network removal looks whether its tasks are gone: two lists, of a millisecond or two.
const holdPoll = 50 * time.Millisecond

// hold waits for the tasks of removed services on a network. When the time is over the daemon decides: to lose addresses
// is better than a pipeline that hangs.
func (p *Proxy) hold(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, p.HoldTimeout)
	defer cancel()
	for {
		pending, err := TasksOn(ctx, p.Docker, id)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if pending == 0 || ctx.Err() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(holdPoll):
		}
	}
}

// TasksOn counts the tasks on a network whose service is removed. Tasks of a service that lives are not waited for:
// the daemon refuses to remove their network. It asks for all services and tasks, because the tasks of a foreign service
// on the network count as well. engine/swarm's teardown uses it, too.
func TasksOn(ctx context.Context, docker *client.Client, id string) (int, error) {
	services, err := docker.ServiceList(ctx, client.ServiceListOptions{})
	if unavailable(err) {
		return 0, nil // no Swarm, no tasks
	}
	if err != nil {
		return 0, err
	}
	tasks, err := docker.TaskList(ctx, client.TaskListOptions{})
	if err != nil {
		return 0, err
	}
	alive := map[string]bool{}
	for _, s := range services.Items {
		alive[s.ID] = true
	}
	on := map[string]int{} // by node
	for _, t := range tasks.Items {
		for _, n := range t.NetworksAttachments {
			if n.Network.ID == id && t.ServiceID != "" && !alive[t.ServiceID] {
				on[t.NodeID]++
			}
		}
	}
	if len(on) == 0 {
		return 0, nil
	}
	nodes, err := docker.NodeList(ctx, client.NodeListOptions{})
	if err != nil {
		return 0, err
	}
	count := 0
	for _, n := range nodes.Items {
		if n.Status.State != "down" { // the tasks of one that is down stay until it comes back
			count += on[n.ID]
		}
	}
	// A task without a node waits to be placed.
	return count + on[""], nil
}
