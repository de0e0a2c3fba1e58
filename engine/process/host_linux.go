package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Host runs builds on this machine. It is safe for concurrent use: builds, and steps of one build, run side by side.
// Open makes one; Close is called when every build is torn down.
type Host struct {
	cfg    Config // Limits is guarded by mu, the rest stays as it was opened
	report Report
	users  *users // nil: steps run as the runner's own user
	tree   *tree  // nil without cgroups
	// readOnly are the cgroup mounts that steps may not write to.
	readOnly []string
	// hasShm says that there is a /dev/shm to cover: a bind needs a target.
	hasShm bool

	// mu guards what follows. It and a build's mu are never held at once.
	mu     sync.Mutex
	builds map[string]*build // from Create to a Teardown without an error
}

// build is what this runner knows of a build beyond what the host itself tells. After a crash nothing of it is left,
// so what ends a build can do without: the nil *build is one of which nothing is known.
type build struct {
	Build
	user    *identity // nil: the runner's own user
	uidLock *os.File  // for a uid of a range

	// mu guards what follows and the runs of the steps.
	mu     sync.Mutex
	steps  map[string]*step
	closed bool // being torn down: nothing new is started
}

// step is one step of a build and the commands that were started for it.
type step struct {
	group  cgroup   // empty without cgroups
	v1     []cgroup // one for each controller
	memory cgroup   // the one that counts memory, of either version; empty if none does
	runs   []*run   // ended ones too, until release: what they left behind may still hold their pipes
}

// Open tries how builds can be contained on this host, best way first, each on a child process of its own, and
// returns a Host that uses the first that works. To try is the only way to know: kernel, mounts, containers around the
// runner and what its service manager delegates all have a say.
//
// It may move this process into a cgroup of its own below the present one (see makeRoom); Close moves it back. An
// error is a setting that cannot be had here: a *UserError, or a Config.Mode that does not work.
func Open(ctx context.Context, cfg Config) (*Host, error) {
	h := &Host{cfg: cfg.withDefaults(), builds: map[string]*build{}}
	if strings.ContainsRune(h.cfg.Name, '/') {
		return nil, fmt.Errorf("runner name %q: a slash cannot be part of a directory's name", h.cfg.Name)
	}
	var err error
	if h.users, err = usersOf(cfg.User, cfg.WithoutGroups); err != nil {
		return nil, err
	}
	trees, err := readHierarchies()
	if err != nil {
		return nil, err
	}
	if err := h.choose(ctx, trees); err != nil {
		return nil, err
	}
	h.readOnly = trees.points
	if info, err := os.Stat("/dev/shm"); err == nil {
		h.hasShm = info.IsDir()
	}
	h.probeMounts(ctx)
	h.describe()
	return h, nil
}

// choose sets the mode. A host's cgroup trees allow one mode at most, so what is left to try after that is Subreaper,
// which needs nothing of the host and is therefore not tried.
func (h *Host) choose(ctx context.Context, trees hierarchies) error {
	want := h.cfg.Mode
	if mode := trees.mode(); want == "" || want == mode {
		t, err := openTree(ctx, h.cfg, trees)
		if err == nil {
			h.tree, h.report.Mode = t, mode
			h.report.Cgroup, h.report.Controllers = string(t.folder), t.names()
			return nil
		}
		if want != "" {
			return fmt.Errorf("containment %s: %w", want, err)
		}
		h.report.Attempts = append(h.report.Attempts, Attempt{Mode: mode, Err: err})
	}
	if want != "" && want != Subreaper {
		return fmt.Errorf("containment %s: this host has %s", want, trees.mode())
	}
	h.report.Mode = Subreaper
	return nil
}

// mode is the mode that this host's cgroup trees allow, if any does.
func (t hierarchies) mode() Mode {
	root, hybrid := os.Geteuid() == 0, len(t.v1) > 0
	switch {
	case hybrid && root:
		return HybridRoot
	case hybrid:
		return HybridDelegated
	case root:
		return CgroupRoot
	}
	return CgroupDelegated
}

// Mode is how builds are contained.
func (h *Host) Mode() Mode { return h.report.Mode }

// Report is what Open found out.
func (h *Host) Report() Report { return h.report }

// SetLimits changes the limits of builds that are created from now on; those that run keep theirs. It returns a sentence
// for each that cannot be enforced here.
func (h *Host) SetLimits(l Limits) (warnings []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cfg.Limits = l
	return h.unenforced(l)
}

