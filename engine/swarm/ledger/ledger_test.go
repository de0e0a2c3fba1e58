package ledger_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
)

func open(t *testing.T, dir string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(dir, ledger.Header{Build: "b1", Labels: map[string]string{"repo": "a/b"}, Started: time.Unix(1, 0).UTC()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
			t.Error(err)
		}
	})
	return l
}

func TestEntriesOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	entries := []ledger.Entry{{Kind: "volume", Name: "v", Note: "anonymous"}, {Kind: "service", Name: "web", ID: "s1"}}
	for _, e := range append(entries, entries...) {
		if err := l.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	again := open(t, dir) // as a runner would that was killed and started again
	if !again.Knows("volume", "v") || !again.Knows("service", "s1") || again.Knows("service", "v") {
		t.Error("an opened ledger does not know its entries")
	}
	if again.Header().Started != l.Header().Started {
		t.Error("opening again changed the header")
	}
	header, read, err := ledger.Read(dir, "b1")
	if err != nil || !slices.Equal(read, entries) || header.Labels["repo"] != "a/b" {
		t.Errorf("read %v, %v, %v", header, read, err)
	}
}

// TestCutShort reads ledgers of which the end, or all but the beginning, is missing.
func TestCutShort(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	if err := l.Add(ledger.Entry{Kind: "volume", Name: "v"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "b1.jsonl")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		header, entries, err := ledger.Read(dir, "b1")
		if err != nil || header.Build != "b1" || len(entries) > 1 {
			t.Fatalf("of %q: %v, %v, %v", whole[:n], header, entries, err)
		}
	}
	cut := open(t, dir)
	if err := cut.Add(ledger.Entry{Kind: "secret", Name: "s"}); err != nil {
		t.Fatal(err)
	}
	if _, entries, err := ledger.Read(dir, "b1"); err != nil || !slices.Contains(entries, ledger.Entry{Kind: "secret", Name: "s"}) {
		t.Errorf("an entry after a cut line is lost: %v, %v", entries, err)
	}
}

// TestTooLong keeps what can be read: who could not read the ledger could not tear the build down.
func TestTooLong(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	if err := l.Add(ledger.Entry{Kind: "volume", Name: strings.Repeat("v", 1<<20)}); err == nil {
		t.Error("a line was taken that is too long to be read")
	}
	long := ledger.Entry{Kind: "volume", Name: strings.Repeat("v", 1<<19)}
	if err := l.Add(long); err != nil {
		t.Error(err)
	}
	if _, entries, err := ledger.Read(dir, "b1"); err != nil || !slices.Equal(entries, []ledger.Entry{long}) {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

// TestFullDisk writes while there is no room for a whole line, and again when there is.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	info, err := os.Stat(filepath.Join(dir, "b1.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var limit, small unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ) // the kernel ends who writes more than it may
	defer signal.Reset(unix.SIGXFSZ)
	small.Cur, small.Max = uint64(info.Size())+5, limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &small); err != nil {
		t.Fatal(err)
	}
	lost := l.Add(ledger.Entry{Kind: "volume", Name: "lost"})
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	if lost == nil {
		t.Error("a line that has no room is written")
	}
	for _, name := range []string{"lost", "kept"} {
		if err := l.Add(ledger.Entry{Kind: "volume", Name: name}); err != nil {
			t.Error(err)
		}
	}
	_, entries, err := ledger.Read(dir, "b1")
	want := []ledger.Entry{{Kind: "volume", Name: "lost"}, {Kind: "volume", Name: "kept"}}
	if err != nil || !slices.Equal(entries, want) {
		t.Errorf("read %v, %v, want %v", entries, err, want)
	}
}

func TestManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := l.Add(ledger.Entry{Kind: "volume", Name: fmt.Sprint(i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, entries, err := ledger.Read(dir, "b1"); err != nil || len(entries) != 50 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

func TestBuildsAndRemove(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if builds, err := ledger.Builds(dir); err != nil || !slices.Equal(builds, []string{"b1"}) {
		t.Error(builds, err)
	}
	for range 2 {
		if err := ledger.Remove(dir, "b1"); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := ledger.Read(dir, "b1"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := ledger.Open(dir, ledger.Header{Build: "../escape"}); err != nil {
		t.Fatal(err)
	}
	if files, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "*escape*")); err != nil || len(files) > 0 {
		t.Error("a build's name led out of the directory: ", files, err)
	}
}
