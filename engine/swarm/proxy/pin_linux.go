package proxy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// pins are bind mounts of what lies in the build's directories, at paths that only the runner can change.
//
// A build can replace a directory of its own by a link to / between the moment at which its path is judged and the
// one at which the daemon mounts it. The daemon therefore never gets such a path: it gets that of a pin, which was
// made from a file descriptor that was opened without leaving the build's directories.
//
// Pins live until Unpin, after the build: the daemon mounts them again whenever it starts a container anew.
type pins struct {
	dir       string   // beside the socket, see PinDir
	namespace string   // the daemon's, see Config
	roots     []string // the build's directories
	uid, gid  int      // whose the directories are that a bind makes

	mu     sync.Mutex // guards what follows, and is held while a pin is made
	made   map[inode]string
	number int // of the last pin; it is the pin's name
}

// inode is what a pin shows: the same path can be something else later.
type inode struct {
	path     string
	dev, ino uint64
}

// newPins keeps the pins of a build beside its socket.
func newPins(cfg Config) *pins {
	p := &pins{dir: PinDir(cfg.Socket), namespace: cfg.Namespace, uid: cfg.UID, gid: cfg.GID, made: map[inode]string{}}
	for _, root := range []string{cfg.Root, cfg.Workspace, cfg.Tmp} {
		if root != "" {
			p.roots = append(p.roots, filepath.Clean(root))
		}
	}
	return p
}

// holds says whether a path is a pin of this build.
func (p *pins) holds(path string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, target := range p.made {
		if target == path {
			return true
		}
	}
	return false
}

// pin returns the path to give to the daemon for a path in the build's directories. It needs root, for mount(2), and
// fails with a Refusal when the path leads elsewhere; with create it makes what is missing.
func (p *pins) pin(path string, create bool) (target string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	err = inside(p.namespace, func() error {
		target, err = p.make(path, create)
		return err
	})
	return target, err
}

// make finds or makes a pin, as the daemon would see it: it runs in the daemon's mount namespace.
func (p *pins) make(path string, create bool) (string, error) {
	fd, err := p.open(path, create)
	if errors.Is(err, fs.ErrNotExist) {
		return "", missing(path)
	}
	if err != nil {
		return "", &Refusal{"host-mounts", fmt.Sprintf("%s leads out of the build's directories (%v)", path, err), varMounts}
	}
	defer func() { _ = unix.Close(fd) }() // only names a file: nothing can be lost
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return "", err
	}
	key := inode{path, uint64(stat.Dev), stat.Ino}
	if target := p.made[key]; target != "" {
		return target, nil
	}
	p.number++
	target := filepath.Join(p.dir, strconv.Itoa(p.number))
	if err := p.mount(fd, target, stat.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return "", fmt.Errorf("pin %s: %w", path, err)
	}
	p.made[key] = target
	return target, nil
}

// mount makes the pin: a file or a directory as the origin is, with the origin mounted on it. Without set-user-id and
// devices, as a container, where the build is root, could make both in its files.
func (p *pins) mount(fd int, target string, dir bool) error {
	err := os.MkdirAll(p.dir, 0o700) // only the daemon comes this way: another build must not get to this one's files
	if err == nil && dir {
		err = os.Mkdir(target, 0o700)
	} else if err == nil {
		err = os.WriteFile(target, nil, 0o600)
	}
	if err != nil {
		return err
	}
	// The descriptor, not the path: it stays what was judged, whatever the build does to the path.
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	// A bind mount takes over its origin's flags; others take a second call (mount(2), MS_REMOUNT | MS_BIND).
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_NOSUID | unix.MS_NODEV)
	return unix.Mount("", target, "", flags, "")
}

// open opens a path without leaving the root that holds it. The kernel follows links, but none that lead out: see
// RESOLVE_BENEATH in openat2(2), Linux 5.6. O_PATH opens without the side effects of opening, a FIFO or a device too.
func (p *pins) open(path string, create bool) (int, error) {
	for _, root := range p.roots {
		if !within(path, root) {
			continue
		}
		// NOFOLLOW: the roots are the runner's own directories, never links.
		base, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		fd, err := p.openBelow(base, strings.TrimPrefix(strings.TrimPrefix(path, root), "/"), create)
		return fd, errors.Join(err, unix.Close(base))
	}
	return -1, errors.New("not below a directory of the build")
}

// openBelow opens a relative path below a directory. It makes missing directories when asked to, as the daemon would, but
// for the build's user: the daemon's would be root's, and a step could not write there.
func (p *pins) openBelow(base int, rel string, create bool) (int, error) {
	if rel == "" {
		rel = "."
	}
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(base, rel, how)
	if !create || !errors.Is(err, fs.ErrNotExist) {
		return fd, err
	}
	parent, err := p.openBelow(base, filepath.Dir(rel), true)
	if err != nil {
		return -1, err
	}
	name := filepath.Base(rel)
	// Another call of the build may make it at the same time: then it is there, which is as good.
	err = unix.Mkdirat(parent, name, 0o755)
	if err == nil && os.Geteuid() == 0 {
		err = unix.Fchownat(parent, name, p.uid, p.gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err := errors.Join(err, unix.Close(parent)); err != nil && !errors.Is(err, fs.ErrExist) {
		return -1, err
	}
	return unix.Openat2(base, rel, how)
}

// Unpin removes the pins of a socket's build, those of a runner that was killed too. No container of the build may be
// left. It is safe to repeat; what lies behind the pins is not touched.
func Unpin(socket, namespace string) error {
	if _, err := os.Lstat(PinDir(socket)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return inside(namespace, func() error { return unpin(PinDir(socket)) })
}

// unpin removes the pins in a directory, and the directory. What cannot be unmounted stays, and so does the directory: the
// next Builds finds it.
func unpin(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		target := filepath.Join(dir, e.Name())
		if unmountErr := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); unmountErr != nil &&
			!errors.Is(unmountErr, unix.EINVAL) { // EINVAL: not mounted
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", target, unmountErr))
			continue
		}
		err = errors.Join(err, os.Remove(target)) // never below: what was pinned is not ours to remove
	}
	if err != nil {
		return err
	}
	return os.Remove(dir)
}
