package engine

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Two of locks in one directory are as two processes to each other.
func twoLocks(t *testing.T) (*locks, *locks) {
	t.Helper()
	dir := t.TempDir()
	one, err := newLocks(dir)
	if err != nil {
		t.Fatal(err)
	}
	two, err := newLocks(dir)
	if err != nil {
		t.Fatal(err)
	}
	return one, two
}

func TestWaitForTheLockOfAnother(t *testing.T) {
	one, two := twoLocks(t)
	if err := one.take("b"); err != nil {
		t.Fatal(err)
	}
	short, done := context.WithTimeout(t.Context(), 3*busyPause)
	defer done()
	if err := two.wait(short, "b"); !errors.Is(err, errBusy) {
		t.Fatalf("a lock that is held was waited for: %v", err)
	}
	waited := make(chan error)
	go func() { waited <- two.wait(t.Context(), "b") }()
	time.Sleep(2 * busyPause)
	if err := one.release("b"); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("the lock that was given up was not taken: %v", err)
	}
	if err := two.release("b"); err != nil {
		t.Error(err)
	}
}

// A lock is never held on a file that was removed: nobody else would see it.
func TestLockIsSeen(t *testing.T) {
	one, two := twoLocks(t)
	var holders atomic.Int32
	var both sync.WaitGroup
	for _, l := range []*locks{one, two} {
		both.Go(func() {
			for range 3000 {
				err := l.take("b")
				if errors.Is(err, errBusy) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if holders.Add(1) > 1 {
					t.Error("both hold the lock")
				}
				if _, err := os.Stat(l.path("b")); err != nil {
					t.Errorf("the lock that is held cannot be seen: %v", err)
				}
				holders.Add(-1)
				if err := l.release("b"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	both.Wait()
}
