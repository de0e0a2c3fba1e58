package swarm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockApp takes the lock that whoever uses an app holds, so that nobody deploys it while it is removed. As flock(1) does it
// makes the file where there is none: a deployment that starts meanwhile would make it, and hold what is being removed.
// An error means that the app is in use; otherwise the caller closes the file, which gives the lock up.
func (s *Swarm) lockApp(stack string) (*os.File, error) {
	f, err := s.openLock(stack, os.O_RDWR|os.O_CREATE)
	// Without the directory nobody can hold a lock there.
	if errors.Is(err, os.ErrNotExist) {
		return os.Open(os.DevNull)
	}
	return f, err
}

// inUse says whether somebody holds the lock of an app. It is taken for a moment to see that; one that cannot be looked at
// counts as held. An app without a file is nobody's, and none is made: each app once seen would leave one.
func (s *Swarm) inUse(stack string) bool {
	lock, err := s.openLock(stack, os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	return err != nil || lock.Close() != nil
}

// holdApp takes the lock of an app that a build deploys, until the build's socket is closed. Every janitor on the host
// then sees that the app lives, also what belongs to it and carries no label. A lock that somebody holds already, such
// as the pipeline itself, does the same. It is called in the middle of a build's call, which it must not hold up or fail:
// it never waits for a lock.
func (s *Swarm) holdApp(build, stack string) {
	if !s.appStack(stack) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.sockets[build]
	if at == nil || at.locks[stack] != nil {
		return
	}
	f, err := s.openLock(stack, os.O_RDWR|os.O_CREATE)
	switch {
	case err == nil:
		at.locks[stack] = f
	case !errors.Is(err, unix.EWOULDBLOCK):
		s.cfg.Log.WithError(err).Warn("a janitor may take this app for one that nobody uses")
	}
}

// openLock opens and locks an app's file without waiting. The lock is flock(2)'s, as the command flock(1) takes it in
// pipelines; the kernel gives it up when its holder dies. The file stays when it is given up: to remove it would part
// those who wait for it from those who come later. Without a LockDir, /dev/null stands for a lock that nobody holds.
func (s *Swarm) openLock(stack string, flags int) (*os.File, error) {
	path := os.DevNull
	if s.cfg.LockDir != "" {
		path = filepath.Join(s.cfg.LockDir, "cc-ci-app-"+filepath.Base(domain(stack))+".lock")
	}
	if path != os.DevNull {
		// Where everybody may make files, one may have put a link there, to have root open or make a file elsewhere.
		flags |= unix.O_NOFOLLOW | unix.O_NONBLOCK
	}
	// Without O_CREATE first: in a directory such as /run/lock the kernel refuses that for a file that another user made,
	// a pipeline's step for one, to root too (fs.protected_regular in proc_sys_fs(5)).
	f, err := os.OpenFile(path, flags&^os.O_CREATE, 0o644)
	if errors.Is(err, os.ErrNotExist) && flags&os.O_CREATE != 0 {
		f, err = os.OpenFile(path, flags, 0o644)
	}
	if err != nil || path == os.DevNull {
		return f, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("lock the app of stack %s: %s is not a regular file", stack, path), err, f.Close())
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the app of stack %s: it is in use: %w", stack, err), f.Close())
	}
	return f, nil
}
