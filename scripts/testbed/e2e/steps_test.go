package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// TestGraph: two steps that wait for each other can only end if they run at once, and what depends on both comes last.
func TestGraph(t *testing.T) {
	c := newCase(t)
	c.runner(nil)
	build := c.push(`
steps:
- name: first
  commands: [mkdir meet]
- name: left
  depends_on: [first]
  commands:
  - touch meet/left
  - until [ -e meet/right ]; do sleep 0.1; done
- name: right
  depends_on: [first]
  commands:
  - touch meet/right
  - until [ -e meet/left ]; do sleep 0.1; done
- name: last
  depends_on: [left, right]
  commands: [ls meet]
`)
	build = c.done(build, drone.StatusPassing)
	c.contains(c.log(build, "last"), "left", "right")
}

// TestOutcomes: the ways a step can end, and what they mean for the steps after it and for the build.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	const after = `
- name: after
  commands: [echo after]
- name: on-failure
  when: {status: [failure]}
  commands: [echo on-failure]
- name: always
  when: {status: [success, failure]}
  commands: [echo always]
`
	cases := []struct {
		name, step, build, first, after, onFailure, always string
		code                                               int
	}{
		{"failing", "commands: [exit 3]", "failure", "failure", "skipped", "success", "success", 3},
		{"ignored", "commands: [exit 3]\n  failure: ignore", "success", "failure", "success", "skipped", "success", 3},
		{"stop78", "commands: [exit 78]", "success", "success", "skipped", "skipped", "skipped", 78},
		{"passing", "commands: [true]", "success", "success", "success", "skipped", "success", 0},
		{"killed-by-signal", "commands: ['kill -9 $$$$']", "failure", "failure", "skipped", "success", "success", 137},
	}
	for _, one := range cases {
		t.Run(one.name, func(t *testing.T) {
			c := newCase(t)
			c.runner(nil)
			build := c.done(c.push("steps:\n- name: first\n  "+one.step+after), one.build)
			if step := c.step(build, "first", one.first); step.ExitCode != one.code {
				t.Errorf("exit code %d, want %d", step.ExitCode, one.code)
			}
			c.step(build, "after", one.after)
			c.step(build, "on-failure", one.onFailure)
			c.step(build, "always", one.always)
		})
	}
}

// TestDetach: a detached step runs beside the others and ends with the build.
func TestDetach(t *testing.T) {
	c := newCase(t)
	c.runner(nil)
	build := c.push(`
steps:
- name: beside
  detach: true
  commands:
  - touch up
  - sleep 3600
- name: main
  commands:
  - until [ -e up ]; do sleep 0.1; done
  - echo it is up
`)
	build = c.done(build, drone.StatusPassing)
	c.contains(c.log(build, "main"), "it is up")
	if step, err := testbed.Step(build, "beside"); err != nil || !finished(step) {
		t.Errorf("the detached step is %v, %v", step, err)
	}
}

func finished(step *drone.Step) bool {
	return step.Status != drone.StatusRunning && step.Status != drone.StatusPending
}

// TestBackgroundServer: a server that one step starts in the background serves the next, and is gone after the build.
func TestBackgroundServer(t *testing.T) {
	c := newCase(t)
	c.runner(nil)
	self := c.installSelf()
	build := c.push(fmt.Sprintf(`
steps:
- name: serve
  commands: ["%[1]s child serve address >/dev/null 2>&1 &"]
- name: ask
  commands: ["%[1]s child ask address"]
`, self))
	build = c.done(build, drone.StatusPassing)
	c.contains(c.log(build, "ask"), "the server answers")
}

// installSelf copies this test's program to where steps can see it: a build has a /tmp of its own.
func (c *testCase) installSelf() string {
	c.t.Helper()
	cache, err := os.UserCacheDir()
	c.ok(err)
	dir, err := os.MkdirTemp(filepath.Join(cache, "cc-ci"), "e2e-")
	c.ok(err)
	c.t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			c.t.Error(err)
		}
	})
	self, err := os.Executable()
	c.ok(err)
	data, err := os.ReadFile(self)
	c.ok(err)
	program := filepath.Join(dir, "child")
	c.ok(os.WriteFile(program, data, 0o700))
	return program
}

// TestStrays: what a step leaves behind, the runner removes: children of children, in sessions of their own, deaf to
// SIGTERM, with the log's pipe still open.
func TestStrays(t *testing.T) {
	c := newCase(t)
	runner := c.runner(nil)
	build := c.push(`
steps:
- name: leave
  commands:
  - (setsid sh -c 'trap "" TERM; while true; do sleep 1; done' &)
  - (sh -c 'sleep 3600 & sleep 3600' >/dev/null 2>&1 &)
  - mkdir -p deep/er; touch deep/er/file; chmod -R a-w deep
