package bridge_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// TestOutcomes comments on a fork's pull request and sees each way in which a run can end.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, branch, verdict string
		reply, status         string
		reactions             []string
		builds                int
	}{
		{"success", "main", "success", "**success**", "success", []string{"eyes", "rocket"}, 1},
		{"failure", "main", "failure", "**failure**", "failure", []string{"eyes", "-1"}, 1},
		{"null", "null", "", "no pipeline for builds of event `custom`", "error", []string{"eyes", "-1"}, 0},
		{"yaml", "yaml", "", "The CI server says `yaml", "error", []string{"eyes", "-1"}, 0},
		{"branch", "nowhere", "", "does not know the CI repository or its branch", "error", []string{"eyes", "-1"}, 0},
	}
	if os.Getenv("CC_CI_TEST_FULL") != "" { // Drone looks for the file for 45 seconds before it says no, and is asked twice
		missing := cases[len(cases)-1]
		missing.name, missing.branch, missing.reply = "missing", "missing", "is the pipeline file missing"
		cases = append(cases, missing)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			name := "out-" + c.name
			b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: name}, map[string]string{"CI_BRANCH": c.branch})
			pr, sha := b.pull("work")
			comment := b.comment(the.wim, pr, "!testme")
			if c.verdict != "" {
				b.reply(pr, "running, see [build")
				if got := b.status(sha); got != "pending" {
					t.Errorf("status %q while running", got)
				}
				the.hand.decide(name, c.verdict)
			}
			reply := b.reply(pr, c.reply)
			b.until("the reactions are there", func() bool { return len(b.reactions(comment)) == 2 })
			b.until("the status is final", func() bool { return b.status(sha) == c.status })
			if got := b.reactions(comment); !slices.Equal(got, c.reactions) {
				t.Errorf("reactions %v, want %v", got, c.reactions)
			}
			if c.verdict == "failure" && !strings.Contains(reply.Body, "in step `test/run`") {
				t.Errorf("reply does not name the step: %s", reply.Body)
			}
			builds := b.builds(pr)
			if len(builds) != c.builds {
				t.Fatalf("%d builds, want %d", len(builds), c.builds)
			}
			if c.builds == 1 && builds[0].Params["REF"] != sha {
				t.Errorf("built %s, want the fork's head %s", builds[0].Params["REF"], sha)
			}
		})
	}
}
