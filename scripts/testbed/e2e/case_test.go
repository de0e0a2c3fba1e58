package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// testCase is what one test works with: a user with an active repository, and runners that take its builds only.
type testCase struct {
	t     *testing.T
	ctx   context.Context
	bed   *testbed.Bed
	label string // the node label, and part of every name
	user  *testbed.User
	repo  testbed.Repo
}

// newCase prepares a test and lets it run beside the others.
func newCase(t *testing.T) *testCase {
	t.Helper()
	t.Parallel()
	// Few at a time: forty users, repositories and pushes at once only hold each other up.
	setups <- struct{}{}
	defer func() { <-setups }()
	return prepare(t, bed)
}

// newLongCase is newCase for a test that waits for half a minute or more: it does not wait for its turn before that, so
// that the others run while it waits.
func newLongCase(t *testing.T) *testCase {
	t.Helper()
	t.Parallel()
	return prepare(t, bed)
}

// prepare makes the user and the repository of a test, on the servers that all share or on its own.
func prepare(t *testing.T, servers *testbed.Bed) *testCase {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(running, 5*time.Minute, fmt.Errorf("%s took more than five minutes", t.Name()))
	t.Cleanup(cancel)
	c := &testCase{t: t, ctx: ctx, bed: servers, label: strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))}
	var err error
	if c.user, err = servers.Gitea.NewUser(ctx, "u-"+c.label); err != nil {
		t.Fatal(err)
	}
	// Empty: a test's first push brings its pipeline. A push costs the forge more than all else that a test asks of it.
	c.repo, err = c.user.NewRepo(ctx, testbed.RepoSpec{Name: "hello"})
	c.ok(err)
	c.ok(servers.Drone.Activate(ctx, c.user, c.repo, testbed.Settings{}))
	return c
}

