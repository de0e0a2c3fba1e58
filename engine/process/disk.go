package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"syscall"
)

const (
	// longPath is from which length on a path is not made any longer: the kernel takes 4095 bytes (PATH_MAX), and who
	// could make deeper directories by relative paths would keep what is in them from being counted.
	longPath = 3000

	// maxDescents is how many such paths may follow each other, each of which takes a descriptor.
	maxDescents = 64
)

// DiskUsage is how many bytes of disk the files below path take, hard links counted once. What disappears or cannot
// be read while it looks is left out: a build is at work there. Directories that are nested deeper than any build needs
// (some 190 kB of path) count as without end. It stops when ctx ends, with its cause.
//
// It walks the whole tree, which takes seconds for a large one: a quota of the file system would be cheaper, but a
// runner cannot count on having one.
func DiskUsage(ctx context.Context, path string) (int64, error) {
	d := &diskUsage{linked: map[[2]uint64]bool{}}
	if err := d.add(ctx, path, 0); err != nil {
		return d.total, fmt.Errorf("measure %s: %w", path, err)
	}
	return d.total, nil
}

// diskUsage is the sum so far.
type diskUsage struct {
	total  int64
	linked map[[2]uint64]bool // device and inode of files that have more than one name
}

// add walks the tree below path, to which so many descents have led.
func (d *diskUsage) add(ctx context.Context, path string, descents int) error {
	return filepath.WalkDir(path, func(at string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if d.total == math.MaxInt64 {
			return fs.SkipAll
		}
		if err != nil {
			return skippable(err)
		}
		info, err := entry.Info()
		if err != nil {
			return skippable(err)
		}
		d.count(info)
		if entry.IsDir() && len(at) > longPath {
			return d.descend(ctx, at, descents+1)
		}
		return nil
	})
}

// descend goes on in a directory from its descriptor, from where the path is short again.
func (d *diskUsage) descend(ctx context.Context, path string, descents int) error {
	if descents > maxDescents {
		d.total = math.MaxInt64
		return fs.SkipAll
	}
	dir, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
	if err != nil {
		if err := skippable(err); err != nil {
			return err
		}
		return fs.SkipDir
	}
	defer func() { _ = dir.Close() }() // it was only read
	// The dot: the name itself is a link, which a walk does not follow.
	if err := d.add(ctx, fmt.Sprintf("/proc/self/fd/%d/.", dir.Fd()), descents); err != nil {
		return err
	}
	return fs.SkipDir
}

// count adds one file or directory.
func (d *diskUsage) count(info fs.FileInfo) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		d.total += info.Size()
		return
	}
	if st.Nlink > 1 && !info.IsDir() {
		file := [2]uint64{uint64(st.Dev), uint64(st.Ino)}
		if d.linked[file] {
			return
		}
		d.linked[file] = true
	}
	// Not the size: a file with holes takes less than it is long. The unit is 512 on every file system (stat(2)).
	d.total += int64(st.Blocks) * 512
}

// skippable forgives what only says that a file is gone or closed to us.
func skippable(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}
