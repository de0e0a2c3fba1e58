package swarm_test

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// script is a compose file with one service that runs a shell script.
func script(text, more string) string {
	return `
version: "3.8"
services:
  app:
    image: ` + swarmtest.Image + `
    command: ["sh", "-c", "` + text + `"]
` + more
}

func TestTeardownOfNothing(t *testing.T) {
	h := newHost(t, nil)
	for range 2 {
		removed, err := h.swarm.Teardown(t.Context(), "cc-ci-test-never")
		if err != nil || len(removed) > 0 {
			t.Error(removed, err)
		}
	}
	if left, err := h.swarm.Remaining(t.Context(), "cc-ci-test-never"); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

func TestTeardownOfAServiceThatIgnoresSIGTERM(t *testing.T) {
	j := newHost(t, nil).attach("cc-ci-test-stubborn", nil)
	j.deploy("stubborn", script("trap '' TERM; while :; do sleep 1; done", "    stop_grace_period: 10m\n"))
	j.running("stubborn_app", 1)
	j.teardown()
}

func TestTeardownOfACrashLoop(t *testing.T) {
	j := newHost(t, nil).attach("cc-ci-test-crash", nil)
	j.deploy("crash", script("exit 1", "    volumes: [data:/data]\n    deploy: {restart_policy: {delay: 100ms}}\nvolumes: {data: {}}\n"))
	eventually(t, "several crashes", func() bool {
		return len(strings.Fields(j.do("ps", "-aq", "--filter", "status=exited"))) >= 2
	})
	j.teardown()
}

func TestTeardownWhileTasksStart(t *testing.T) {
	j := newHost(t, nil).attach("cc-ci-test-early", nil)
	j.deploy("early", script("sleep 1000", "    deploy: {replicas: 5}\n"))
	j.teardown()
}

func TestTeardownDetachesForeignContainers(t *testing.T) {
	h := newHost(t, nil)
	j := h.attach("cc-ci-test-guest", nil)
	j.do("network", "create", "-d", "overlay", "--attachable", "over")
	j.do("network", "create", "plain")
	h.direct("run", "-d", "--name", "guest1", "--network", "over", swarmtest.Image)
	h.direct("run", "-d", "--name", "guest2", "--network", "plain", swarmtest.Image)
	t.Cleanup(func() { h.direct("rm", "-f", "guest1", "guest2") })
	j.teardown()
	if out := h.direct("ps", "--format", "{{.Names}}", "--filter", "name=guest"); len(strings.Fields(out)) != 2 {
		t.Errorf("the foreign containers run no more: %q", out)
	}
}

// TestSurvivors puts the build's objects into foreign use. What cannot go must be named, with the daemon's reason.
func TestSurvivors(t *testing.T) {
	h := newHost(t, func(c *swarm.Config) { c.TeardownTimeout = 6 * time.Second })
	j := h.attach("cc-ci-test-survivor", nil)
	j.do("volume", "create", "usedvol")
	j.do("volume", "create", "freevol")
	wantInput(t, j, "x", "", "secret", "create", "usedsecret", "-")
	j.do("network", "create", "-d", "overlay", "usednet")
	h.direct("run", "-d", "--name", "usesvol", "-v", "usedvol:/x", swarmtest.Image)
	h.direct("service", "create", "--detach", "--name", "uses", "--secret", "usedsecret", "--network", "usednet", swarmtest.Image)
	release := func() {
		h.direct("rm", "-f", "usesvol")
		h.direct("service", "rm", "uses")
	}
	removed, err := h.swarm.Teardown(t.Context(), j.name)
	if err != nil {
		t.Errorf("teardown: %v", err)
	}
	if !slices.ContainsFunc(removed, func(i leftover.Item) bool { return i.Name == "freevol" }) {
		t.Errorf("removed %v, want freevol among it", removed)
	}
	left, err := h.swarm.Remaining(t.Context(), j.name)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range left {
		names = append(names, i.Kind+" "+i.Name)
		if !strings.Contains(i.Detail, "in use") || strings.Contains(i.Detail, "rpc error") {
			t.Errorf("%s has no reason", i)
		}
	}
	slices.Sort(names)
	if want := []string{"network usednet", "secret usedsecret", "volume usedvol"}; !slices.Equal(names, want) {
		t.Errorf("left %v, want %v", names, want)
	}
	release()
	h.quiet()
	j.teardown()
}

func TestDockerRestartsDuringTeardown(t *testing.T) {
	h := newHost(t, nil)
	j := h.attach("cc-ci-test-restart", nil)
	j.write("key", "k")
	j.deploy("restart", compose)
	j.running("restart_app", 1)
	restarted := make(chan error, 1)
	go func() { restarted <- h.d.Restart(context.WithoutCancel(t.Context())) }()
	// The socket waits for the daemon: a step that lists its containers meanwhile gets an answer.
	if out, err := j.try("ps", "-q"); err != nil && !strings.Contains(out, "EOF") {
		t.Errorf("ps during the restart: %v, %s", err, out)
	}
	removed, err := h.swarm.Teardown(t.Context(), j.name)
	if err := <-restarted; err != nil {
		t.Fatal(err)
	}
	if err != nil || len(removed) < 6 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if left, err := h.swarm.Remaining(t.Context(), j.name); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

// TestKilledRunner lets another process attach a build and die without a word.
func TestKilledRunner(t *testing.T) {
	h := newHost(t, nil)
	before := h.census()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledRunnerChild$", "-test.v")
	cmd.Env = append(os.Environ(), "CC_CI_TEST_CHILD="+h.config.SocketDir, "CC_CI_TEST_LEDGER="+h.config.LedgerDir,
		"CC_CI_TEST_ENDPOINT="+h.d.Host)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.Exited() || err == nil {
		t.Fatalf("the child was to be killed: %v\n%s", err, out)
	}
	builds, err := h.swarm.Builds(t.Context())
	if err != nil || !slices.Equal(builds, []string{"cc-ci-test-killed"}) {
		t.Fatal(builds, err)
	}
	if _, err := h.swarm.Teardown(t.Context(), builds[0]); err != nil {
		t.Fatal(err)
	}
	if builds, err := h.swarm.Builds(t.Context()); err != nil || len(builds) > 0 {
		t.Error("after teardown: ", builds, err)
	}
	if after := h.census(); !maps.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), h.config.SocketDir) {
		t.Errorf("a pin is still mounted (%v)", err)
	}
}

