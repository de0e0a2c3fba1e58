package swarm_test

import (
	"fmt"
	"path/filepath"
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
	j.do("export", "-o", filepath.Join(j.workspace, "run.tar"), n+"-run")
	j.do("import", filepath.Join(j.workspace, "run.tar"), n+"-imported:1")
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
	owner, crossed := map[string]string{}, 0
	for i, j := range jobs {
		items, err := h.swarm.Remaining(t.Context(), j.name)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			for _, name := range strings.Fields(item.Name) { // an image has several
				key := item.Kind + " " + name
				named := item.Kind != "task" && item.Detail != "anonymous" && !strings.HasPrefix(name, "sha256:")
				if prefix := fmt.Sprintf("a%d", i); owner[key] != "" || named && !strings.HasPrefix(name, prefix) {
					t.Errorf("%s is said to be %s's, and belongs to %s", key, j.name, owner[key])
					crossed++
				}
				owner[key] = j.name
			}
		}
	}
	created, attributed := 0, 0
	kinds := map[string]int{}
	for key := range h.objects() {
		if before[key] || strings.HasPrefix(key, "image sha256:") && owner[key] == "" {
			continue // an image is known by its names, where it has some
		}
		created++
		kinds[kindOf(key)]++
		if owner[key] == "" {
			t.Errorf("%s belongs to nobody", key)
			continue
		}
		attributed++
	}
	t.Logf("created %d objects of %d kinds, attributed %d (%d %%), crossed %d: %v",
		created, len(kinds), attributed, 100*attributed/created, crossed, kinds)
	if len(kinds) != 9 {
		t.Errorf("%d kinds were made, want 9", len(kinds))
	}
	for _, j := range jobs {
		j.teardown()
	}
	for key := range h.objects() {
		if !before[key] {
			t.Errorf("%s is left", key)
		}
	}
}
