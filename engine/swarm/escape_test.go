package swarm_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// TestEscapes tries, on a real daemon, what its older and lesser known forms of calls would allow.
func TestEscapes(t *testing.T) {
	h := newHost(t, nil)
	v := victim(t, h)
	j := h.attach("cc-ci-test-escape", nil)
	j.do("run", "-d", "--name", "mine", swarmtest.Image)
	const js = "application/json"
	t.Run("a host configuration on start", func(t *testing.T) {
		j := j.in(t)
		j.do("create", "--name", "startme", swarmtest.Image, "ls", "/host")
		j.call("POST", "/v1.23/containers/startme/start", js, `{"Privileged":true,"Binds":["/:/host"]}`)
		r, err := h.d.Client.ContainerInspect(t.Context(), "startme", client.ContainerInspectOptions{})
		if err != nil || r.Container.HostConfig.Privileged || len(r.Container.HostConfig.Binds) > 0 {
			t.Errorf("the container got %+v, %v", r.Container.HostConfig, err)
		}
	})
	t.Run("a volume in memory that is a bind", func(t *testing.T) {
		if out, err := j.in(t).try("volume", "create", "-o", "type=tmpfs", "-o", "o=bind", "-o", "device=/", "rootvol"); err == nil {
			t.Error("a volume that shows the host: ", out)
		}
		j.in(t).do("volume", "create", "-o", "type=tmpfs", "-o", "o=size=1m,uid=1000", "-o", "device=tmpfs", "memvol")
		want(t, j.in(t), "tmpfs on /m", "run", "--rm", "-v", "memvol:/m", swarmtest.Image, "mount")
	})
	t.Run("another network by the settings of one's own", func(t *testing.T) {
		j := j.in(t)
		j.do("network", "create", "-d", "overlay", "--attachable", "ownnet")
		status, body := j.call("POST", "/containers/create?name=sneaky", js, `{"Image":"`+swarmtest.Image+
			`","HostConfig":{"NetworkMode":"ownnet"},"NetworkingConfig":{"EndpointsConfig":{"ownnet":{"NetworkID":"victimnet"}}}}`)
		if status != 403 || !strings.Contains(body, "rule networks:") {
			t.Errorf("create: %d %s", status, body)
		}
	})
	t.Run("a network's name that changes hands", func(t *testing.T) { nameSwaps(t, j, v) })
	t.Run("lists by another's label", func(t *testing.T) {
		j := j.in(t)
		for range 20 { // the Swarm takes the one or the other of two values
			for _, kind := range []string{"services", "tasks", "secrets", "configs"} {
				_, body := j.call("GET", "/"+kind+`?filters=%7B%22label%22%3A%5B%22cc-ci.build%3Dcc-ci-test-victim%22%5D%7D`, js, "")
				if strings.Contains(body, "victimsvc") || strings.Contains(body, `"ID"`) {
					t.Fatalf("%s shows %s", kind, body)
				}
			}
		}
	})
	t.Run("a prune by a form", func(t *testing.T) {
		j := j.in(t)
		j.direct("create", "--name", "others-stale", swarmtest.Image)
		defer j.direct("rm", "others-stale")
		j.call("POST", "/containers/prune", "Application/x-www-form-URLencoded", "filters={}")
		j.direct("inspect", "others-stale")
	})
	t.Run("a service that keeps MKNOD", func(t *testing.T) {
		j := j.in(t)
		status, body := j.call("POST", "/v1.40/services/create", js, `{"Name":"old","TaskTemplate":{"ContainerSpec":{"Image":"`+
			swarmtest.Image+`","Mounts":[{"Type":"bind","Source":"`+j.workspace+`","Target":"/w"}]}}}`)
		if status != 403 || !strings.Contains(body, "rule devices:") {
			t.Errorf("%d %s", status, body)
		}
	})
	t.Run("the host's routes", func(t *testing.T) {
		if out, err := j.in(t).try("network", "create", "--subnet", "198.51.100.0/24", "routes"); err == nil || !strings.Contains(out, "rule network-options:") {
			t.Errorf("%v, %s", err, out)
		}
		j.in(t).do("network", "create", "--subnet", "10.213.99.0/24", "fine")
	})
	t.Run("a label that is swallowed", func(t *testing.T) {
		if out, err := j.in(t).try("commit", "--change", `CMD echo \`, "mine", "unlabelled:1"); err == nil {
			t.Error("committed: ", out)
		}
	})
}

// nameSwaps lets a container's network change hands at several moments before the container starts.
func nameSwaps(t *testing.T, j, v *job) {
	for what, before := range map[string][]string{
		"create":     nil,
		"stop":       {"start swap", "stop -t 0 swap"},
		"connect":    {"network connect NET swap"},
		"disconnect": {"network disconnect NET swap"},
	} {
		for _, driver := range []string{"bridge", "overlay"} {
			t.Run(what+" "+driver, func(t *testing.T) {
				nameSwap(j.in(t), v.in(t), driver, before)
			})
		}
	}
}

// nameSwap makes a container on a network of its own, does something to it, and gives the network's name to another build:
// the container must not start there.
func nameSwap(j, v *job, driver string, before []string) {
	network := "swap-" + driver
	j.do("network", "create", "-d", driver, "--attachable", network)
	on := network
	if len(before) > 0 && strings.Contains(before[0], " connect ") {
		on = "bridge"
	}
	j.do("create", "--name", "swap", "--network", on, swarmtest.Image)
	defer func() { _, _ = j.try("rm", "-f", "swap") }() // also where the test has failed
	for _, line := range before {
		j.do(strings.Fields(strings.ReplaceAll(line, "NET", network))...)
	}
	j.do("network", "rm", network)
	eventually(j.t, "the name is free", func() bool {
		_, err := v.try("network", "create", "-d", driver, "--attachable", network)
		return err == nil
	})
	theirs := v.do("network", "inspect", "--format", "{{.Id}}", network)
	out, err := j.try("start", "swap")
	state := j.direct("inspect", "--format", "{{.State.Running}} {{json .NetworkSettings.Networks}}", "swap")
	if strings.HasPrefix(state, "true") && strings.Contains(state, theirs) {
		j.t.Errorf("the container is on another build's network: %s, %s, %v", state, out, err)
	}
	j.do("rm", "-f", "swap")
	v.do("network", "rm", network)
}

// TestImagesLeaveTheirBuild runs images that a build made past its socket, as a deployment does: what runs is not the
// build's, though it inherits the image's labels.
func TestImagesLeaveTheirBuild(t *testing.T) {
	h := newHost(t, nil)
	j := h.attach("cc-ci-test-images", nil)
	j.do("run", "-d", "--name", "source", swarmtest.Image)
	j.do("commit", "source", "committed:deploy")
	j.write("Dockerfile", "FROM "+swarmtest.Image+"\nRUN echo built > /built\n")
	j.do("build", "-t", "built:deploy", j.workspace)
	for _, name := range []string{"committed", "built"} {
		// An admin's copy keeps the image when the build's names go.
		h.direct("tag", name+":deploy", "production-"+name+":1")
		h.direct("run", "-d", "--name", "production-"+name, "production-"+name+":1")
		t.Cleanup(func() {
			h.direct("rm", "-f", "production-"+name)
			_, _ = run(t, h.d.Host, "", "rmi", "-f", "production-"+name+":1") // the teardown may have taken the name
		})
		if out, err := j.try("exec", "production-"+name, "true"); err == nil || !strings.Contains(out, "rule own-objects:") {
			t.Errorf("the build may enter %s: %v, %s", name, err, out)
		}
	}
	removed, err := h.swarm.Teardown(t.Context(), j.name)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"production-committed", "production-built"} {
		if out := h.direct("inspect", "--format", "{{.State.Running}}", name); out != "true" {
			t.Errorf("%s runs: %s; removed %v", name, out, removed)
		}
	}
	builds, err := h.swarm.Builds(t.Context())
	if err != nil || slices.Contains(builds, "") {
		t.Errorf("builds are %q, %v", builds, err)
	}
}
