package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// TestClone: what the clone brings, and what of its credentials is left for the steps.
func TestClone(t *testing.T) {
	t.Parallel()
	const look = `steps:
- name: look
  commands:
  - cat greeting
  - echo "commits $(git rev-list --count HEAD)"
  - echo "head $(git rev-parse HEAD)"
  - if [ -e $HOME/.netrc ]; then echo "netrc is there"; else echo "no netrc"; fi
`
	cases := []struct {
		name, head string
		private    bool
		commits    int
	}{
		{"whole", "", false, 4},
		{"depth", "clone:\n  depth: 2\n", false, 2},
		{"private", "", true, 4},
		{"private-depth", "clone:\n  depth: 1\n", true, 1},
	}
	for _, one := range cases {
		t.Run(one.name, func(t *testing.T) {
			c := newCase(t)
			c.runner(nil)
			repo := c.newRepo("cloned", one.private, 2)
			c.ok(c.bed.Drone.Activate(c.ctx, c.user, repo, testbed.Settings{}))
			build := c.pushTo(repo, testbed.Commit{
				Message: "a pipeline", Files: map[string]string{".drone.yml": c.pipeline(one.head + look)},
			})
			log := c.logIn(repo, c.doneIn(repo, build, drone.StatusPassing), "look")
			c.contains(log, "hello from the repository", "no netrc", "head "+build.After, fmt.Sprintf("commits %d", one.commits))
			if strings.Contains(log, c.user.Password) {
				t.Error("the log shows a password")
			}
		})
	}
}

// TestCloneDisabled: without a clone the workspace is empty.
func TestCloneDisabled(t *testing.T) {
	c := newCase(t)
	c.runner(nil)
	build := c.done(c.push(`
clone:
  disable: true
steps:
- name: look
  commands: ['echo "files: $(ls -A | wc -l)"']
`), drone.StatusPassing)
	c.contains(c.log(build, "look"), "files: 0")
	if step, err := testbed.Step(build, "clone"); err == nil {
		t.Errorf("there is a step clone, which is %s", step.Status)
	}
}
