package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// locks tells the builds that run now from those that a crash left: every running build holds a flock on a file of
// its name. The kernel drops the lock with the process, so no time stamp or PID has to be trusted, and a runner
// never sweeps away a build of another runner on the same host.
type locks struct {
	dir string

	mu   sync.Mutex
	held map[string]*os.File
}

const (
	// busyPause is between two looks at a lock that another process holds.
	busyPause = 50 * time.Millisecond

	// setupWait is how long a new build waits for its lock. Only a look at it could hold it, which is short.
	setupWait = 10 * time.Second
)

// errBusy is returned for a build that a living process holds.
var errBusy = errors.New("another process on this host is running it")

// newLocks opens the directory, which all runners on the host must share: see take. It lies where everybody may make
// directories, and one that another user made, or may write to, is refused: that user could say which builds live, and have
// root open files elsewhere by links.
func newLocks(dir string) (*locks, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the lock directory: %w", err)
	}
	info, err := os.Lstat(dir) // a link is no directory
	if err != nil {
		return nil, fmt.Errorf("create the lock directory: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode()&0o022 != 0 || !ok || int(stat.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("the lock directory %s is not this user's alone to write to: remove it", dir)
	}
	return &locks{dir: dir, held: map[string]*os.File{}}, nil
}

// take locks the build for this process. Taking a build that this process holds already is no error, so that
// teardown can run in the process that ran the build and in the one that recovers it.
func (l *locks) take(build string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hold(build)
}

// hold is take for who has mu.
func (l *locks) hold(build string) error {
	for l.held[build] == nil {
		file, err := l.open(build)
		if err != nil {
			return fmt.Errorf("lock build %s: %w", build, err)
		}
		if file != nil {
			l.held[build] = file
		}
	}
	return nil
}

// open opens and locks a build's file. It returns nil for a file that was removed meanwhile: a lock on it would be
// seen by nobody.
func (l *locks) open(build string) (*os.File, error) {
	file, err := os.OpenFile(l.path(build), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errBusy
		}
		return nil, errors.Join(err, file.Close())
	}
	ours, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if there, err := os.Stat(l.path(build)); err != nil || !os.SameFile(ours, there) {
		return nil, file.Close()
	}
	return file, nil
}

// wait takes the build, and waits as long as another process holds it: a runner that starts looks at the locks of all
// others, and tears down what their crashes left.
func (l *locks) wait(ctx context.Context, build string) error {
	for {
		err := l.take(build)
		if !errors.Is(err, errBusy) {
			return err
		}
		timer := time.NewTimer(busyPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// busy says whether a process on this host holds the build, this one too. The lock file of a build that nobody holds is
// gone after that. A lock that cannot be looked at is no reason to say yes.
func (l *locks) busy(build string) bool {
	l.mu.Lock() // throughout: what a Setup of this process takes meanwhile must not be released here
	defer l.mu.Unlock()
	if l.held[build] != nil {
		return true
	}
	if err := l.hold(build); err != nil {
		return errors.Is(err, errBusy)
	}
	return l.drop(build) != nil
}

// release gives the build up and removes its file. The file goes first: a process that opened it meanwhile finds that
// its file has no name any more, and opens it anew.
func (l *locks) release(build string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.drop(build)
}

// drop is release for who has mu.
func (l *locks) drop(build string) error {
	file := l.held[build]
	if file == nil {
		return nil
	}
	delete(l.held, build)
	err := os.Remove(l.path(build))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, file.Close())
}

// builds names the builds that have a lock file, whether somebody holds it or not.
func (l *locks) builds() ([]string, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("read the lock directory: %w", err)
	}
	var builds []string
	for _, entry := range entries {
		if build, ok := strings.CutSuffix(entry.Name(), ".lock"); ok {
			builds = append(builds, build)
		}
	}
	return builds, nil
}

// foreign says whether a runner of another user holds the build. Such a runner keeps its locks where only it knows, and only
// root can see what others have open. Users that a build's steps may run as are not believed: a process that outlived its
// build could pretend to be the runner.
func foreign(build string, steps func(uid int) bool) bool {
	if os.Geteuid() != 0 {
		return false
	}
	open, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return false // the pattern is a good one
	}
	for _, fd := range open {
		if name, err := os.Readlink(fd); err == nil && filepath.Base(name) == build+".lock" && lockedByAnother(fd, steps) {
			return true
		}
	}
	return false
}

// lockedByAnother says whether a file of another user's, who runs no steps, is locked.
func lockedByAnother(path string, steps func(uid int) bool) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false // its process has ended, or it is no lock
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid == 0 || steps(int(stat.Uid)) {
		return false
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	_ = file.Close() // nothing was written; a lock that was given goes with it
	return errors.Is(err, syscall.EWOULDBLOCK)
}

func (l *locks) path(build string) string { return filepath.Join(l.dir, build+".lock") }
