package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// buildPrefix starts the name of every build (BuildName), so that the workspaces in a shared directory such as /tmp
// are told from everything else there.
const buildPrefix = "cc-ci-"

// Workspaces is the Reaper of the directories of builds. Each build has one, named after it, below Parent.
type Workspaces struct {
	// Parent holds the builds' roots (DRONE_RUNNER_ROOT, or the directory for temporary files).
	Parent string

	// Owns says whether directories of that user are this runner's. The others in a shared directory are builds of other
	// users' runners, whose locks cannot be seen from here: they may be running. Nil stands for every user.
	Owns func(uid int) bool
}

// Root is where the build's directory lies.
func (w *Workspaces) Root(build string) string { return filepath.Join(w.Parent, build) }

// Builds names the builds of this runner that have a directory.
func (w *Workspaces) Builds(context.Context) ([]string, error) {
	entries, err := os.ReadDir(w.Parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list workspaces: %w", err)
	}
	var builds []string
	for _, entry := range entries {
		if entry.IsDir() && isBuildName(entry.Name()) && w.owns(entry) {
			builds = append(builds, entry.Name())
		}
	}
	return builds, nil
}

// owns says whether the directory is this runner's. What is gone by now is nobody's.
func (w *Workspaces) owns(entry fs.DirEntry) bool {
	if w.Owns == nil {
		return true
	}
	info, err := entry.Info()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && w.Owns(int(stat.Uid))
}

// Teardown removes the build's directory, also where it holds directories that their owner cannot write to (Go's
// module cache is such a tree).
func (w *Workspaces) Teardown(ctx context.Context, build string) ([]leftover.Item, error) {
	left, err := w.Remaining(ctx, build)
	if err != nil || len(left) == 0 {
		return nil, err
	}
	root := w.Root(build)
	if err := os.RemoveAll(root); err == nil {
		return left, nil
	}
	if err := makeRemovable(root); err != nil {
		return nil, fmt.Errorf("remove workspace: %w", err)
	}
	if err := os.RemoveAll(root); err != nil {
		return nil, fmt.Errorf("remove workspace: %w", err)
	}
	return left, nil
}

// Remaining is the build's directory, if it is there. Other names than those of builds have none: Parent may be /tmp.
func (w *Workspaces) Remaining(_ context.Context, build string) ([]leftover.Item, error) {
	if !isBuildName(build) {
		return nil, nil
	}
	root := w.Root(build)
	_, err := os.Lstat(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for the workspace: %w", err)
	}
	return []leftover.Item{{Kind: "directory", Name: root}}, nil
}

// makeRemovable gives the owner every right on the directories below root. No symbolic link leads it out of root, also none
// that somebody puts in a directory's place meanwhile: a container that could not be ended, or another build of the same
// user.
func makeRemovable(root string) (err error) {
	parent, err := os.OpenRoot(filepath.Dir(root))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, parent.Close()) }()
	name := filepath.Base(root)
	if err := parent.Chmod(name, 0o700); err != nil {
		return err
	}
	dir, err := parent.OpenRoot(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return fs.WalkDir(dir.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		// A directory that could not be read comes a second time, with the error: by then it has its rights.
		if entry != nil && entry.IsDir() && err == nil {
			_ = dir.Chmod(path, 0o700) // where that fails, the removal that follows tells it
		}
		return nil
	})
}

// isBuildName says whether the name has BuildName's form: cc-ci-, eight hexadecimal digits, a dash, a number.
func isBuildName(name string) bool {
	rest, ok := strings.CutPrefix(name, buildPrefix)
	if !ok || len(rest) < 10 || rest[8] != '-' {
		return false
	}
	return strings.Trim(rest[:8], "0123456789abcdef") == "" && strings.Trim(rest[9:], "0123456789") == ""
}
