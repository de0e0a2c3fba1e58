package bridge

import (
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// TestLanesAreForgotten locks a few pull requests from many goroutines: one at a time has each of them, and no lock
// stays.
func TestLanesAreForgotten(t *testing.T) {
	b, err := New(Config{Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	const prs, users = 5, 200
	var held [prs]int // by the lanes alone
	var wait sync.WaitGroup
	for i := range prs * users {
		wait.Go(func() {
			pr := i % prs
			unlock := b.lane(&journal.Request{Key: journal.Key{Repo: 7}, PR: int64(pr)})
			held[pr]++
			unlock()
		})
	}
	wait.Wait()
	for pr, n := range held {
		if n != users {
			t.Errorf("pull request %d was held %d times, want %d", pr, n, users)
		}
	}
	if len(b.lanes) != 0 {
		t.Errorf("%d locks are left", len(b.lanes))
	}
}
