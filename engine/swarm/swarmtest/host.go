//go:build linux

package swarmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lockPath does not depend on the environment: daemons of tests share the host's bridge and ports, whatever
	// directory for temporary files they have.
	lockPath = "/run/lock/cc-ci-swarmtest.lock"

	// dirPrefix begins the names of daemons' directories, by which those of killed runs are found.
	dirPrefix = "cc-ci-swarmtest-"

	// pidFile lies in a daemon's directory; containerd's, which dockerd starts, ends in .pid as well.
	pidFile = "docker.pid"
)

// acquire takes an exclusive lock on a file, waiting for whoever holds it. The kernel gives it up when its holder dies, so
// there are no stale locks. It asks again and again because a blocking flock could not be ended by ctx.
func acquire(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// succeed makes the directory of a new daemon and writes it into the lock's file. What the file's last writer left,
// if it was killed, is ended and removed: only the lock's holder gets here, so it belongs to nobody. The lock's file names
// the directory because the last run may have had another one for temporary files.
func succeed(lock *os.File) (string, error) {
	last, err := os.ReadFile(lock.Name())
	if err != nil {
		return "", err
	}
	if len(last) > 0 {
		if err := clearStale(filepath.Dir(string(last))); err != nil {
			return "", err
		}
	}
	dir, err := os.MkdirTemp("", dirPrefix)
	if err != nil {
		return "", err
	}
	return dir, os.WriteFile(lock.Name(), []byte(dir), 0o600)
}

// clearStale ends and removes the daemons below a directory for temporary files: every one, as those of a Cluster take no
// lock and are named nowhere. dockerd's containerd has a pid file of its own and may outlive it.
func clearStale(parent string) error {
	dirs, err := filepath.Glob(filepath.Join(parent, dirPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		pids, err := filepath.Glob(filepath.Join(dir, "*.pid"))
		if err != nil {
			return err
		}
		for _, file := range pids {
			if err := endStale(file, dir); err != nil {
				return err
			}
		}
		if err := removeTree(dir); err != nil {
			return err
		}
	}
	return nil
}

// endStale ends the process of a pid file if it still is a daemon of that directory: the number may be another process's
// by now, so its command line has to name the directory.
func endStale(file, dir string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	line := func() []byte {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			return nil // the process is gone
		}
		return b
	}
	if !bytes.Contains(line(), []byte(dir)) {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	for deadline := time.Now().Add(time.Minute); bytes.Contains(line(), []byte(dir)); {
		if time.Now().After(deadline) {
			return fmt.Errorf("stale dockerd %d does not end", pid)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

// removeTree unmounts everything below a directory and removes it. A daemon that was killed leaves the file systems and
// network namespaces of its containers mounted; even one that ends in order may leave some.
func removeTree(dir string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	// mountinfo has the mount point in its fifth field, see proc_pid_mountinfo(5).
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for i := len(lines) - 1; i >= 0; i-- { // newest first
		fields := strings.Fields(lines[i])
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			if err := unix.Unmount(fields[4], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("unmount %s: %w", fields[4], err)
			}
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := os.RemoveAll(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
			return err // a shim that is still ending may write once more, hence the retries
		}
	}
}
