package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func openTest(t testing.TB, path string) *Journal {
	t.Helper()
	j, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return j
}

func request(pr, comment int64, state State) Request {
	return Request{Key: Key{Repo: 7, Comment: comment}, PR: pr, State: state, Received: time.Now()}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAcceptOnce accepts the same comments from many goroutines: each is fresh exactly once, also after a restart.
func TestAcceptOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openTest(t, path)
	var mu sync.Mutex
	fresh := map[int64]int{}
	var wait sync.WaitGroup
	for i := range 400 {
		wait.Go(func() {
			comment := int64(i % 40)
			ok, err := j.Accept(request(1, comment, Received))
			if err != nil {
				t.Error(err)
			}
			if ok {
				mu.Lock()
				defer mu.Unlock()
				fresh[comment]++
			}
		})
	}
	wait.Wait()
	must(t, j.Close())
	j = openTest(t, path)
	for comment := range int64(40) {
		if fresh[comment] != 1 {
			t.Errorf("comment %d was fresh %d times", comment, fresh[comment])
		}
		if ok, err := j.Accept(request(1, comment, Received)); ok || err != nil {
			t.Errorf("comment %d is fresh after a restart (%v)", comment, err)
		}
	}
	live, err := j.Live()
	must(t, err)
	for i, r := range live {
		if r.Comment != int64(i) {
			t.Fatalf("live requests are not in order: %v", live)
		}
	}
	if len(live) != 40 {
		t.Errorf("%d live requests, want 40", len(live))
	}
}

// TestWritesAreSynced looks at the settings by which the store leaves out fsync: no test can take the power away.
func TestWritesAreSynced(t *testing.T) {
	j := openTest(t, filepath.Join(t.TempDir(), "journal"))
	if j.db.NoSync || j.db.NoGrowSync {
		t.Error("writes are not on disk when their call returns")
	}
}

func TestPullAndStops(t *testing.T) {
	j := openTest(t, filepath.Join(t.TempDir(), "journal"))
	for comment := range int64(10) {
		_, err := j.Accept(request(comment%2, comment, Received))
		must(t, err)
	}
	pull, err := j.Pull(7, 1)
	must(t, err)
	if len(pull) != 5 || pull[0].Comment != 1 || pull[4].Comment != 9 {
		t.Errorf("pull request 1 has %v", pull)
	}
	key := Key{Repo: 7, Comment: 1}
	must(t, j.Stop(key, Stop{Rule: "first"}))
	must(t, j.Stop(key, Stop{Rule: "second"}))
	stop, err := j.Stopped(key)
	if err != nil || stop == nil || stop.Rule != "first" {
		t.Errorf("stop %v (%v), want the first", stop, err)
	}
	must(t, j.Save(request(1, 1, Reported)))
	if stop, err = j.Stopped(key); err != nil || stop != nil {
		t.Errorf("stop %v (%v) after the end", stop, err)
	}
	if live, err := j.Live(); err != nil || len(live) != 9 {
		t.Errorf("%d live requests, want 9 (%v)", len(live), err)
	}
}

func TestMarks(t *testing.T) {
	j := openTest(t, filepath.Join(t.TempDir(), "journal"))
	if mark, err := j.Mark("org/app"); err != nil || !mark.IsZero() {
		t.Errorf("mark %v (%v) before any", mark, err)
	}
	now := time.Now().UTC()
	must(t, j.SetMark("org/app", now))
	if mark, err := j.Mark("org/app"); err != nil || !mark.Equal(now) {
		t.Errorf("mark %v (%v), want %v", mark, err, now)
	}
}

// TestPruneAndCompact fills the file, prunes it, and finds it small after the next start, with what must stay.
func TestPruneAndCompact(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openTest(t, path)
	var wait sync.WaitGroup
	for comment := range int64(1500) {
		wait.Go(func() {
			r := request(1, comment, Reported)
			r.Text = fmt.Sprintf("%02000d", comment)
			if comment == 0 {
				r.State = Triggered
			}
			if _, err := j.Accept(r); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	ended, unfinished := Key{Repo: 7, Comment: 1}, Key{Repo: 7, Comment: 0}
	must(t, j.Stop(ended, Stop{Rule: "late"}))
	must(t, j.Stop(unfinished, Stop{Rule: "cancelled"}))
	n, err := j.Prune(time.Now().Add(-time.Hour))
	if n != 0 || err != nil {
		t.Errorf("pruned %d young requests (%v)", n, err)
	}
	n, err = j.Prune(time.Now().Add(time.Hour))
	if n != 1499 || err != nil {
		t.Errorf("pruned %d requests, want 1499 (%v)", n, err)
	}
	if stop, err := j.Stopped(ended); err != nil || stop != nil {
		t.Errorf("the stop of a pruned request is kept: %v (%v)", stop, err)
	}
	if stop, err := j.Stopped(unfinished); err != nil || stop == nil {
		t.Errorf("the stop of an unfinished request is lost (%v)", err)
	}
	must(t, j.Close())
	before, err := os.Stat(path)
	must(t, err)
	j = openTest(t, path)
	after, err := os.Stat(path)
	must(t, err)
	if after.Size() > before.Size()/4 {
		t.Errorf("%d bytes after compaction, %d before", after.Size(), before.Size())
	}
	if seen, err := j.Seen(Key{Repo: 7, Comment: 1499}); !seen || err != nil {
		t.Errorf("a pruned comment is not seen any more (%v)", err)
	}
	if live, err := j.Live(); len(live) != 1 || err != nil {
		t.Errorf("live requests %v (%v), want the unfinished one", live, err)
	}
}

// TestPruneOnlyReads lets a prune that finds nothing old pass by: it takes no turn of the writer, which hooks wait for.
func TestPruneOnlyReads(t *testing.T) {
	j := openTest(t, filepath.Join(t.TempDir(), "journal"))
	_, err := j.Accept(request(1, 1, Refused))
	must(t, err)
	written := func() (id int) {
		must(t, j.db.View(func(tx *bbolt.Tx) error {
			id = tx.ID()
			return nil
		}))
		return id
	}
	before := written()
	_, err = j.Prune(time.Now().Add(-time.Hour))
	must(t, err)
	if after := written(); after != before {
		t.Errorf("%d transactions were written to find nothing", after-before)
	}
}

// TestSecondBridge opens a journal that another has: it waits for a moment, as after a restart, and says who has it.
func TestSecondBridge(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	first, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }() // the test is over
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "belongs to another bridge") {
		t.Errorf("the second says %v", err)
	}
}

func TestClosed(t *testing.T) {
	j := openTest(t, filepath.Join(t.TempDir(), "journal"))
	must(t, j.Close())
	if _, err := j.Accept(request(1, 1, Received)); !errors.Is(err, ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "no", "journal")); err == nil {
		t.Error("a journal without a directory was opened")
	}
}

// BenchmarkAccept stores requests, each on disk before its call returns, from one and from many callers.
func BenchmarkAccept(b *testing.B) {
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			j := openTest(b, filepath.Join(b.TempDir(), "journal"))
			var wait sync.WaitGroup
			for c := range callers {
				wait.Go(func() {
					for i := c; i < b.N; i += callers {
						if _, err := j.Accept(request(int64(i%50), int64(i), Received)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wait.Wait()
		})
	}
}
