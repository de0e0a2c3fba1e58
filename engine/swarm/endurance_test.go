package swarm_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// enduring is a stack of three services on two networks, one of which outlives it, with a secret, a config, a named
// volume and an anonymous one. NETWORK is the network that outlives it.
const enduring = `
version: "3.8"
services:
  app:
    image: ` + swarmtest.ImageVolume + `
    networks: [outer, internal]
    secrets: [key]
    configs: [conf]
    volumes: ["data:/data"]
  web:
    image: ` + swarmtest.Image + `
    networks: [outer, internal]
  db:
    image: ` + swarmtest.Image + `
    networks: [internal]
networks:
  internal: {}
  outer: {external: true, name: NETWORK}
volumes: {data: {}}
secrets: {key: {file: ./key}}
configs: {conf: {file: ./key}}
`

// tiny makes a network with a /28 and returns how many tasks find an address on it.
func (h *host) tiny(name, subnet string) int {
	h.t.Helper()
	h.direct("network", "create", "-d", "overlay", "--attachable", "--subnet", subnet, name)
	h.t.Cleanup(func() { // the builds' cleanups come before
		eventually(h.t, "the network goes", func() bool {
			_, err := run(h.t, h.d.Host, "", "network", "rm", name)
			return err == nil
		})
	})
	return h.addresses(name, 16)
}

// addresses counts the tasks that get an address on a network, of as many as are wanted. The tasks are never started:
// a task has its addresses before it has a node, and no node is good enough for these.
func (h *host) addresses(network string, want int) int {
	h.t.Helper()
	h.direct("service", "create", "--detach", "--name", "filler", "--replicas", fmt.Sprint(want), "--network", network,
		"--endpoint-mode", "dnsrr", "--constraint", "node.labels.none==such", swarmtest.Image)
	got, since := -1, time.Now()
	filter := client.Filters{}.Add("service", "filler")
	eventually(h.t, "the Swarm has looked for addresses", func() bool {
		tasks, err := h.d.Client.TaskList(h.t.Context(), client.TaskListOptions{Filters: filter})
		if err != nil {
			return false
		}
		now := len(slices.DeleteFunc(tasks.Items, func(v swarm.Task) bool { return v.Status.State == swarm.TaskStateNew }))
		if now != got {
			got, since = now, time.Now()
		}
		return got == want || got > 0 && time.Since(since) > 2*time.Second
	})
	h.direct("service", "rm", "filler")
	h.quiet()
	return got
}

// TestEndurance deploys and tears down on a network with a /28. A teardown that loses one address per task, as
// removing a stack's network too early does, has none left after a few cycles; TestStackRmAloneLosesAddresses shows it.
func TestEndurance(t *testing.T) {
	h := newHost(t, nil)
	free := h.tiny("proxy", "10.77.0.0/28")
	before := h.census()
	compose := strings.ReplaceAll(enduring, "NETWORK", "proxy")
	cycles := swarmtest.Count(8, 100)
	var took []time.Duration
	for i := range cycles {
		j := h.attach(fmt.Sprintf("cc-ci-test-e%d", i), nil)
		j.write("key", "k")
		j.deploy("endure", compose)
		for _, name := range []string{"endure_app", "endure_web", "endure_db"} {
			j.running(name, 1)
		}
		if i%3 == 2 { // a pipeline that cleans up by itself, the way that leaks without the held network
			j.do("stack", "rm", "endure")
		}
		start := time.Now()
		j.teardown()
		took = append(took, time.Since(start))
		if after := h.census(); !maps.Equal(before, after) {
			t.Fatalf("cycle %d: before %v, after %v", i, before, after)
		}
		if err := h.swarm.Detach(t.Context(), j.name); err != nil {
			t.Fatal(err)
		}
		if (i+1)%20 == 0 {
			t.Logf("%d of %d cycles, nothing left", i+1, cycles)
		}
	}
	if now := h.addresses("proxy", free); now != free {
		t.Errorf("the network had %d addresses and has %d after %d cycles", free, now, cycles)
	}
	slices.Sort(took)
	t.Logf("%d cycles, nothing left after each: %v; the network has its %d addresses; teardown p50 %s, longest %s", cycles, before,
		free, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}

// TestStackRmAloneLosesAddresses is the control of TestEndurance: the same stack, removed by `docker stack rm` straight
// at the daemon, takes addresses of the network with it. Without it, TestEndurance could pass for want of a fault.
func TestStackRmAloneLosesAddresses(t *testing.T) {
	h := newHost(t, nil)
	free := h.tiny("leaky", "10.78.0.0/28")
	// Not attached to the daemon through the build's socket: only its workspace is used.
	j := h.attach("cc-ci-test-control", nil)
	j.socket = h.d.Socket
	j.write("key", "k")
	compose := strings.ReplaceAll(enduring, "NETWORK", "leaky")
	left, cycles := free, 0
	for most := swarmtest.Count(2, 16); cycles < most && left > 5; cycles++ { // with fewer the stack may not start
		j.deploy("control", compose)
		for _, name := range []string{"control_app", "control_web", "control_db"} {
			j.running(name, 1)
		}
		j.do("stack", "rm", "control")
		h.quiet()
		j.do("volume", "rm", "control_data")
		left = h.addresses("leaky", free)
	}
	if left == free {
		t.Skipf("Docker %s lost no address in %d cycles: TestEndurance shows nothing about held networks here", h.version(), cycles)
	}
	t.Logf("Docker %s: of %d addresses %d are left after %d cycles of docker stack rm", h.version(), free, left, cycles)
}

// version is that of the daemon.
func (h *host) version() string {
	h.t.Helper()
	v, err := h.d.Client.ServerVersion(h.t.Context(), client.ServerVersionOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	return v.Version
}
