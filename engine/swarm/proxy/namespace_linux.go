package proxy

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace is the mount namespace of the daemon behind a connection, as a path below /proc, or empty when it is the
// runner's own. The kernel names the process that called listen(2) on the socket (SO_PEERCRED in unix(7)): dockerd, or
// with docker.socket systemd, whose namespace is dockerd's too unless docker.service says otherwise.
func Namespace(conn net.Conn) (string, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return "", nil // a daemon elsewhere
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return "", err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, credErr); err != nil {
		return "", fmt.Errorf("ask who listens on Docker's socket: %w", err)
	}
	theirs := fmt.Sprintf("/proc/%d/ns/mnt", cred.Pid)
	id, err := os.Readlink(theirs)
	if err != nil {
		return "", fmt.Errorf("look at the daemon's mount namespace: %w", err)
	}
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil || own == id {
		return "", err
	}
	return theirs, nil
}

// inside calls a function in the mount namespace of the daemon, where that is not the runner's own: a mount that the
// runner makes for itself alone is not there for containers. The call runs on a thread of its own and is waited for.
func inside(namespace string, do func() error) error {
	if namespace == "" {
		return do()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocks it: a thread that has changed its namespace ends with its goroutine
		err := enter(namespace)
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// enter moves the calling thread into a mount namespace, for good. It takes CAP_SYS_ADMIN and CAP_SYS_CHROOT, see setns(2).
func enter(namespace string) error {
	fd, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("enter the daemon's mount namespace: %w", err)
	}
	err = unix.Unshare(unix.CLONE_FS) // the kernel wants a thread that shares its root and directory with nobody
	if err == nil {
		err = unix.Setns(fd, unix.CLONE_NEWNS)
	}
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("enter the daemon's mount namespace: %w", err)
	}
	return nil
}
