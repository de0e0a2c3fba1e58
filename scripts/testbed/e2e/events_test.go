package e2e

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// printEnv is a pipeline whose step prints its environment whole, on one line of characters that no log changes. The
// secret stays out, because the runner would mask it in any encoding that it knows.
const printEnv = `
steps:
- name: env
  environment:
    TOKEN: {from_secret: token}
    LITERAL: a literal
  commands:
  - echo "ENV:$(env -0 -u TOKEN | od -An -v -tx1 | tr -d ' \\n')"
  - echo "the token has $${#TOKEN} characters"
`

// TestEvents lets every kind of event make a build and checks the step's environment variable by variable.
func TestEvents(t *testing.T) {
	t.Parallel()
	events := map[string]func(*testCase) *drone.Build{
		"push": func(c *testCase) *drone.Build {
			return c.push(printEnv)
		},
		"pull_request": (*testCase).pullRequest,
		"tag": func(c *testCase) *drone.Build {
			c.done(c.push(printEnv), drone.StatusPassing)
			c.ok(c.user.Tag(c.ctx, c.repo, "v1.2.3-rc.1+build.5", "main"))
			build, err := c.bed.Drone.WaitFor(c.ctx, c.repo, testbed.Event("tag"))
			c.ok(err)
			return build
		},
		"promote": func(c *testCase) *drone.Build {
			pushed := c.done(c.push(printEnv), drone.StatusPassing)
			build, err := c.bed.Drone.Promote(c.ctx, c.repo, pushed.Number, "production")
			c.ok(err)
			return build
		},
		"cron": func(c *testCase) *drone.Build {
			c.done(c.push(printEnv), drone.StatusPassing)
			c.ok(c.bed.Drone.RunCron(c.ctx, c.repo, "nightly"))
			build, err := c.bed.Drone.WaitFor(c.ctx, c.repo, testbed.Event("cron"))
			c.ok(err)
			return build
		},
		"custom": func(c *testCase) *drone.Build {
			c.done(c.push(printEnv), drone.StatusPassing)
			build, err := c.bed.Drone.NewBuild(c.ctx, c.repo, "main", map[string]string{
				"RECIPE": "word press", "PATH": "/nowhere", "LD_PRELOAD": "/nowhere.so", "GIT_BRANCH": "kept",
			})
			c.ok(err)
			return build
		},
	}
	for event, trigger := range events {
		t.Run(event, func(t *testing.T) {
			c := newCase(t)
			c.runner(nil)
			c.ok(c.bed.Drone.AddSecret(c.ctx, c.repo, testbed.Secret{Name: "token", Value: "canary-of-events"}))
			build := c.done(trigger(c), drone.StatusPassing)
			if build.Event != event {
				t.Fatalf("the event is %s", build.Event)
			}
			log := c.log(build, "env")
			env := parseEnv(log)
			if len(env) == 0 {
				t.Fatalf("no environment in the log: %s", tail(log, 3000))
			}
			c.checkEnvironment(build, env)
			token := len("canary-of-events")
			switch event {
			case "pull_request":
				token = 0 // the server withholds secrets from pull requests
				c.contains(log, `"TOKEN" is empty: secret "token"`)
			case "custom":
				first := c.log(build, "clone")
				c.contains(first, `build parameter "PATH" is refused`, `build parameter "LD_PRELOAD" is refused`)
			}
			c.contains(log, fmt.Sprintf("the token has %d characters", token))
		})
	}
}

// pullRequest opens a pull request from another user's fork, with a pipeline of its own, and returns its build.
func (c *testCase) pullRequest() *drone.Build {
	c.t.Helper()
	c.done(c.push(printEnv), drone.StatusPassing)
	stranger, err := c.bed.Gitea.NewUser(c.ctx, "s-"+c.label)
	c.ok(err)
	fork, err := stranger.Fork(c.ctx, c.repo)
	c.ok(err)
	sha, err := stranger.Push(c.ctx, fork, testbed.Commit{
		Branch: "feature", Message: "a feature", Files: map[string]string{"feature": "new\n"},
	})
	c.ok(err)
	_, err = stranger.NewPullRequest(c.ctx, c.repo, stranger.Name+":feature", "Add a feature")
	c.ok(err)
	build, err := c.bed.Drone.WaitFor(c.ctx, c.repo, testbed.Of(sha))
	c.ok(err)
	return build
}

// parseEnv finds the line that printEnv writes and takes it apart.
func parseEnv(log string) map[string]string {
	env := map[string]string{}
	for _, line := range strings.Split(log, "\n") {
		encoded, ok := strings.CutPrefix(line, "ENV:")
		if !ok {
			continue
		}
		data, err := hex.DecodeString(encoded)
		if err != nil {
			return nil
		}
		for _, variable := range strings.Split(strings.TrimRight(string(data), "\x00"), "\x00") {
			name, value, _ := strings.Cut(variable, "=")
			env[name] = value
		}
	}
	return env
}

// checkEnvironment compares a step's environment with the table, variable by variable, in both directions.
func (c *testCase) checkEnvironment(build *drone.Build, env map[string]string) {
	c.t.Helper()
	repo, err := c.bed.Drone.Admin(c.ctx).Repo(c.repo.Owner, c.repo.Name)
	c.ok(err)
	want := expected{bed: c.bed, repo: repo, build: build, stage: build.Stages[0], runner: c.label, user: c.user}.table()
	for name, rule := range want {
		value, ok := env[name]
		if problem := rule.check(value, ok); problem != "" {
			c.t.Errorf("%s %s", name, problem)
		}
		delete(env, name)
	}
	for name, value := range env {
		c.t.Errorf("%s=%q is not in the table", name, value)
	}
}

// rule says what a variable must be.
type rule struct {
	value string
	any   bool // there, with any value
	maybe bool // there with that value, or not there
	none  bool // not there
}

func is(value any) rule { return rule{value: fmt.Sprint(value)} }

func (r rule) check(value string, ok bool) string {
	switch {
	case r.none && ok:
		return fmt.Sprintf("is %q, it should not be there", value)
	case !ok && !r.none && !r.maybe:
		return "is missing"
	case ok && !r.any && value != r.value:
		return fmt.Sprintf("is %q, want %q", value, r.value)
	}
	return ""
}
