package swarm_test

import (
	"errors"
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

// TestAppLock deploys an app through a build's socket, with a secret past it. While the build lives the app's lock is
// held, so no janitor takes the secret for one that nobody uses; afterwards it is free.
func TestAppLock(t *testing.T) {
	h := newHost(t, func(c *swarm.Config) {
		c.AppPattern, c.LockDir = `^[a-z]+-[0-9a-f]{6}\.ci\.example\.org$`, t.TempDir()
	})
	stack := "shop-0a1b2c_ci_example_org"
	lock := func() error {
		f, err := os.Open(filepath.Join(h.config.LockDir, "cc-ci-app-shop-0a1b2c.ci.example.org.lock"))
		if err != nil {
			return err
		}
		return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), f.Close())
	}
	j := h.attach("cc-ci-test-locked", nil)
	j.deploy("other", script("sleep 1000", ""))
	if err := lock(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an app that does not match the pattern was locked: %v", err)
	}
	j.deploy(stack, script("sleep 1000", ""))
	if out, err := run(t, h.d.Host, "x", "secret", "create", stack+"_pw_v1", "-"); err != nil {
		t.Fatal(err, out)
	}
	if err := lock(); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("the lock of a live app: %v", err)
	}
	apps, err := h.swarm.FindApps(t.Context())
	if err != nil || len(apps) != 1 || !apps[0].Live {
		t.Fatalf("found %+v, %v", apps, err)
	}
	apps[0].Live = false // as a look would say that was taken before the app was deployed
	if _, err := h.swarm.Remove(t.Context(), apps[0]); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("remove a live app: %v", err)
	}
	j.teardown()
	if err := h.swarm.Detach(t.Context(), j.name); err != nil {
		t.Fatal(err)
	}
	if err := lock(); err != nil {
		t.Errorf("the lock of an app whose build is over: %v", err)
	}
	if apps, err := h.swarm.FindApps(t.Context()); err != nil || len(apps) > 0 {
		t.Errorf("found %+v, %v", apps, err)
	}
}

// TestPatternWithoutEnd has a live app with a secret. A pattern that could match in the middle of the secret's name must
// not find another app in it, of which nobody holds the lock.
func TestPatternWithoutEnd(t *testing.T) {
	d := daemon{"/volumes": map[string]any{}, "/secrets": []any{map[string]any{"ID": "s1", "Spec": map[string]any{"Name": "shop_ci_example_org_pw_v1"}}}}
	for _, empty := range []string{"/services", "/tasks", "/configs", "/containers/json", "/networks"} {
		d[empty] = []any{}
	}
	locks := t.TempDir()
	held, err := os.Create(filepath.Join(locks, "cc-ci-app-shop.ci.example.org.lock"))
	check(t, err)
	check(t, unix.Flock(int(held.Fd()), unix.LOCK_EX))
	s, err := swarm.Open(t.Context(), swarm.Config{Mode: swarm.ModeProxy, Endpoint: d.serve(t), AppPattern: `\.ci\.example\.org`, LockDir: locks})
	check(t, err)
	apps, err := s.FindApps(t.Context())
	if err != nil || len(apps) != 1 || apps[0].Stack != "shop_ci_example_org" || !apps[0].Live {
		t.Errorf("found %+v, %v", apps, err)
	}
	check(t, s.Close())
	check(t, held.Close())
}
