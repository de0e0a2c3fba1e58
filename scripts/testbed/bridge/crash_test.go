package bridge_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// TestKilled kills the bridge again and again while comments are on their way through real servers: one build and one
// answer for each, none lost. The crash at each single call is tested with small servers in the bridge's own tests.
func TestKilled(t *testing.T) {
	t.Parallel()
	kills, comments := 10, 20
	if os.Getenv("CC_CI_TEST_FULL") != "" {
		kills = 100
	}
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "killed"}, map[string]string{
		"CATCH_UP": "1s", "USER_BURST": "1000", "PULL_BURST": "1000", "REPO_BURST": "1000"})
	fork, err := the.fred.Fork(b.ctx, b.repo)
	b.check(err)
	var pulls []int64
	for i := range comments {
		pr, _ := b.pullFrom(fork, fmt.Sprintf("work-%d", i))
		pulls = append(pulls, pr)
	}
	the.hand.decide("killed", "success")
	written := make(chan error, 1)
	go func() {
		for _, pr := range pulls {
			if _, err := the.wim.Comment(b.ctx, b.repo, pr, "!testme"); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	random := rand.New(rand.NewPCG(1, 1))
	for range kills {
		time.Sleep(time.Duration(random.IntN(600)) * time.Millisecond) // a random point is what is wanted
		b.kill()
		b.start()
	}
	b.check(<-written)
	for _, pr := range pulls {
		b.reply(pr, "**success**")
		if n := len(b.builds(pr)); n != 1 {
			t.Errorf("pull request %d has %d builds, want 1", pr, n)
		}
	}
}

// shown is everything that the bridge has written for operators.
func (b *bridge) shown() string {
	b.Helper()
	var s strings.Builder
	for _, path := range []string{"log", "state/audit.jsonl"} {
		text, err := os.ReadFile(b.dir + "/" + path)
		b.check(err)
		s.Write(text)
	}
	s.WriteString(b.get(b.statusURL + "/metrics"))
	return s.String()
}