// TestOwnMountNamespace lets a runner that has a mount namespace of its own, as services often do, mount its workspace.
func TestOwnMountNamespace(t *testing.T) {
	h := newHost(t, nil)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestOwnMountNamespaceChild$", "-test.v")
	cmd.Env = append(os.Environ(), "CC_CI_TEST_CHILD="+h.config.SocketDir, "CC_CI_TEST_LEDGER="+h.config.LedgerDir,
		"CC_CI_TEST_ENDPOINT="+h.d.Host)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), h.config.SocketDir) {
		t.Errorf("a pin is still mounted (%v)", err)
	}
}

// TestOwnMountNamespaceChild is that runner.
func TestOwnMountNamespaceChild(t *testing.T) {
	dir := os.Getenv("CC_CI_TEST_CHILD")
	if dir == "" {
		t.Skip("is the child of TestOwnMountNamespace")
	}
	d := &swarmtest.Daemon{Host: os.Getenv("CC_CI_TEST_ENDPOINT")}
	h := openHost(t, d, swarm.Config{SocketDir: dir, LedgerDir: os.Getenv("CC_CI_TEST_LEDGER")})
	j := h.attach("cc-ci-test-namespace", nil)
	j.write("f", "seen")
	want(t, j, "seen", "run", "--rm", "-v", j.workspace+":/w", swarmtest.Image, "cat", "/w/f")
}

