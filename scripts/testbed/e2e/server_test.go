package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// sleeper is a pipeline that runs until it is stopped, with helpers that do not want to be.
const sleeper = `
steps:
- name: sleep
  commands:
  - (setsid sh -c 'trap "" TERM; while true; do sleep 1; done' >/dev/null 2>&1 &)
  - sleep 3600
- name: never
  commands: [echo never]
`

// stepRuns holds once a step is running.
func stepRuns(name string) testbed.Condition {
	return func(build *drone.Build) bool {
		step, err := testbed.Step(build, name)
		return err == nil && step.Status == drone.StatusRunning
	}
}

// TestCancel: a cancel arrives at any moment of a build's life, also around the end of the server's long polls, and
// everything the build started ends.
func TestCancel(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{3 * time.Second, 31 * time.Second, 38 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			c := newLongCase(t)
			runner := c.runner(map[string]string{"DRONE_RUNNER_GRACE": "200ms"})
			build := c.wait(c.push(sleeper), stepRuns("sleep"))
			time.Sleep(after)
			c.cancel(build)
			c.goneSoon(runner)
			build = c.done(build, drone.StatusKilled)
			step, err := testbed.Step(build, "never")
			c.ok(err)
			if step.Status == drone.StatusPassing || step.Status == drone.StatusRunning {
				t.Errorf("the step after the cancel is %s", step.Status)
			}
		})
	}
}

// cancelLimit is how long after the server's answer to a cancel anything of the build may be left.
const cancelLimit = 2 * time.Second

// goneSoon checks that nothing of the runner's builds is left within the time that a cancel may take.
func (c *testCase) goneSoon(runner *testbed.Runner) {
	c.t.Helper()
	for answered := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		late := time.Since(answered) > cancelLimit // before looking, which takes its time on a busy host
		processes, err := testbed.Processes("CC_CI_E2E_MARK=" + mark(c.label))
		c.ok(err)
		files, err := runner.Leftovers()
		c.ok(err)
		if len(processes)+len(files) == 0 {
			return
		}
		if late {
			c.t.Fatalf("still there %s after the cancel: %v %v", time.Since(answered), processes, files)
		}
	}
}

