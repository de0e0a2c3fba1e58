package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// uidLocks is where a file per uid of a range is locked by the build that has it. All runners of a host share it. It is
// in /run, which a restart of the host empties: no process of a build is there then either.
const uidLocks = "/run/cc-ci-uids"

// assume makes the calling process this user, for good. Nil stays who it is. The order matters: without root's uid
// neither group can be changed any more. All three ids of a kind are set, or the saved one would lead back. From root to
// another uid the kernel clears all capabilities as well (capabilities(7)).
func (who *identity) assume() error {
	if who == nil {
		return nil
	}
	if err := syscall.Setgroups(who.Groups); err != nil {
		return fmt.Errorf("become uid %d: set groups: %w", who.UID, err)
	}
	if err := syscall.Setresgid(who.GID, who.GID, who.GID); err != nil {
		return fmt.Errorf("become uid %d: set gid: %w", who.UID, err)
	}
	if err := syscall.Setresuid(who.UID, who.UID, who.UID); err != nil {
		return fmt.Errorf("become uid %d: %w", who.UID, err)
	}
	return nil
}

// take returns the identity for one more build, whose marker is given. The lock, if any, is released by closing it. It
// takes the first free uid, so a host sees few of the range; one that an earlier build left processes with is passed over.
func (u *users) take(marker string) (*identity, *os.File, error) {
	if u == nil {
		return nil, nil, nil
	}
	if u.shared != nil {
		return u.shared, nil, nil
	}
	if err := os.Mkdir(uidLocks, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, nil, fmt.Errorf("lock a uid: %w", err)
	}
	for uid := u.first; uid <= u.last; uid++ {
		lock, err := lockUID(uid, marker)
		if err != nil {
			return nil, nil, fmt.Errorf("lock uid %d: %w", uid, err)
		}
		if lock != nil {
			return &identity{UID: uid, GID: uid, Groups: []int{uid}}, lock, nil
		}
	}
	return nil, nil, fmt.Errorf("no uid of the range %d-%d is free: widen it or lower the capacity", u.first, u.last)
}

// lockUID returns nil if another build has the uid, or processes of an earlier one still do. The file says whose the
// uid is, also to a runner that is started after a crash.
func lockUID(uid int, marker string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(uidLocks, itoa(uid)), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, f.Close()
	}
	var used []proc
	if err == nil {
		used, err = procsOf(uid)
	}
	if err != nil || len(used) > 0 {
		return nil, errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, marker)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// lockedUIDs are the uids of ranges that builds have or, before a crash, had, by the builds' markers. The locks themselves
// are not asked for: after a crash nobody holds them, and what a build started as its uid may still be there.
func lockedUIDs() (map[string]int, error) {
	entries, err := os.ReadDir(uidLocks)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil, nil // no runner here has a range, or not this one
		}
		return nil, err
	}
	uids := map[string]int{}
	for _, e := range entries {
		marker, err := os.ReadFile(filepath.Join(uidLocks, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if uid, err := strconv.Atoi(e.Name()); err == nil && len(marker) > 0 {
			uids[string(marker)] = uid
		}
	}
	return uids, nil
}

// releaseUID forgets that the build had a uid. It comes last: until then a scan for the build finds all of its processes
// by the uid, also those that have cleared their environment.
func releaseUID(marker string) error {
	uids, err := lockedUIDs()
	if err != nil || uids[marker] == 0 {
		return err
	}
	return os.Truncate(filepath.Join(uidLocks, itoa(uids[marker])), 0)
}

// procsOf are the living processes of a user. The owner of /proc/PID would not do: it is root for a process that
// made itself non-dumpable.
func procsOf(uid int) ([]proc, error) {
	var found []proc
	err := visitAll(func(p proc) {
		if p.ids()[0] == uid {
			found = append(found, p)
		}
	})
	return found, err
}

// ids are the users of the process: the real, effective and saved one and that of its file accesses (proc(5)), as this
// process's user namespace has them. Those of one that is gone are -1.
func (p proc) ids() [4]int {
	ids := [4]int{-1, -1, -1, -1}
	text, err := os.ReadFile(procPath(p.pid, "status"))
	if err != nil {
		return ids
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 5 && fields[0] == "Uid:" {
			for i, field := range fields[1:] {
				if uid, err := strconv.Atoi(field); err == nil {
					ids[i] = uid
				}
			}
		}
	}
	return ids
}