// TestKilledRunnerChild is the runner that is killed.
func TestKilledRunnerChild(t *testing.T) {
	dir := os.Getenv("CC_CI_TEST_CHILD")
	if dir == "" {
		t.Skip("is the child of TestKilledRunner")
	}
	d := &swarmtest.Daemon{Host: os.Getenv("CC_CI_TEST_ENDPOINT")}
	h := openHost(t, d, swarm.Config{SocketDir: dir, LedgerDir: os.Getenv("CC_CI_TEST_LEDGER")})
	j := h.attach("cc-ci-test-killed", nil)
	j.write("f", "x")
	j.do("run", "-d", "-v", j.workspace+":/w", swarmtest.ImageVolume)
	id := j.do("run", "-d", swarmtest.ImageVolume) // its anonymous volume stays behind and has no label
	j.do("rm", "-f", id)
	j.do("tag", swarmtest.Image, "killed/tag:1")
	j.do("service", "create", "--detach", "--name", "killed", swarmtest.Image)
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Kill(); err != nil {
		t.Fatal(err)
	}
	select {}
}

func TestKeep(t *testing.T) {
	h := newHost(t, nil)
	j := h.attach("cc-ci-test-keep", func(b *swarm.Build) { b.Keep = true })
	j.do("service", "create", "--detach", "--name", "real", "--mount", "type=bind,source=/etc,target=/x", swarmtest.Image)
	t.Cleanup(func() { h.direct("service", "rm", "real") })
	if labels := j.do("service", "inspect", "--format", "{{.Spec.Labels}}", "real"); labels != "map[]" {
		t.Errorf("a deployed service is labelled: %s", labels)
	}
	kept, err := h.swarm.Kept(t.Context(), j.name)
	if err != nil || len(kept) != 1 || kept[0].Name != "real" {
		t.Error(kept, err)
	}
	if removed := j.teardown(); len(removed) > 0 {
		t.Errorf("removed %v", removed)
	}
	j.running("real", 1)
}

// TestStackSecrets makes secrets past the build's socket, as abra may. Only those of the build's stack may go.
func TestStackSecrets(t *testing.T) {
	h := newHost(t, func(c *swarm.Config) {
		c.AppPattern, c.EnvDirs = `^[a-z]+-[0-9a-f]{6}\.ci\.example\.org$`, []string{t.TempDir()}
	})
	stack := "shop-0a1b2c_ci_example_org"
	old, fresh, foreign := stack+"_old_v1", "plain_new_v1", "plain_longer_key_v1"
	secret := func(name string) {
		if out, err := run(t, h.d.Host, "x", "secret", "create", name, "-"); err != nil {
			t.Fatal(err, out)
		}
	}
	secret(old)
	secret("plain_before_v1")
	h.direct("service", "create", "--detach", "--name", "plain_longer_app", "--label", "com.docker.stack.namespace=plain_longer", swarmtest.Image)
	t.Cleanup(func() {
		h.direct("service", "rm", "plain_longer_app")
		h.direct("secret", "rm", foreign, "plain_before_v1")
	})
	j := h.attach("cc-ci-test-stack", nil)
	env := filepath.Join(h.config.EnvDirs[0], "shop-0a1b2c.ci.example.org.env")
	for _, path := range []string{env, filepath.Join(h.config.EnvDirs[0], "other.ci.example.org.env")} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j.deploy(stack, script("sleep 1000", ""))
	j.deploy("plain", script("sleep 1000", ""))
	// The label of a stack of somebody else's makes it nobody's: plain_longer is deployed by the host.
	j.do("service", "create", "--detach", "--name", "forged", "--label", "com.docker.stack.namespace=plain_longer", swarmtest.Image)
	secret(fresh)
	secret(foreign)
	j.teardown()
	left := h.direct("secret", "ls", "--format", "{{.Name}}")
	if strings.Contains(left, old) || strings.Contains(left, fresh) || !strings.Contains(left, foreign) ||
		!strings.Contains(left, "plain_before_v1") {
		t.Errorf("left %q", left)
	}
	if files, err := os.ReadDir(h.config.EnvDirs[0]); err != nil || len(files) != 1 {
		t.Errorf("env files left: %v, %v", files, err)
	}
}