// ok ends the test on an error.
func (c *testCase) ok(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// runner starts a runner for this test's builds. When the test ends it must stop within its time and leave nothing.
func (c *testCase) runner(settings map[string]string) *testbed.Runner {
	c.t.Helper()
	return c.namedRunner(c.label, settings)
}

func (c *testCase) namedRunner(name string, settings map[string]string) *testbed.Runner {
	c.t.Helper()
	env := map[string]string{
		"DRONE_RUNNER_LABELS":  "test:" + c.label,
		"DRONE_RUNNER_ENVIRON": "CC_CI_E2E_MARK:" + mark(name),
		"DRONE_RUNNER_GRACE":   "1s",
	}
	maps.Copy(env, settings)
	host := env["DRONE_RPC_HOST"]
	runner, err := c.bed.StartRunner(c.ctx, testbed.RunnerOptions{Program: program, Name: name, RPCHost: host, Env: env})
	c.ok(err)
	c.t.Cleanup(func() { c.stopped(runner, name) })
	return runner
}

// mark is what every process of a runner's builds has in its environment, and nothing else on this host.
func mark(runner string) string { return fmt.Sprintf("%s-%d", runner, os.Getpid()) }

// stopped ends a runner and checks that its builds left nothing.
func (c *testCase) stopped(runner *testbed.Runner, name string) {
	if err := runner.Stop(context.WithoutCancel(c.ctx)); err != nil {
		c.t.Error(err)
	}
	c.clean(runner, name)
	if c.t.Failed() {
		if data, err := os.ReadFile(runner.LogPath()); err == nil {
			c.t.Logf("log of runner %s:\n%s", name, tail(string(data), 6000))
		}
	}
}

// clean checks that no process and no directory of the runner's builds is left.
func (c *testCase) clean(runner *testbed.Runner, name string) {
	c.t.Helper()
	processes, err := testbed.Processes("CC_CI_E2E_MARK=" + mark(name))
	if err != nil {
		c.t.Error(err)
	}
	files, err := runner.Leftovers()
	if err != nil {
		c.t.Error(err)
	}
	for _, left := range append(processes, files...) {
		c.t.Errorf("left behind: %s", left)
	}
}

// pipeline puts the head that binds a pipeline to this test's runners before the given rest.
func (c *testCase) pipeline(rest string) string {
	return fmt.Sprintf("kind: pipeline\ntype: exec\nname: default\nplatform:\n  os: linux\n  arch: %s\nnode:\n  test: %s\n%s",
		runtime.GOARCH, c.label, strings.TrimLeft(rest, "\n"))
}

// push commits a pipeline to the main branch and returns the build that it started.
func (c *testCase) push(pipeline string) *drone.Build {
	c.t.Helper()
	return c.pushTo(c.repo, testbed.Commit{Message: "a pipeline", Files: map[string]string{".drone.yml": c.pipeline(pipeline)}})
}

func (c *testCase) pushTo(repo testbed.Repo, commit testbed.Commit) *drone.Build {
	c.t.Helper()
	sha, err := c.user.Push(c.ctx, repo, commit)
	c.ok(err)
	build, err := c.bed.Drone.WaitFor(c.ctx, repo, testbed.Of(sha))
	c.ok(err)
	return build
}

// again asks for another build of the main branch.
func (c *testCase) again() *drone.Build {
	c.t.Helper()
	build, err := c.bed.Drone.NewBuild(c.ctx, c.repo, "main", nil)
	c.ok(err)
	return build
}

// wait waits for a build to meet a condition.
func (c *testCase) wait(build *drone.Build, condition testbed.Condition) *drone.Build {
	c.t.Helper()
	return c.waitIn(c.repo, build, condition)
}

func (c *testCase) waitIn(repo testbed.Repo, build *drone.Build, condition testbed.Condition) *drone.Build {
	c.t.Helper()
	build, err := c.bed.Drone.WaitBuild(c.ctx, repo, build.Number, condition)
	c.ok(err)
	return build
}

// done waits for a build's end and checks its status.
func (c *testCase) done(build *drone.Build, status string) *drone.Build {
	c.t.Helper()
	return c.doneIn(c.repo, build, status)
}

func (c *testCase) doneIn(repo testbed.Repo, build *drone.Build, status string) *drone.Build {
	c.t.Helper()
	build = c.waitIn(repo, build, testbed.Done)
	if build.Status != status {
		for _, stage := range build.Stages {
			for _, step := range stage.Steps {
				ref := testbed.StepRef{Build: int(build.Number), Stage: stage.Number, Step: step.Number}
				text, err := c.bed.Drone.Log(c.ctx, repo, ref)
				c.t.Logf("log of %s: %s %v", step.Name, text, err)
			}
		}
		c.t.Fatalf("build %d is not %s but %s", build.Number, status, testbed.Describe(build))
	}
	return build
}

// log reads the stored log of a step.
func (c *testCase) log(build *drone.Build, step string) string {
	c.t.Helper()
	return c.logIn(c.repo, build, step)
}

func (c *testCase) logIn(repo testbed.Repo, build *drone.Build, step string) string {
	c.t.Helper()
	ref, err := testbed.Ref(build, step)
	c.ok(err)
	text, err := c.bed.Drone.Log(c.ctx, repo, ref)
	c.ok(err)
	return text
}

// workspace is the directory in which the steps of a runner's only build work, seen from outside.
func (c *testCase) workspace(runner *testbed.Runner) string {
	c.t.Helper()
	builds, err := runner.Leftovers()
	c.ok(err)
	if len(builds) != 1 {
		c.t.Fatalf("the runner has %d builds' directories, want one", len(builds))
	}
	return filepath.Join(builds[0], "drone", "src")
}

// step finds a step and checks its status.
func (c *testCase) step(build *drone.Build, name, status string) *drone.Step {
	c.t.Helper()
	step, err := testbed.Step(build, name)
	c.ok(err)
	if step.Status != status {
		c.t.Errorf("step %s is not %s but %s: %s", name, status, step.Status, step.Error)
	}
	return step
}

// contains checks that a text holds all that is wanted.
func (c *testCase) contains(text string, wanted ...string) {
	c.t.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			c.t.Errorf("%q is not in %q", want, tail(text, 2000))
		}
	}
}

// tail returns the end of a text.
func tail(text string, size int) string {
	if len(text) > size {
		return "..." + text[len(text)-size:]
	}
	return text
}
