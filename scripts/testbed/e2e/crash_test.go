package e2e

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// diary is a pipeline whose steps note in a directory outside that they ran, and take a moment.
func (c *testCase) diary(hall string) string {
	var text strings.Builder
	text.WriteString("steps:\n")
	for step := range 3 {
		fmt.Fprintf(&text, "- name: step%d\n  commands:\n  - echo \"$DRONE_BUILD_NUMBER $DRONE_STEP_NAME\" >> %s/diary\n"+
			"  - (setsid sleep 3600 >/dev/null 2>&1 &)\n  - sleep 0.3\n", step, hall)
	}
	return text.String()
}

// ranTwice lists the steps that noted twice that they ran.
func (c *testCase) ranTwice(hall string) []string {
	data, err := os.ReadFile(filepath.Join(hall, "diary"))
	c.ok(err)
	seen, twice := map[string]bool{}, []string(nil)
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		if seen[line] {
			twice = append(twice, line)
		}
		seen[line] = true
	}
	return twice
}

// journal lists the stages that a runner still has in its journal.
func (c *testCase) journal(runner *testbed.Runner) []string {
	c.t.Helper()
	var entries []string
	c.ok(filepath.WalkDir(runner.State, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && filepath.Base(filepath.Dir(path)) == "stages" {
			entries = append(entries, path)
		}
		return err
	}))
	return entries
}

// TestKilledRunner: whenever the runner is killed, a minute after its restart the build has an end, no step has run
// twice, and nothing is left.
func TestKilledRunner(t *testing.T) {
	t.Parallel()
	rounds := 1
	if full() {
		rounds = 10
	}
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			c := newCase(t)
			runner := c.runner(nil)
			random, hall := rand.New(rand.NewPCG(seed, 1)), c.hall()
			c.done(c.push(c.diary(hall)), drone.StatusPassing)
			for range rounds {
				wait := time.Duration(random.Int64N(int64(2500 * time.Millisecond)))
				build := c.again()
				time.Sleep(wait)
				c.ok(runner.Kill())
				c.ok(runner.Start(c.ctx))
				c.settled(runner, build, wait)
			}
			if twice := c.ranTwice(hall); len(twice) > 0 {
				t.Errorf("ran twice: %v", twice)
			}
			c.done(c.again(), drone.StatusPassing)
		})
	}
}

// settled waits for a build's end after a crash and for the journal to be empty, and checks that nothing is left.
func (c *testCase) settled(runner *testbed.Runner, build *drone.Build, killed time.Duration) {
	c.t.Helper()
	start := time.Now()
	build = c.wait(build, func(build *drone.Build) bool {
		for _, stage := range build.Stages {
			if stage.Status == drone.StatusPending || stage.Status == drone.StatusRunning {
				return false
			}
		}
		return testbed.Done(build)
	})
	for len(c.journal(runner)) > 0 && time.Since(start) < time.Minute {
		time.Sleep(50 * time.Millisecond)
	}
	took := time.Since(start)
	c.t.Logf("killed %s after the build was asked for: %s, settled after %s", killed, testbed.Describe(build), took)
	if took > time.Minute {
		c.t.Errorf("build %d took %s to settle; journal: %v", build.Number, took, c.journal(runner))
	}
	c.clean(runner, c.label)
}

// TestManyCancels: a cancel at any moment arrives, the build stays cancelled, and the slot is free again.
func TestManyCancels(t *testing.T) {
	t.Parallel()
	rounds := 3
	if full() {
		rounds = 25
	}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			c := newCase(t)
			runner := c.runner(map[string]string{"DRONE_RUNNER_CAPACITY": "1"})
			random := rand.New(rand.NewPCG(seed, 2))
			build := c.push("steps:\n- name: sleep\n  commands: ['[ $DRONE_BUILD_EVENT = push ] || sleep 3600']\n")
			c.done(build, drone.StatusPassing)
			for range rounds {
				wait := time.Duration(random.Int64N(int64(2500 * time.Millisecond)))
				build := c.again()
				time.Sleep(wait)
				c.cancel(build)
				asked := time.Now()
				c.goneSoon(runner)
				t.Logf("cancelled %s after it was asked for: gone after %s", wait, time.Since(asked))
				c.done(build, drone.StatusKilled)
			}
			builds, err := c.bed.Drone.Admin(c.ctx).BuildList(c.repo.Owner, c.repo.Name, drone.ListOptions{Page: 1, Size: 100})
			c.ok(err)
			for _, build := range builds {
				if build.Event == "custom" && build.Status != drone.StatusKilled {
					t.Errorf("build %d is %s", build.Number, build.Status)
				}
			}
			c.done(c.push("steps:\n- name: next\n  commands: [echo next]\n"), drone.StatusPassing)
		})
	}
}

// cancel cancels a build. The server refuses with 409 what crosses a report of the runner; a person would click again.
func (c *testCase) cancel(build *drone.Build) {
	c.t.Helper()
	for {
		err := c.bed.Drone.Cancel(c.ctx, c.repo, build.Number)
		if err == nil || !strings.HasPrefix(err.Error(), "client error 409") {
			c.ok(err)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestDrain: the first SIGTERM lets a running build end, then the runner ends with exit code 0.
func TestDrain(t *testing.T) {
	c := newCase(t)
	runner := c.runner(nil)
	build := c.wait(c.push("steps:\n- name: wait\n  commands:\n  - until [ -e gate ]; do sleep 0.1; done\n"), stepRuns("wait"))
	c.ok(runner.Signal(syscall.SIGTERM))
	time.Sleep(time.Second)
	if build = c.wait(build, stepRuns("wait")); runner.PID() == 0 {
		t.Fatal("the runner did not wait for its build")
	}
	c.ok(os.WriteFile(filepath.Join(c.workspace(runner), "gate"), nil, 0o600))
	code, err := runner.Exited(c.ctx)
	if err != nil || code != 0 {
		t.Errorf("the runner ended with %d, %v", code, err)
	}
	c.done(build, drone.StatusPassing)
}

// TestSecondSignal: the second SIGTERM cancels what runs; it is torn down and reported before the runner ends.
func TestSecondSignal(t *testing.T) {
	c := newCase(t)
	runner := c.runner(nil)
	build := c.wait(c.push(sleeper), stepRuns("sleep"))
	c.ok(runner.Signal(syscall.SIGTERM))
	time.Sleep(500 * time.Millisecond)
	c.ok(runner.Signal(syscall.SIGTERM))
	code, err := runner.Exited(c.ctx)
	if err != nil || code != 0 {
		t.Errorf("the runner ended with %d, %v", code, err)
	}
	c.clean(runner, c.label)
	if build = c.wait(build, testbed.Done); build.Status == drone.StatusPassing {
		t.Errorf("the build is %s", testbed.Describe(build))
	}
}