`)
	build = c.done(build, drone.StatusPassing)
	// At the moment the build is seen as done, everything is gone: the stage is final only after its teardown.
	c.clean(runner, c.label)
	c.step(build, "teardown", drone.StatusPassing)
	c.contains(c.log(build, "teardown"), "sleep")
}

// TestSecrets: a secret reaches the step and never the log, however it is written.
func TestSecrets(t *testing.T) {
	c := newCase(t)
	c.runner(nil)
	const repoSecret, orgSecret, inline = "canary-of-the-repository", "canary-of-the-owner", "canary-inside-the-file"
	c.ok(c.bed.Drone.AddSecret(c.ctx, c.repo, testbed.Secret{Name: "token", Value: repoSecret}))
	c.ok(c.bed.Drone.AddOrgSecret(c.ctx, c.repo.Owner, testbed.Secret{Name: "shared", Value: orgSecret}))
	encrypted, err := c.bed.Drone.Admin(c.ctx).Encrypt(c.repo.Owner, c.repo.Name, &drone.Secret{Name: "inline", Data: inline})
	c.ok(err)
	build := c.push(`
steps:
- name: show
  environment:
    TOKEN: {from_secret: token}
    SHARED: {from_secret: shared}
    INLINE: {from_secret: inline}
  commands:
  - echo "lengths $${#TOKEN} $${#SHARED} $${#INLINE}"
  - echo "whole $TOKEN $SHARED $INLINE"
  - printf 'split %s' "$(echo "$TOKEN" | cut -c1-9)"; sleep 1.5; echo "$TOKEN" | cut -c10-
  - for i in $(seq 1 $${#SHARED}); do printf '%s' "$(echo "$SHARED" | cut -c$i)"; done; echo
---
kind: secret
name: inline
data: ` + encrypted + "\n")
	build = c.done(build, drone.StatusPassing)
	log := c.log(build, "show")
	c.contains(log, fmt.Sprintf("lengths %d %d %d", len(repoSecret), len(orgSecret), len(inline)), "whole ", "split ")
	for _, secret := range []string{repoSecret, orgSecret, inline} {
		if strings.Contains(log, secret) {
			t.Errorf("the log shows %s: %s", secret, log)
		}
	}
}

// TestMissingSecret: a step that needs a secret which nobody has fails by name.
func TestMissingSecret(t *testing.T) {
	c := newCase(t)
	c.runner(nil)
	build := c.wait(c.push(`
steps:
- name: show
  environment:
    TOKEN: {from_secret: no_such_secret}
  commands: [echo hello]
`), testbed.Done)
	if build.Status == drone.StatusPassing || !strings.Contains(testbed.Describe(build), "no_such_secret") {
		t.Errorf("the build is %s", testbed.Describe(build))
	}
}

// TestLintError: a pipeline that cannot work is refused with file, line and rule, and runs nothing.
func TestLintError(t *testing.T) {
	c := newCase(t)
	c.runner(nil)
	build := c.wait(c.push(`
steps:
- name: one
  depends_on: [nothing]
  commands: [echo hello]
`), testbed.Done)
	if build.Status != drone.StatusError || !strings.Contains(testbed.Describe(build), "nothing") {
		t.Errorf("the build is %s", testbed.Describe(build))
	}
}

// TestUnnamedPipeline: a pipeline without a name is the one called default.
func TestUnnamedPipeline(t *testing.T) {
	c := newCase(t)
	c.runner(nil)
	yaml := strings.Replace(c.pipeline("steps:\n- name: one\n  commands: [echo hello]\n"), "name: default\n", "", 1)
	build := c.pushTo(c.repo, testbed.Commit{Message: "unnamed", Files: map[string]string{".drone.yml": yaml}})
	c.done(build, drone.StatusPassing)
}

// TestLiveLog: a line can be read while its step runs.
func TestLiveLog(t *testing.T) {
	c := newCase(t)
	runner := c.runner(nil)
	build := c.push(`
steps:
- name: talk
  commands:
  - echo first words
  - until [ -e gate ]; do sleep 0.1; done
`)
	running := func(build *drone.Build) bool {
		step, err := testbed.Step(build, "talk")
		return err == nil && step.Status == drone.StatusRunning
	}
	build = c.wait(build, running)
	ref, err := testbed.Ref(build, "talk")
	c.ok(err)
	opened := false
	c.ok(c.bed.Drone.Follow(c.ctx, c.repo, ref, func(line drone.Line) {
		if strings.HasPrefix(line.Message, "first words") && !opened {
			opened = true
			c.ok(os.WriteFile(filepath.Join(c.workspace(runner), "gate"), nil, 0o600))
		}
	}))
	if !opened {
		t.Error("the live log ended without the line")
	}
	c.done(build, drone.StatusPassing)
}
