package process

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDiskUsage(t *testing.T) {
	dir := t.TempDir()
	empty, err := DiskUsage(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(file, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(dir, "everything")); err != nil {
		t.Fatal(err)
	}
	used, err := DiskUsage(t.Context(), dir)
	if grown := used - empty; err != nil || grown < 1<<20 || grown > 1<<20+64<<10 {
		t.Errorf("%d bytes more for 1 MiB with two names, %v", grown, err)
	}
	if used, err := DiskUsage(t.Context(), filepath.Join(dir, "gone")); err != nil || used != 0 {
		t.Errorf("a directory that is gone: %d, %v", used, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := DiskUsage(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
}

// A step can nest directories deeper than a path may be long. What lies there counts, and a nest without end is no way
// around the limit either.
func TestDiskUsageOfDeepDirectories(t *testing.T) {
	for name, c := range map[string]struct {
		depth int // in bytes of path
		least int64
	}{"deep": {3 * longPath, 1 << 20}, "without end": {(maxDescents + 2) * longPath, math.MaxInt64}} {
		dir := t.TempDir()
		nest(t, dir, c.depth)
		if used, err := DiskUsage(t.Context(), dir); err != nil || used < c.least {
			t.Errorf("%s: %d bytes, %v", name, used, err)
		}
	}
}

// nest puts a file of 1 MiB below directories with a path of so many bytes.
func nest(t *testing.T, dir string, depth int) {
	t.Helper()
	at, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("d", 250)
	for range depth / len(name) {
		err := at.Mkdir(name, 0o700)
		below, openErr := at.OpenRoot(name)
		if err := errors.Join(err, openErr, at.Close()); err != nil {
			t.Fatal(err)
		}
		at = below
	}
	if err := errors.Join(at.WriteFile("file", make([]byte, 1<<20), 0o600), at.Close()); err != nil {
		t.Fatal(err)
	}
}