// TestRepositoryIsDeleted: a build whose repository is deleted on the server while it runs is nobody's to cancel any
// more, and ends.
func TestRepositoryIsDeleted(t *testing.T) {
	c := newCase(t)
	runner := c.runner(nil)
	c.wait(c.push(sleeper), stepRuns("sleep"))
	c.ok(c.bed.Drone.Admin(c.ctx).RepoDelete(c.repo.Owner, c.repo.Name))
	for {
		files, err := runner.Leftovers()
		c.ok(err)
		if len(files) == 0 {
			break
		}
		select {
		case <-c.ctx.Done():
			t.Fatalf("still there: %v", files)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// TestTimeout: a build that takes longer than its repository allows ends, is told apart from a cancelled one, and
// leaves nothing.
func TestTimeout(t *testing.T) {
	c := newLongCase(t)
	runner := c.runner(nil)
	minutes := int64(1)
	_, err := c.bed.Drone.Admin(c.ctx).RepoUpdate(c.repo.Owner, c.repo.Name, &drone.RepoPatch{Timeout: &minutes})
	c.ok(err)
	build := c.wait(c.push(sleeper), testbed.Done)
	if build.Status == drone.StatusPassing || build.Status == drone.StatusKilled && !strings.Contains(testbed.Describe(build), "time") {
		t.Errorf("the build is %s", testbed.Describe(build))
	}
	c.goneSoon(runner)
}

// TestServerRestart: a build goes on while the server is away, and its result and whole log arrive afterwards.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(running, 5*time.Minute)
	t.Cleanup(cancel)
	own, err := testbed.Start(ctx, testbed.Options{Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	c := prepare(t, own)
	runner := c.runner(nil)
	build := c.wait(c.push(`
steps:
- name: before
  commands:
  - echo before the restart
  - until [ -e gate -o $DRONE_BUILD_NUMBER != 1 ]; do sleep 0.1; done
  - echo while the server is away
- name: after
  commands: [echo after the restart]
`), stepRuns("before"))
	c.ok(own.Drone.Server.Stop(ctx))
	// The step ends, and the next one runs, while nobody listens.
	c.ok(os.WriteFile(c.workspace(runner)+"/gate", nil, 0o600))
	time.Sleep(3 * time.Second)
	c.ok(own.Drone.Server.Start(ctx))
	build = c.done(build, drone.StatusPassing)
	c.contains(c.log(build, "before"), "before the restart", "while the server is away")
	c.contains(c.log(build, "after"), "after the restart")
	c.done(c.again(), drone.StatusPassing) // and the runner takes the next build
}

// TestLostReplies: when the server's answers to the calls that are not safe to repeat get lost, the build still runs
// once and ends green.
func TestLostReplies(t *testing.T) {
	c := newCase(t)
	between, err := testbed.StartProxy(c.bed.Drone.URL())
	c.ok(err)
	t.Cleanup(func() {
		if err := between.Stop(); err != nil {
			t.Error(err)
		}
	})
	faults := newFaults()
	between.Rule(faults.rule)
	c.runner(map[string]string{"DRONE_RPC_HOST": between.Host()})
	build := c.done(c.push("steps:\n- name: once\n  commands: [echo once]\n"), drone.StatusPassing)
	c.ranOnce(build, "once")
	if missed := faults.unused(); len(missed) > 0 {
		t.Errorf("no such call was made: %v", missed)
	}
}

// ranOnce checks that a step ran exactly once. When the reply that names the steps is lost, the server keeps that set
// as pending and the runner registers a second one: there is no way to ask for the first.
func (c *testCase) ranOnce(build *drone.Build, name string) {
	c.t.Helper()
	ran := 0
	for _, step := range build.Stages[0].Steps {
		if step.Name != name || step.Status == drone.StatusPending {
			continue
		}
		text, err := c.bed.Drone.Log(c.ctx, c.repo, testbed.StepRef{Build: int(build.Number), Stage: 1, Step: step.Number})
		c.ok(err)
		ran += strings.Count(text, "\n"+name)
	}
	if ran != 1 {
		c.t.Errorf("step %s ran %d times: %s", name, ran, testbed.Describe(build))
	}
}

// TestTwoRunners: two builds that wait for each other end only if each runner takes one.
func TestTwoRunners(t *testing.T) {
	c := newCase(t)
	for _, name := range []string{"-one", "-two"} {
		c.namedRunner(c.label+name, map[string]string{"DRONE_RUNNER_CAPACITY": "1"})
	}
	machines := map[string]bool{}
	for _, build := range c.meeting(2, "") {
		machines[build.Stages[0].Machine] = true
	}
	if len(machines) != 2 {
		t.Errorf("both builds ran on %v", machines)
	}
}

// meeting starts builds that all wait until all of them run, and returns them when they have ended.
func (c *testCase) meeting(count int, head string) []*drone.Build {
	c.t.Helper()
	hall := c.hall()
	first := c.push(fmt.Sprintf(`%ssteps:
- name: meet
  commands:
  - touch %[2]s/$DRONE_BUILD_NUMBER
  - until [ $(ls %[2]s | wc -l) -ge %[3]d ]; do sleep 0.1; done
`, head, hall, count))
	builds := []*drone.Build{first}
	for range count - 1 {
		builds = append(builds, c.again())
	}
	for i := range builds {
		builds[i] = c.done(builds[i], drone.StatusPassing)
	}
	return builds
}

// hall is a directory that all builds can see: each has a /tmp of its own.
func (c *testCase) hall() string {
	c.t.Helper()
	cache, err := os.UserCacheDir()
	c.ok(err)
	dir, err := os.MkdirTemp(cache+"/cc-ci", "e2e-")
	c.ok(err)
	c.t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			c.t.Error(err)
		}
	})
	return dir
}

// TestCapacityFour: four builds run at once.
func TestCapacityFour(t *testing.T) {
	c := newCase(t)
	c.runner(map[string]string{"DRONE_RUNNER_CAPACITY": "4"})
	c.meeting(4, "")
}

// alone starts builds each of which fails if another one runs beside it.
func (c *testCase) alone(count int, head string) {
	c.t.Helper()
	pipeline := fmt.Sprintf(`%ssteps:
- name: alone
  commands:
  - mkdir %[2]s/taken
  - sleep 0.5
  - rmdir %[2]s/taken
`, head, c.hall())
	builds := []*drone.Build{c.push(pipeline)}
	for range count - 1 {
		builds = append(builds, c.again())
	}
	for _, build := range builds {
		c.done(build, drone.StatusPassing)
	}
}

// TestCapacityOne: builds of a runner with one slot never overlap.
func TestCapacityOne(t *testing.T) {
	c := newCase(t)
	c.runner(map[string]string{"DRONE_RUNNER_CAPACITY": "1"})
	c.alone(4, "")
}

// TestConcurrencyLimit: a pipeline's own limit holds although the runner has room.
func TestConcurrencyLimit(t *testing.T) {
	c := newCase(t)
	c.runner(map[string]string{"DRONE_RUNNER_CAPACITY": "4"})
	c.alone(4, "concurrency:\n  limit: 1\n")
}

// TestLabels: a build waits for a runner with its labels, whatever other runners there are.
func TestLabels(t *testing.T) {
	c := newCase(t)
	c.namedRunner(c.label+"-other", map[string]string{"DRONE_RUNNER_LABELS": "test:" + c.label + ",size:small"})
	build := c.push("  size: large\nsteps:\n- name: one\n  commands: [echo hello]\n")
	c.namedRunner(c.label+"-large", map[string]string{"DRONE_RUNNER_LABELS": "test:" + c.label + ",size:large"})
	build = c.done(build, drone.StatusPassing)
	if machine := build.Stages[0].Machine; machine != c.label+"-large" {
		t.Errorf("the build ran on %s", machine)
	}
}

// TestManyBuilds: builds in a row that each leave processes and files, and nothing adds up.
func TestManyBuilds(t *testing.T) {
	c := newCase(t)
	runner := c.runner(nil)
	count := 5
	if full() {
		count = 50
	}
	build := c.push(`
steps:
- name: litter
  commands:
  - (setsid sleep 3600 >/dev/null 2>&1 &)
  - mkdir -p a/b; echo litter > a/b/c; chmod 0500 a/b
  - echo home > $HOME/file
`)
	for i := range count {
		if i > 0 {
			build = c.again()
		}
		c.done(build, drone.StatusPassing)
		c.clean(runner, c.label)
		if t.Failed() {
			t.Fatalf("after build %d of %d", i+1, count)
		}
	}
}

// TestIdlePickup: a runner that has been idle for any time takes a build up at once. The times lie around the end of
// the server's long polls of 30 s.
func TestIdlePickup(t *testing.T) {
	t.Parallel()
	for _, idle := range []time.Duration{31 * time.Second, 34 * time.Second, 37 * time.Second} {
		t.Run(idle.String(), func(t *testing.T) {
			c := newLongCase(t)
			c.runner(map[string]string{"DRONE_RUNNER_CAPACITY": "1"})
			c.done(c.push("clone:\n  disable: true\nsteps:\n- name: now\n  commands: [date +%s.%N]\n"), drone.StatusPassing)
			// A deaf runner is deaf each time; a busy host is not.
			for range 3 {
				took := c.pickup(idle)
				t.Logf("idle %s, first command after %s", idle, took)
				if took < time.Second {
					return
				}
			}
			t.Error("the first command never ran within a second")
		})
	}
}

// pickup lets a runner idle and measures the time from asking for a build to its first command.
func (c *testCase) pickup(idle time.Duration) time.Duration {
	c.t.Helper()
	time.Sleep(idle)
	asked := time.Now()
	build := c.done(c.again(), drone.StatusPassing)
	return timeIn(c.t, c.log(build, "now")).Sub(asked)
}
