package swarm_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// everything makes all nine kinds of objects in every way that there is, with names that begin with the build's.
func everything(t *testing.T, j *job, n string) {
	j.do("run", "-d", "--name", n+"-run", "-v", n+"-adhoc:/x", swarmtest.ImageVolume)
	gone := j.do("run", "-d", swarmtest.ImageVolume)
	j.do("rm", "-f", gone) // leaves an anonymous volume
	j.do("volume", "create", n+"-volume")
	j.do("network", "create", n+"-bridge")
	j.do("network", "create", "-d", "overlay", "--attachable", n+"-overlay")
	wantInput(t, j, "s", "", "secret", "create", n+"-secret", "-")
	wantInput(t, j, "c", "", "config", "create", n+"-config", "-")
	j.do("service", "create", "--detach", "--name", n+"-service", "--network", n+"-overlay", "--secret", n+"-secret",
		"--mount", "type=volume,source="+n+"-svcvol,target=/v", swarmtest.ImageVolume)
	j.write("key", n)
	j.write("Dockerfile", "FROM "+swarmtest.Image+"\nRUN echo "+n+" > /name\n")
	for range 2 {
		j.deploy(n, compose)
	}
	j.do("build", "-t", n+"-built:1", j.workspace)
	j.do("commit", n+"-run", n+"-committed:1")
	j.do("tag", swarmtest.Image, n+"-tagged:1")
	j.running(n+"_app", 1)
	j.running(n+"_db", 1)
	j.running(n+"-service", 1)
}

// TestAttribution runs four builds at once. Every object that is new belongs to exactly one of them, the right one.
func TestAttribution(t *testing.T) {
	h := newHost(t, nil)
	h.quiet()
	before := h.objects()
	var jobs []*job
	for i := range 4 {
		jobs = append(jobs, h.attach(fmt.Sprintf("cc-ci-test-a%d", i), nil))
	}
	var wg sync.WaitGroup
	for i, j := range jobs {
		wg.Go(func() { everything(t, j, fmt.Sprintf("a%d", i)) })
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	owner := map[string]string{}
	kinds := map[string]int{}
	for i, j := range jobs {
		items, err := h.swarm.Remaining(t.Context(), j.name)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			for _, name := range strings.Fields(item.Name) { // an image has several
				key := item.Kind + " " + name
				if owner[key] != "" {
					t.Errorf("%s belongs to %s and %s", key, owner[key], j.name)
				}
				owner[key] = j.name
				named := item.Kind != "task" && item.Detail != "anonymous" && !strings.HasPrefix(name, "sha256:")
				if prefix := fmt.Sprintf("a%d", i); named && !strings.HasPrefix(name, prefix) {
					t.Errorf("%s is not %s's", key, j.name)
				}
			}
			kinds[item.Kind]++
		}
	}
	created := 0
	for key := range h.objects() {
		if before[key] || strings.HasPrefix(key, "image sha256:") && owner[key] == "" {
			continue // an image is known by its names, where it has some
		}
		if created++; owner[key] == "" {
			t.Errorf("%s belongs to nobody", key)
		}
	}
	t.Logf("created %d, attributed %d: %v", created, len(owner), kinds)
	for _, j := range jobs {
		j.teardown()
	}
	for key := range h.objects() {
		if !before[key] {
			t.Errorf("%s is left", key)
		}
	}
}

// enduring is a stack like compose with a service more, all on a network that outlives it.
const enduring = `
version: "3.8"
services:
  app:
    image: ` + swarmtest.ImageVolume + `
    networks: [proxy, internal]
    secrets: [key]
    configs: [conf]
    volumes: ["data:/data"]
  web:
    image: ` + swarmtest.Image + `
    networks: [proxy, internal]
  db:
    image: ` + swarmtest.Image + `
    networks: [internal]
networks:
  internal: {}
  proxy: {external: true}
volumes: {data: {}}
secrets: {key: {file: ./key}}
configs: {conf: {file: ./key}}
`

// TestEndurance deploys and tears down on a network with 13 addresses. A teardown that loses one address per task, as
// removing a stack's network too early does, has none left after a few cycles.
func TestEndurance(t *testing.T) {
	h := newHost(t, nil)
	h.direct("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.77.0.0/28", "proxy")
	t.Cleanup(func() { h.direct("network", "rm", "proxy") })
	before := h.census()
	for i := range swarmtest.Count(8, 100) {
		j := h.attach(fmt.Sprintf("cc-ci-test-e%d", i), nil)
		j.write("key", "k")
		j.deploy("endure", enduring)
		for _, name := range []string{"endure_app", "endure_web", "endure_db"} {
			j.running(name, 1)
		}
		if i%3 == 2 { // a pipeline that cleans up by itself, the way that leaks without the held network
			j.do("stack", "rm", "endure")
		}
		j.teardown()
		if after := h.census(); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Fatalf("cycle %d: before %v, after %v", i, before, after)
		}
	}
}
