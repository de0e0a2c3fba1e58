package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroup is the directory of one cgroup, of either version. Its methods keep nothing: each asks the kernel anew, for
// steps, other runners and administrators change the tree too. The files are described in the kernel's
// Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
type cgroup string

// child is the cgroup of that name right below, whether or not it exists.
func (g cgroup) child(name string) cgroup { return cgroup(filepath.Join(string(g), name)) }

func (g cgroup) name() string { return filepath.Base(string(g)) }

// write sets one of the cgroup's files. They cannot be created: a missing one means a kernel, or a cgroup, without it.
func (g cgroup) write(file, value string) error {
	f, err := os.OpenFile(filepath.Join(string(g), file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// read is what the file says, without the line end.
func (g cgroup) read(file string) (string, error) {
	b, err := os.ReadFile(filepath.Join(string(g), file))
	return strings.TrimSpace(string(b)), err
}

// field is the number that follows key in a flat-keyed file such as cpu.stat.
func (g cgroup) field(file, key string) (int64, bool) {
	text, err := g.read(file)
	if err != nil {
		return 0, false
	}
	return fieldOf(text, key)
}

// fieldOf is field on what was read.
func fieldOf(text, key string) (int64, bool) {
	for line := range strings.Lines(text) {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == key {
			n, err := strconv.ParseInt(v, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// number is what a file holds that is nothing but a number; false where it is missing or says "max".
func (g cgroup) number(file string) (int64, bool) {
	text, err := g.read(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

func (g cgroup) exists() bool {
	info, err := os.Stat(string(g))
	return err == nil && info.IsDir()
}

// create makes the cgroup unless it is there. Whoever makes a cgroup owns its files, cgroup.kill too, which the kernel
// does not count among those to hand over (/sys/kernel/cgroup/delegate): so a runner that is not root makes each itself.
func (g cgroup) create() error {
	if err := os.Mkdir(string(g), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// children are the cgroups right below this one; a cgroup that is gone has none.
func (g cgroup) children() ([]cgroup, error) {
	entries, err := os.ReadDir(string(g))
	if err != nil {
		if gone(err) {
			return nil, nil
		}
		return nil, err
	}
	var below []cgroup
	for _, e := range entries {
		if e.IsDir() {
			below = append(below, g.child(e.Name()))
		}
	}
	return below, nil
}

// ownPIDs are the processes right in this cgroup, zombies not among them. A zero is a process of a PID namespace that
// cannot be seen from here: it has no number to be named by, but cgroup.kill reaches it.
func (g cgroup) ownPIDs() ([]int, error) {
	text, err := g.read("cgroup.procs")
	if err != nil && !gone(err) && !errors.Is(err, unix.EOPNOTSUPP) { // EOPNOTSUPP: made a threaded cgroup by a step
		return nil, err
	}
	var all []int
	for _, word := range strings.Fields(text) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			all = append(all, pid)
		}
	}
	return all, nil
}

// pids are the processes of this cgroup and of all below it: a step may have made cgroups of its own. It is no snapshot;
// one that forks while it is read can be missed, so nothing is concluded from an empty answer (see waitEmpty).
func (g cgroup) pids() ([]int, error) {
	all, err := g.ownPIDs()
	if err != nil {
		return nil, err
	}
	below, err := g.children()
	for _, child := range below {
		pids, childErr := child.pids()
		all, err = append(all, pids...), errors.Join(err, childErr)
	}
	return all, err
}

// kill ends every process in this cgroup and below it, whatever its user, and including those that are being forked.
func (g cgroup) kill() error {
	err := g.write("cgroup.kill", "1")
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case !g.exists():
		return nil
	}
	return g.freezeAndKill() // before Linux 5.14
}

// freezeAndKill does what cgroup.kill does on kernels that lack it: what is frozen cannot fork while it is killed.
func (g cgroup) freezeAndKill() error {
	if err := g.write("cgroup.freeze", "1"); err != nil {
		return err
	}
	// A process that cannot be frozen now is in the kernel's hands, and does not fork there either.
	// Whether all were frozen in time is not asked: the caller waits until all are dead.
	_, err := g.waitEvent(nil, "frozen", 1, time.Second)
	pids, listErr := g.pids()
	err = errors.Join(err, listErr)
	for _, pid := range pids {
		if killErr := unix.Kill(pid, unix.SIGKILL); !errors.Is(killErr, unix.ESRCH) {
			err = errors.Join(err, killErr)
		}
	}
	return errors.Join(err, g.write("cgroup.freeze", "0"))
}

// waitEmpty returns true as soon as no process is left in the subtree, and false when limit ends first or done is closed.
func (g cgroup) waitEmpty(done <-chan struct{}, limit time.Duration) (bool, error) {
	return g.waitEvent(done, "populated", 0, limit)
}

// waitEvent waits until cgroup.events says so of the key; false means that limit or done ended first. A cgroup that is
// gone is as empty as can be. The kernel counts whole subtrees: populated is 0 when none below has a process either.
func (g cgroup) waitEvent(done <-chan struct{}, key string, want int64, limit time.Duration) (bool, error) {
	fd, err := unix.Open(filepath.Join(string(g), "cgroup.events"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		if gone(err) {
			return true, nil
		}
		return false, &fs.PathError{Op: "open", Path: string(g) + "/cgroup.events", Err: err}
	}
	events := os.NewFile(uintptr(fd), "cgroup.events")
	defer discard(events)
	text := make([]byte, 256)
	for deadline := time.Now().Add(limit); ; {
		// Through the descriptor that is polled: poll returns at once for as long as that one has not read the change.
		n, _ := unix.Pread(fd, text, 0) // fails when the cgroup is gone
		value, ok := fieldOf(string(text[:max(n, 0)]), key)
		if ok && value == want || !ok && !g.exists() {
			return true, nil
		}
		left := time.Until(deadline)
		if left <= 0 || closed(done) {
			return false, nil
		}
		// The kernel wakes us at every change of the file; the timeout is only for done.
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, int(min(left, 50*time.Millisecond)/time.Millisecond)+1); err != nil && err != unix.EINTR {
			return false, fmt.Errorf("wait for %s to be %s %d: %w", g, key, want, err)
		}
	}
}

// remove deletes the cgroup and those below it, deepest first: rmdir(2) is the only way, the files in the directory
// cannot be deleted. It fails with EBUSY while a process is inside.
func (g cgroup) remove() error {
	below, err := g.children()
	for _, child := range below {
		err = errors.Join(err, child.remove())
	}
	if rmErr := unix.Rmdir(string(g)); rmErr != nil && !gone(rmErr) {
		err = errors.Join(err, &fs.PathError{Op: "rmdir", Path: string(g), Err: rmErr})
	}
	return err
}

// gone says that the error means no such cgroup: ENODEV is what a file of a removed cgroup answers.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}
