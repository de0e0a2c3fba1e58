package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// proc is one process as /proc shows it. PID and start together never come again, a PID alone does.
type proc struct {
	pid, ppid int
	start     uint64 // in clock ticks after boot
	zombie    bool
}

// clockTick is USER_HZ, which is 100 on every architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// readProc looks one process up; false means that there is none (any more). The fields are those of /proc/PID/stat
// (proc(5)), counted from the state, which is the third: ppid is 4, starttime 22.
func readProc(pid int) (proc, bool) {
	stat, err := readWhole(procPath(pid, "stat"))
	if err != nil {
		return proc{}, false
	}
	// The second field is the command in brackets and may hold anything, brackets too.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return proc{}, false
	}
	ppid, err1 := strconv.Atoi(string(fields[1]))
	start, err2 := strconv.ParseUint(string(fields[19]), 10, 64)
	state := fields[0][0]
	return proc{pid: pid, ppid: ppid, start: start, zombie: state == 'Z' || state == 'X'}, err1 == nil && err2 == nil
}

// visitAll visits every living process of the host.
func visitAll(visit func(proc)) error {
	return visitThose(func(int) bool { return true }, visit)
}

// visitThose visits the living processes of the host whose PID is worth more than a first look: on a host with a thousand
// processes it is the reading of files that takes the time.
func visitThose(worth func(pid int) bool, visit func(proc)) error {
	dir, err := os.Open("/proc")
	if err != nil {
		return err
	}
	defer discard(dir)
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && worth(pid) {
			if p, ok := readProc(pid); ok && !p.zombie {
				visit(p)
			}
		}
	}
	return nil
}

// readWhole is os.ReadFile without what it does for files that can be waited for: a teardown reads hundreds of files of
// /proc, and this takes a third of the calls.
func readWhole(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	for err == unix.EINTR {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	text := make([]byte, 0, 4096)
	for {
		n, err := unix.Read(fd, text[len(text):cap(text)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, errors.Join(&os.PathError{Op: "read", Path: path, Err: err}, unix.Close(fd))
		case n == 0:
			return text, unix.Close(fd)
		default:
			text = text[:len(text)+n]
		}
		if len(text) == cap(text) {
			text = slices.Grow(text, len(text))
		}
	}
}

// same says that the PID still belongs to this process and that it is alive.
func (p proc) same() bool {
	now, ok := readProc(p.pid)
	return ok && now.start == p.start && !now.zombie
}

// signal reaches this process only, never a later one with its PID. A process that is gone is no error; EPERM, for one of
// another user's, is. Before Linux 5.3, which has no pidfd_open(2), a moment remains in which the PID can change hands.
func (p proc) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ENOSYS) {
		if !p.same() {
			return nil
		}
		err = unix.Kill(p.pid, sig)
	} else if err == nil {
		// From here on the descriptor stands for one process; same tells whether it is the one that we mean.
		if p.same() {
			err = unix.PidfdSendSignal(fd, sig, nil, 0)
		}
		err = errors.Join(err, unix.Close(fd))
	}
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// marker returns the builds named in the process's environment: by MarkerEnv and by KeptMarkerEnv. The kernel shows what
// the process was started with; it can write over that, as it can start a child with no environment at all. Hence the
// scans by cgroup, by parent and by uid beside this one.
func (p proc) marker() (build, kept string) {
	environ, err := readWhole(procPath(p.pid, "environ"))
	if err != nil {
		return "", "" // gone, or another user's
	}
	for assignment := range bytes.SplitSeq(environ, []byte{0}) {
		if v, ok := bytes.CutPrefix(assignment, []byte(MarkerEnv+"=")); ok {
			build = string(v)
		}
		if v, ok := bytes.CutPrefix(assignment, []byte(KeptMarkerEnv+"=")); ok {
			kept = string(v)
		}
	}
	return build, kept
}

// args is the process's command line; nil for a kernel thread and for one that is gone.
func (p proc) args() []string {
	cmdline, err := os.ReadFile(procPath(p.pid, "cmdline"))
	if err != nil || len(cmdline) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
}

// item describes the process to an operator. Arguments may be secrets and are not shown, except for the script that
// an interpreter runs.
func (p proc) item() leftover.Item {
	command := "?"
	if args := p.args(); len(args) > 0 {
		command = args[0]
		if len(args) > 1 && p.isFile(args[1]) {
			command += " " + args[1]
		}
	} else if comm, err := os.ReadFile(procPath(p.pid, "comm")); err == nil {
		command = strings.TrimSpace(string(comm))
	}
	if len(command) > 120 {
		command = command[:120] + "..."
	}
	detail := strconv.Quote(command)
	detail = detail[1 : len(detail)-1] // no control character of a command line reaches a log
	if age, ok := p.age(); ok {
		detail = fmt.Sprintf("%s, running for %s", detail, age.Round(100*time.Millisecond))
	}
	return leftover.Item{Kind: "process", Name: itoa(p.pid), Detail: detail}
}

// resolveCached is RESOLVE_CACHED of linux/openat2.h, which golang.org/x/sys does not have.
const resolveCached = 0x20

// isFile says that the process's argument names a file, seen from the process's directory and with this process's mounts.
// Only what the kernel has in its cache is looked at (openat2(2); never before Linux 5.12): a step may have left a file system
// behind that answers nobody (FUSE, NFS), for which no context ends a stat(2), and a script that runs was just opened.
func (p proc) isFile(name string) bool {
	if name == "" || name[0] == '-' {
		return false
	}
	if !filepath.IsAbs(name) {
		dir, err := os.Readlink(procPath(p.pid, "cwd")) // a path through the link itself is in no cache
		if err != nil {
			return false
		}
		name = filepath.Join(dir, name)
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolveCached})
	if err != nil {
		return false
	}
	var st unix.Statx_t
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	return errors.Join(err, unix.Close(fd)) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// age is how long the process has been running, to a tick. A clock of the host's boot is compared with another, so setting
// the time does not change it.
func (p proc) age() (time.Duration, bool) {
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, false
	}
	first, _, _ := strings.Cut(string(uptime), " ")
	seconds, err := strconv.ParseFloat(first, 64)
	age := time.Duration(seconds*float64(time.Second)) - time.Duration(p.start)*clockTick
	return max(age, 0), err == nil
}

// items describes the processes that are still alive.
func items(pids []int) []leftover.Item {
	var found []leftover.Item
	for _, pid := range pids {
		if p, ok := readProc(pid); ok && !p.zombie {
			found = append(found, p.item())
		}
	}
	return found
}

func procPath(pid int, file string) string { return "/proc/" + itoa(pid) + "/" + file }
