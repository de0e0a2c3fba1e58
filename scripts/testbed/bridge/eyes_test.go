package bridge_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// TestEyes shows how long it takes from a hook's arrival until Gitea shows the eyes on its comment. The time is printed
// and not judged: on a machine that is busy with other tests it is theirs.
func TestEyes(t *testing.T) {
	comments := 10
	if os.Getenv("CC_CI_TEST_FULL") != "" {
		comments = 100
	}
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "eyes"}, map[string]string{"USER_BURST": "1000"})
	pr, _ := b.pull("work")
	var took []time.Duration
	for range comments {
		c := b.comment(the.wim, pr, "!testme ?")
		id := fmt.Sprintf("\"comment\": {\n    \"id\": %d,", c.ID)
		var seen time.Time
		b.until("the eyes are there", func() bool {
			seen = time.Now()
			return slices.Contains(b.reactions(c), "eyes")
		})
		var sent hook
		b.until("the hook is known", func() (ok bool) {
			sent, ok = b.tap.find(id)
			return ok
		})
		took = append(took, seen.Sub(sent.at))
	}
	slices.Sort(took)
	t.Logf("hook to eyes, %d comments: median %s, longest %s; %d calls failed and were repeated", comments,
		took[comments/2].Round(time.Millisecond), took[comments-1].Round(time.Millisecond), strings.Count(b.shown(), "a step failed"))
}
