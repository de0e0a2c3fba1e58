package swarm_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	dockerswarm "github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// spread is a service with a container and a named volume on every node.
const spread = "    stop_grace_period: 1s\n    volumes: [data:/data]\n    deploy: {mode: global}\nvolumes: {data: {}}\n"

// TestNodes tears down on three nodes: all reachable, one without an endpoint, one cut off.
func TestNodes(t *testing.T) {
	docker.Need(t) // holds the lock of the host's test daemons
	c, err := swarmtest.StartCluster(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Run("a worker is no place for a runner", func(t *testing.T) {
		var p *swarm.Problem
		s := openHost(t, c.Nodes[1], swarm.Config{}).swarm
		if err := s.Health(t.Context()); !errors.As(err, &p) || p.Name != "no-manager" {
			t.Errorf("health: %v", err)
		}
	})
	t.Run("every node", func(t *testing.T) { everyNode(t, c) })
	t.Run("a node without an endpoint", func(t *testing.T) { blindNode(t, c) })
	t.Run("a node that is cut off", func(t *testing.T) { cutNode(t, c) })
}

// onCluster opens a Swarm that knows the endpoints of these nodes beside the manager's.
func onCluster(t *testing.T, c *swarmtest.Cluster, nodes ...int) *host {
	var endpoints []string
	for _, n := range nodes {
		endpoints = append(endpoints, swarmtest.Endpoint(n))
	}
	dir := openDir(t)
	return openHost(t, c.Nodes[0], swarm.Config{SocketDir: dir + "/run", LedgerDir: dir + "/ledger", Nodes: endpoints,
		TeardownTimeout: time.Minute})
}

func everyNode(t *testing.T, c *swarmtest.Cluster) {
	j := onCluster(t, c, 1, 2).attach("cc-ci-test-nodes", nil)
	j.deploy("nodes", script("sleep 1000", spread))
	j.running("nodes_app", 3)
	volumes, start := 0, time.Now()
	for _, item := range j.teardown() {
		if item.Kind == "volume" {
			volumes++
		}
	}
	t.Log("teardown on three nodes took ", time.Since(start))
	if volumes != 1 { // one name, on three nodes
		t.Errorf("removed %d volumes", volumes)
	}
	for _, n := range c.Nodes {
		r, err := n.Client.VolumeList(t.Context(), client.VolumeListOptions{})
		if err != nil || len(r.Items) > 0 {
			t.Errorf("%s still has %v, %v", n.Host, r.Items, err)
		}
	}
}

func blindNode(t *testing.T, c *swarmtest.Cluster) {
	h := onCluster(t, c, 1)
	j := h.attach("cc-ci-test-unverified", nil)
	j.deploy("blind", script("sleep 1000", spread))
	j.running("blind_app", 3)
	j.do("stack", "rm", "blind") // which leaves no task that tells where it was
	wantUnverified(t, h, j.name, "ccci-n2")
	r, err := c.Nodes[2].Client.VolumeList(t.Context(), client.VolumeListOptions{})
	if err != nil || len(r.Items) != 1 {
		t.Errorf("the unreachable node has %v, %v", r.Items, err)
	}
}

func cutNode(t *testing.T, c *swarmtest.Cluster) {
	h := onCluster(t, c, 1, 2)
	j := h.attach("cc-ci-test-cut", nil)
	j.deploy("cut", script("sleep 1000", spread))
	j.running("cut_app", 3)
	if _, err := h.swarm.Builds(t.Context()); err != nil { // as at the runner's start
		t.Fatal(err)
	}
	if err := c.Cut(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the manager misses the node", func() bool {
		r, err := c.Nodes[0].Client.NodeList(t.Context(), client.NodeListOptions{})
		return err == nil && slices.ContainsFunc(r.Items, isDown)
	})
	wantUnverified(t, h, j.name, swarmtest.Endpoint(1))
	if err := c.Restore(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	// Once it is back, the next teardown finishes the work.
	eventually(t, "the rest is removed", func() bool {
		if _, err := h.swarm.Teardown(t.Context(), j.name); err != nil {
			return false
		}
		left, err := h.swarm.Remaining(t.Context(), j.name)
		return err == nil && len(left) == 0
	})
}

// wantUnverified tears down and wants to be told about a node that nobody could look at.
func wantUnverified(t *testing.T, h *host, build, name string) {
	t.Helper()
	if _, err := h.swarm.Teardown(t.Context(), build); err != nil {
		t.Fatal(err)
	}
	left, err := h.swarm.Remaining(t.Context(), build)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(left, func(i leftover.Item) bool {
		return i.Kind == swarm.KindNode && i.Name == name && strings.Contains(i.Detail, "not checked")
	}) || len(left) != 1 {
		t.Errorf("left %v, want only that %s was not checked", left, name)
	}
}

// isDown says whether the manager has lost a node.
func isDown(n dockerswarm.Node) bool { return n.Status.State == dockerswarm.NodeStateDown }
