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
		cloneOnly  string // DRONE_NETRC_CLONE_ONLY
	}{
		{"whole", "", false, 4, "true"},
		{"depth", "clone:\n  depth: 2\n", false, 2, "true"},
		{"private", "", true, 4, "true"},
		{"private-depth", "clone:\n  depth: 1\n", true, 1, "true"},
		{"private-shared", "", true, 4, "false"},
	}
	for _, one := range cases {
		t.Run(one.name, func(t *testing.T) {
			c := newCase(t)
			c.runner(map[string]string{"DRONE_NETRC_CLONE_ONLY": one.cloneOnly})
			repo := c.history(one.private)
			c.ok(c.bed.Drone.Activate(c.ctx, c.user, repo, testbed.Settings{}))
			build := c.pushTo(repo, testbed.Commit{
				Message: "a pipeline", Files: map[string]string{".drone.yml": c.pipeline(one.head + look)},
			})
			build = c.doneIn(repo, build, drone.StatusPassing)
			log := c.logIn(repo, build, "look")
			c.contains(log, "hello from the repository", "head "+build.After, fmt.Sprintf("commits %d", one.commits))
			switch {
			case one.cloneOnly == "false":
				c.contains(log, "netrc is there")
			case one.private:
				c.contains(log, "no netrc")
				c.contains(c.logIn(repo, build, "clone"), "are removed after this step", "DRONE_NETRC_CLONE_ONLY=false")
			default:
				c.contains(log, "no netrc")
			}
			if strings.Contains(log, c.user.Password) {
				t.Error("the log shows a password")
			}
		})
	}
}

// history makes a repository of the test's user with three commits. They come before it is activated: Drone looks for a
// pipeline that is not there three times, five seconds apart, and holds up other webhooks meanwhile.
func (c *testCase) history(private bool) testbed.Repo {
	c.t.Helper()
	repo, err := c.user.NewRepo(c.ctx, testbed.RepoSpec{
		Name: "cloned", Private: private, Files: map[string]string{"greeting": "hello from the repository\n"},
	})
	c.ok(err)
	for i := range 2 {
		_, err := c.user.Push(c.ctx, repo, testbed.Commit{Message: fmt.Sprint("commit ", i)})
		c.ok(err)
	}
	return repo
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
