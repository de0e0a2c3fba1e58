package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
)

// DiskUsage is how many bytes of disk the files below path take, hard links counted once. What disappears or cannot
// be read while it looks is left out: a build is at work there. It stops when ctx ends, with its cause.
//
// It walks the whole tree, which takes seconds for a large one: a quota of the file system would be cheaper, but a
// runner cannot count on having one.
func DiskUsage(ctx context.Context, path string) (int64, error) {
	var total int64
	linked := map[[2]uint64]bool{}
	err := filepath.WalkDir(path, func(_ string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return skippable(err)
		}
		info, err := entry.Info()
		if err != nil {
			return skippable(err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			total += info.Size()
			return nil
		}
		if st.Nlink > 1 && !entry.IsDir() {
			file := [2]uint64{uint64(st.Dev), uint64(st.Ino)}
			if linked[file] {
				return nil
			}
			linked[file] = true
		}
		// Not the size: a file with holes takes less than it is long. The unit is 512 on every file system (stat(2)).
		total += int64(st.Blocks) * 512
		return nil
	})
	if err != nil {
		return total, fmt.Errorf("measure %s: %w", path, err)
	}
	return total, nil
}

// skippable forgives what only says that a file is gone or closed to us.
func skippable(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}