// Create prepares a build: its cgroup with the limits on it, its user, and the ownership of its directories. After an
// error, Teardown removes what it had made. Where each build has a uid of its own it fails when the range is used up.
// Root has mode 0700 when it is called; where the steps have a user and the host's mounts it stays the runner's, with 0711.
func (h *Host) Create(ctx context.Context, b Build) error {
	if !possible(b.Name) {
		return fmt.Errorf("create build %q: not a name that a cgroup can have", b.Name)
	}
	// Held throughout: of two calls with one name, one fails and leaves alone what the other makes.
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.builds[b.Name]; ok {
		return fmt.Errorf("create build %s: it exists", b.Name)
	}
	nb := &build{Build: b, steps: map[string]*step{}}
	var err error
	if nb.user, nb.uidLock, err = h.users.take(h.marker(nb)); err != nil {
		return fmt.Errorf("create build %s: %w", b.Name, err)
	}
	if err := h.prepare(nb); err != nil {
		return errors.Join(fmt.Errorf("create build %s: %w", b.Name, err), nb.unlock())
	}
	h.builds[b.Name] = nb
	return nil
}

func (h *Host) prepare(b *build) error {
	if err := b.makeDirs(); err != nil {
		return err
	}
	if err := h.giveAway(b); err != nil {
		return err
	}
	if h.tree == nil {
		return nil
	}
	return h.tree.createBuild(b.groupName(), h.cfg.Limits)
}

// makeDirs makes what is shown as /tmp and /dev/shm.
func (b *build) makeDirs() error {
	for _, dir := range []string{b.Tmp, b.shm()} {
		if dir == "" {
			continue
		}
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		// As open as the directories that they stand for; Root keeps the host's other users out.
		if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil {
			return err
		}
	}
	return nil
}

// giveAway gives the build's directories to its user. Root comes last: until then nobody but the runner can enter it, not
// even another build of the same user, and so nobody changes what the walk finds.
//
// In the host's mounts Root stays the runner's, only to be passed through: its owner could rename it in a sticky /tmp, and
// the runner would follow the link that took its place. So what lies in it keeps the host's other users out itself. Where
// the steps have mounts of their own they see another /tmp, and Root is a mount, which cannot be renamed.
func (h *Host) giveAway(b *build) error {
	if b.user == nil || b.Root == "" {
		return nil
	}
	shared := !h.report.PrivateMounts
	err := filepath.WalkDir(b.Root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == b.Root {
			return err
		}
		if shared && entry.IsDir() && filepath.Dir(path) == b.Root {
			err = os.Chmod(path, 0o700)
		}
		// Lchown: a symbolic link of DRONE_RUNNER_SYMLINKS points out of the build's directory.
		return errors.Join(err, os.Lchown(path, b.user.UID, b.user.GID))
	})
	if err != nil {
		return err
	}
	if shared {
		return os.Chmod(b.Root, 0o711)
	}
	return os.Lchown(b.Root, b.user.UID, b.user.GID)
}

// shm is the directory that the steps see as /dev/shm, so that what they leave there (POSIX shared memory and
// semaphores, see shm_overview(7)) goes with the build. Unlike the host's it is on disk.
func (b *build) shm() string {
	if b.Root == "" || b.Tmp == "" {
		return ""
	}
	return filepath.Join(b.Root, "shm")
}

// unlock gives the build's uid back: a flock ends with the descriptor. It may be called again.
func (b *build) unlock() error {
	if b.uidLock == nil {
		return nil
	}
	lock := b.uidLock
	b.uidLock = nil
	return lock.Close()
}

// Close removes the folder that held the builds' cgroups, unless some build still has one or another runner uses it.
// The Host is not used afterwards. It ends no build and waits for none.
func (h *Host) Close() error { return h.tree.close() }

// Owner is the user and group to whom files of the build must belong; the runner's own where no other is set, and for a
// build that is not known.
func (h *Host) Owner(build string) (uid, gid int) {
	if b := h.build(build); b != nil && b.user != nil {
		return b.user.UID, b.user.GID
	}
	return os.Geteuid(), os.Getegid()
}

// Owns says whether the user's processes and directories may be those of builds. Of a range it is every uid, whether or
// not a build has it now: a crash may have left it.
func (h *Host) Owns(uid int) bool {
	switch u := h.users; {
	case uid == os.Geteuid():
		return true
	case u == nil:
		return false
	case u.shared != nil:
		return uid == u.shared.UID
	default:
		return u.first <= uid && uid <= u.last
	}
}

func (h *Host) build(name string) *build {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.builds[name]
}
