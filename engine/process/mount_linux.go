package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mountPlan is the view of the file system that the steps of one build share. Each command makes it anew in a
// namespace of its own, out of the same directories, so that no namespace has to be kept alive, by whom or what
// ever, and a mount that a step makes ends with it.
type mountPlan struct {
	// Root is the build's directory: it stays visible where it is, even below /tmp, where it lies unless DRONE_RUNNER_ROOT
	// says otherwise.
	Root string
	// Tmp and Shm are shown as /tmp and /dev/shm; empty leaves the host's.
	Tmp, Shm string
	Binds    []Bind
	// ReadOnly are mount points (of cgroup trees) that become read-only. A step that is root can undo that; for any other
	// it is what keeps it from moving itself out of its cgroup.
	ReadOnly []string
	// Restricted makes what the build can write to nosuid and nodev. Not for a step that is root: it may unpack a whole
	// system and work in it.
	Restricted bool
}

// apply moves the calling thread to a new mount namespace. A nil plan leaves it where it is. The caller has locked the
// thread and becomes the command on it; the process's other threads stay behind and end with execve(2).
func (p *mountPlan) apply() error {
	if p == nil {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	// Slave: what the host mounts or unmounts later is followed, what happens here stays here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := ownIPC(); err != nil {
		return err
	}
	for _, point := range p.ReadOnly {
		if err := addFlags(point, unix.MS_RDONLY); err != nil {
			return err
		}
	}
	return p.bind()
}

// ownIPC gives the command System V and POSIX message queues, semaphores and shared memory of its own: the host's outlive
// processes, and nobody would find what a build leaves of them. A namespace's objects go with its last process.
func ownIPC() error {
	err := unix.Unshare(unix.CLONE_NEWIPC)
	if errors.Is(err, unix.EINVAL) {
		return nil // a kernel without them (CONFIG_IPC_NS)
	}
	if err != nil {
		return fmt.Errorf("make IPC namespace: %w", err)
	}
	// What is mounted there shows the queues of the host. Where there is nothing to cover, or no right to, the calls
	// (mq_open(3)) lead to the namespace's queues all the same.
	_ = unix.Mount("mqueue", "/dev/mqueue", "mqueue", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	return nil
}

// bind opens every source before the first mount hides any of them. The order of the mounts matters as well: Root comes
// after /tmp, in which it may lie, and the caller's binds after both.
func (p *mountPlan) bind() error {
	own := []Bind{}
	if p.Shm != "" {
		own = append(own, Bind{Source: p.Shm, Target: "/dev/shm"})
	}
	if p.Tmp != "" {
		own = append(own, Bind{Source: p.Tmp, Target: "/tmp"})
	}
	// Over itself: to bring it back from below /tmp, or to have a mount that can be restricted.
	if p.Tmp != "" && below(p.Root, "/tmp") || p.Restricted && p.Root != "" {
		own = append(own, Bind{Source: p.Root, Target: p.Root})
	}
	binds := append(own, p.Binds...)
	sources := make([]int, len(binds))
	for i, b := range binds {
		fd, err := openSource(b.Source)
		if err != nil {
			return fmt.Errorf("bind over %s: %w", b.Target, err)
		}
		sources[i] = fd
	}
	var failed error
	for i, b := range binds {
		var flags uintptr
		if b.ReadOnly {
			flags = unix.MS_RDONLY
		}
		if p.Restricted && i < len(own) {
			flags |= unix.MS_NOSUID | unix.MS_NODEV
		}
		if failed == nil {
			failed = b.mount(sources[i], p.Tmp != "" && b.Target != "/tmp" && below(b.Target, "/tmp"), flags)
		}
		failed = errors.Join(failed, unix.Close(sources[i]))
	}
	return failed
}

// openSource opens what is to be mounted. A symbolic link is refused: the build's directory is its user's, who could lead
// root by one to what that user cannot get at.
func openSource(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		err = errors.New("it is a symbolic link")
	}
	if err != nil {
		return 0, errors.Join(&fs.PathError{Op: "open", Path: path, Err: err}, unix.Close(fd))
	}
	return fd, nil
}

// mount shows the open source at the target. Below a /tmp of our own the target is made first: what the host has there is
// hidden. Recursive, so that what is mounted below the source comes along.
func (b Bind) mount(source int, inOwnTmp bool, flags uintptr) error {
	if inOwnTmp {
		if err := makeTarget(source, b.Target); err != nil {
			return fmt.Errorf("bind over %s: %w", b.Target, err)
		}
	}
	bind := func(at string) error {
		return unix.Mount("/proc/self/fd/"+itoa(source), at, "", unix.MS_BIND|unix.MS_REC, "")
	}
	if err := b.at(inOwnTmp, bind); err != nil {
		return fmt.Errorf("bind %s over %s: %w", b.Source, b.Target, err)
	}
	if flags == 0 {
		return nil
	}
	// A bind takes over its source's flags whatever mount(2) is told; they are changed in a second call. The target is
	// looked up again, for it is the new mount now.
	if err := b.at(inOwnTmp, func(at string) error { return addFlags(at, flags) }); err != nil {
		return fmt.Errorf("bind over %s: %w", b.Target, err)
	}
	return nil
}

// at opens the target and calls do with a path that stays what was opened. In our own /tmp no link is followed: other
// processes of the build could put one there at any moment, and what is mounted over /proc, for one, would decide what the
// next bind shows.
func (b Bind) at(inOwnTmp bool, do func(path string) error) error {
	base, name, how := unix.AT_FDCWD, b.Target, unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC}
	if inOwnTmp {
		tmp, err := unix.Open("/tmp", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(tmp) }() // it only names a directory
		base, name, how.Resolve = tmp, strings.TrimPrefix(b.Target, "/tmp/"), unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS
	}
	fd, err := unix.Openat2(base, name, &how)
	if errors.Is(err, unix.ENOSYS) { // before Linux 5.6, where a moment remains in which a link can be put there
		return do(b.Target)
	}
	if err != nil {
		return err
	}
	return errors.Join(do("/proc/self/fd/"+itoa(fd)), unix.Close(fd))
}

// makeTarget creates what the source can be mounted on: a directory or a file. It stays in the build's /tmp and goes with
// that; links of an earlier step lead nowhere else.
func makeTarget(source int, target string) (err error) {
	var st unix.Stat_t
	if err := unix.Fstat(source, &st); err != nil {
		return err
	}
	tmp, err := os.OpenRoot("/tmp")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tmp.Close()) }()
	name := strings.TrimPrefix(target, "/tmp/")
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return tmp.MkdirAll(name, 0o755)
	}
	if err := tmp.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := tmp.OpenFile(name, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// addFlags restricts one mount for this namespace (read-only, nosuid, nodev) and leaves its other flags alone: in a user
// namespace the kernel refuses a remount that drops one which the mount came with (mount_namespaces(7)).
func addFlags(point string, flags uintptr) error {
	// Of these three, the old flags and the new attributes have the same numbers.
	err := unix.MountSetattr(unix.AT_FDCWD, point, 0, &unix.MountAttr{Attr_set: uint64(flags)})
	if errors.Is(err, unix.ENOSYS) { // before Linux 5.12
		var st unix.Statfs_t
		if err = unix.Statfs(point, &st); err == nil {
			keep := uintptr(st.Flags) & (unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_RELATIME)
			err = unix.Mount("", point, "", unix.MS_REMOUNT|unix.MS_BIND|flags|keep, "")
		}
	}
	if err != nil {
		return fmt.Errorf("restrict the mount %s: %w", point, err)
	}
	return nil
}

// below says that path is dir or lies in it. It compares names and follows no link.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
