package swarm_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// TestFind looks for what a build and two apps left, removes it, and leaves alone what is in use or nobody's.
func TestFind(t *testing.T) {
	h := newHost(t, func(c *swarm.Config) {
		c.AppPattern, c.LockDir = `^[a-z]+-[0-9a-f]{6}\.ci\.example\.org$`, t.TempDir()
		c.EnvDirs = []string{t.TempDir()}
	})
	h.quiet()
	before := h.objects()
	base, err := h.swarm.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	j := h.attach("cc-ci-test-found", nil)
	j.do("volume", "create", "foundvol")
	leaveApps(t, h)
	lock, err := os.Create(filepath.Join(h.config.LockDir, "cc-ci-app-live-0a1b2c.ci.example.org.lock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lock.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}

	h.running("dead-0a1b2c_ci_example_org_app", 1)
	orphans, err := h.swarm.Find(t.Context(), func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	live := map[string]bool{}
	for _, o := range orphans {
		live[o.Build+o.Stack] = o.Live
		if o.Since.IsZero() || len(o.Items) == 0 || (o.Build != "" && o.Labels["repo"] != "octo/recipe") {
			t.Errorf("found %+v", o)
		}
		_, err := h.swarm.Remove(t.Context(), o)
		if (err != nil) != o.Live {
			t.Errorf("remove %s%s: %v", o.Build, o.Stack, err)
		}
	}
	want := map[string]bool{"cc-ci-test-found": false, "dead-0a1b2c_ci_example_org": false,
		"live-0a1b2c_ci_example_org": true, "rest-0a1b2c_ci_example_org": false}
	if len(live) != len(want) {
		t.Errorf("found %v, want %v", live, want)
	}
	for name, l := range want {
		if got, found := live[name]; !found || got != l {
			t.Errorf("%s: found %v, live %v; want live %v", name, found, got, l)
		}
	}
	for key := range h.objects() {
		if !before[key] && strings.Contains(key, "0a1b2c") && !strings.Contains(key, "live-") && !strings.HasPrefix(key, "task") {
			t.Errorf("%s is left", key)
		}
	}
	now, err := h.swarm.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if ownerless := base.Ownerless(now); len(ownerless) != 6 { // service, volume and secret of live and other
		t.Errorf("ownerless: %v", ownerless)
	}
	for _, stack := range []string{"live-0a1b2c_ci_example_org", "other_example_org"} {
		h.direct("service", "rm", stack+"_app")
		h.direct("secret", "rm", stack+"_pw_v1")
		h.direct("volume", "rm", stack+"_data")
	}
	if _, err := h.swarm.Remove(t.Context(), swarm.Orphan{Stack: "other_example_org"}); err == nil {
		t.Error("an app that no pattern matches was removed")
	}
}

// leaveApps makes apps past every build's socket: one dead, one that is to be live, one that no pattern matches, and a
// secret that is all there is left of another.
func leaveApps(t *testing.T, h *host) {
	t.Helper()
	secret := func(name string) {
		if out, err := run(t, h.d.Host, "x", "secret", "create", name, "-"); err != nil {
			t.Fatal(err, out)
		}
	}
	for _, stack := range []string{"dead-0a1b2c_ci_example_org", "live-0a1b2c_ci_example_org", "other_example_org"} {
		h.direct("service", "create", "--detach", "--name", stack+"_app", "--label", "com.docker.stack.namespace="+stack,
			"--container-label", "com.docker.stack.namespace="+stack, swarmtest.Image)
		h.direct("volume", "create", "--label", "com.docker.stack.namespace="+stack, stack+"_data")
		secret(stack + "_pw_v1")
	}
	secret("rest-0a1b2c_ci_example_org_pw_v1")
}
