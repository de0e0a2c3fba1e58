package process

import (
	"context"
	"errors"
	"os"
	"path/filepath"
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
