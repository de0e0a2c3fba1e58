package process

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// tree is where the cgroups of this runner's builds are made: FOLDER/BUILD/STEP in the version 2 tree, and the same
// in each version 1 tree that limits or counts.
type tree struct {
	// base is the top of what was handed to the runner, folder the one below it that holds the builds.
	base, folder cgroup
	// leaf is where the runner had to move to, if it had to.
	leaf cgroup
	// controllers of version 2 that the builds get: those that the base has and hands down.
	controllers []string
	// v1 is the folder by controller, for those that no version 2 tree has.
	v1 map[string]cgroup
	// earlier are folders of this name elsewhere in the version 2 and version 1 trees, which a start under another service
	// or from another shell put there, and those of Config.Ended: what they left must be found from here.
	earlier, earlierV1 []cgroup
	// locks keep other runners of this name, in containers of this host for one, from taking our folders for left
	// behind.
	locks map[cgroup]*os.File
	// problems are why a controller is not available.
	problems []string
}

// Names in the folder that are no builds, and what a build's cgroup is called if its processes are to be kept: while
// the build runs, and afterwards. The name alone tells a runner that was restarted.
const (
	probePrefix = "probe-"
	keepSuffix  = ".keep"
	keptSuffix  = ".kept"
	leafSuffix  = ".runner"
)

// reserved says that the name would be taken for something else than a build.
func reserved(name string) bool {
	return strings.HasPrefix(name, probePrefix) || strings.HasSuffix(name, keepSuffix) || strings.HasSuffix(name, keptSuffix)
}

// possible says that a build can have the name: it is a directory's, right below the folder, and stands for nothing else.
func possible(name string) bool {
	return name != "" && !strings.ContainsRune(name, '/') && !strings.HasPrefix(name, ".") && !reserved(name)
}

// groupName is the build's name in the folder.
func (b *build) groupName() string {
	if b.Keep {
		return b.Name + keepSuffix
	}
	return b.Name
}

// stepName turns any text into a directory's name of its own: the hash keeps apart what the cleaning makes equal. The
// prefix keeps it from being a name of the kernel's files, such as cgroup.procs.
func stepName(step string) string {
	clean := strings.Map(func(r rune) rune {
		if r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, step)
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(step)) // a hash never fails
	return fmt.Sprintf("step-%.40s-%08x", clean, hash.Sum32())
}

// openTree makes the folder and proves on a child process that what is in it can be killed. An error means that this way
// of containment does not work; that a limit or a count is not to be had is only a problem to be told.
func openTree(ctx context.Context, cfg Config, trees hierarchies) (*tree, error) {
	if trees.unified == nil {
		return nil, errors.New("no cgroup2 file system is mounted")
	}
	if trees.unified.own == "" {
		return nil, errors.New("the runner's own cgroup is not visible in " + trees.unified.mount)
	}
	base := delegatedBase(cgroup(trees.unified.own), trees.unified.mount, cfg.Name)
	t := &tree{base: base, folder: base.child(cfg.Name), v1: map[string]cgroup{}}
	if err := t.folder.create(); err != nil {
		return nil, err
	}
	if err := probeKill(ctx, cfg.Helper, t.folder); err != nil {
		return nil, err
	}
	t.enableControllers()
	if !t.lock(t.folder) {
		t.problems = append(t.problems, fmt.Sprintf("another runner uses %s too: give one of them another name", t.folder))
	}
	ours := func(name string) bool {
		return name == cfg.Name || cfg.Ended != "" && strings.HasPrefix(name, cfg.Ended)
	}
	t.earlier = t.abandoned(trees.unified.mount, t.folder, ours)
	for _, h := range trees.v1 {
		t.openV1(h, cfg.Name)
		t.earlierV1 = append(t.earlierV1, t.abandoned(h.mount, t.v1[h.controllers[0]], ours)...)
	}
	return t, nil
}

// abandoned are the folders elsewhere in the tree that are ours by their names and that no living runner uses. What
// disappears while it looks is of no interest. It keeps the locks, so that no other runner ends the same builds.
func (t *tree) abandoned(mount string, current cgroup, ours func(name string) bool) []cgroup {
	var found []cgroup
	_ = filepath.WalkDir(mount, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() || !ours(entry.Name()) || path == mount {
			return nil
		}
		if g := cgroup(path); g != current && t.lock(g) {
			found = append(found, g)
		}
		return fs.SkipDir
	})
	return found
}

// lock claims a folder until Close, unless another runner has it. A flock works on any open directory, and the kernel drops
// it with the process; a file beside the folders would need a place that all runners and containers share.
func (t *tree) lock(folder cgroup) bool {
	f, err := os.Open(string(folder))
	if err != nil {
		return false
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // it was only read
		return false
	}
	if t.locks == nil {
		t.locks = map[cgroup]*os.File{}
	}
	t.locks[folder] = f
	return true
}

// close removes the folders that are empty, but none that another runner of this name uses, and gives them back.
func (t *tree) close() error {
	if t == nil {
		return nil
	}
	var err error
	for folder, lock := range t.locks {
		rmErr := unix.Rmdir(string(folder))
		if rmErr != nil && !gone(rmErr) && !errors.Is(rmErr, unix.EBUSY) {
			err = errors.Join(err, &fs.PathError{Op: "rmdir", Path: string(folder), Err: rmErr})
		}
		err = errors.Join(err, lock.Close())
	}
	t.locks = nil
	t.goBack()
	return err
}

// openV1 makes the folder in a version 1 tree. Without it builds are contained all the same, but not limited by its
// controllers; so it is a problem to be told, and no error.
func (t *tree) openV1(h hierarchy, name string) {
	var err error
	folder := cgroup(h.own).child(name)
	if h.own == "" {
		err = errors.New("the runner's own cgroup is not visible in " + h.mount)
	} else {
		err = folder.create()
	}
	if err != nil {
		t.problems = append(t.problems, fmt.Sprintf("controllers %s: %v", strings.Join(h.controllers, ","), err))
		return
	}
	t.lock(folder)
	for _, c := range h.controllers {
		t.v1[c] = folder
	}
}

// names are the controllers that work here.
func (t *tree) names() []string {
	names := slices.Clone(t.controllers)
	for c := range t.v1 {
		names = append(names, c)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// delegatedBase is the top of what was handed to the runner: its own cgroup, or the one above if the service manager
// put the runner into a leaf of the subtree that it delegates (DelegateSubgroup=), or an earlier start did. systemd marks
// that subtree's top with an extended attribute, see its CGROUP_DELEGATION page; where there is no mark, being able to
// write to the one above tells a runner that is not root the same.
func delegatedBase(own cgroup, mount, name string) cgroup {
	parent := cgroup(filepath.Dir(string(own)))
	if string(own) == mount {
		return own
	}
	if filepath.Base(string(own)) == name+leafSuffix {
		return parent
	}
	for _, attribute := range []string{"user.delegate", "trusted.delegate"} { // set by systemd
		value := make([]byte, 8)
		if n, err := unix.Getxattr(string(parent), attribute, value); err == nil && string(value[:n]) == "1" {
			return parent
		}
	}
	if os.Geteuid() != 0 && unix.Access(string(parent.child("cgroup.procs")), unix.W_OK) == nil {
		return parent
	}
	return own
}

// enableControllers hands the version 2 controllers that the base has down to the builds' folder. Each is tried by itself:
// a build without one limit is still contained.
func (t *tree) enableControllers() {
	text, err := t.base.read("cgroup.controllers")
	available := strings.Fields(text)
	var wanted []string
	for _, c := range []string{"memory", "pids", "cpu"} {
		if slices.Contains(available, c) {
			wanted = append(wanted, c)
		}
	}
	if err == nil && len(wanted) > 0 {
		err = t.makeRoom()
	}
	if err != nil {
		t.problems = append(t.problems, fmt.Sprintf("controllers: %v", err))
		return
	}
	for _, c := range wanted {
		if err := errors.Join(t.base.write("cgroup.subtree_control", "+"+c), t.folder.write("cgroup.subtree_control", "+"+c)); err != nil {
			t.problems = append(t.problems, fmt.Sprintf("controller %s: %v", c, err))
			continue
		}
		t.controllers = append(t.controllers, c)
	}
}

// makeRoom moves the runner to a leaf of its own: a cgroup that hands controllers down may hold no process. The kernel
// says so of memory only. For cpu and pids it makes the cgroup a threaded one instead, below which no build can start,
// so this comes before the first controller.
func (t *tree) makeRoom() error {
	if _, err := t.base.read("cgroup.type"); errors.Is(err, fs.ErrNotExist) {
		return nil // the root of all, to which the rule does not apply
	}
	inside, err := t.base.ownPIDs()
	if err != nil || len(inside) == 0 {
		return err
	}
	if len(inside) > 1 || inside[0] != os.Getpid() {
		return fmt.Errorf("%s holds other processes beside the runner: start the runner in a cgroup of its own", t.base)
	}
	leaf := t.base.child(t.folder.name() + leafSuffix)
	if err := leaf.create(); err != nil {
		return err
	}
	if err := leaf.write("cgroup.procs", itoa(os.Getpid())); err != nil {
		return err
	}
	t.leaf = leaf
	return nil
}

// goBack undoes makeRoom, so that the next program in this cgroup finds it as it was. While somebody else uses what the
// base hands down the kernel refuses, and the leaf stays.
func (t *tree) goBack() {
	if t.leaf == "" {
		return
	}
	for _, c := range t.controllers {
		_ = t.base.write("cgroup.subtree_control", "-"+c)
	}
	_ = t.base.write("cgroup.procs", itoa(os.Getpid()))
	_ = t.leaf.remove()
}

// probeKill starts a child inside a new cgroup and kills it through the cgroup. The start is what fails where the tree was
// not delegated: moving a process takes the right to write to the common ancestor of both cgroups (cgroup-v2.rst,
// "Delegation Containment").
func probeKill(ctx context.Context, helper string, folder cgroup) (err error) {
	dir, err := os.MkdirTemp(string(folder), probePrefix+"*")
	if err != nil {
		return err
	}
	group := cgroup(dir)
	defer func() { err = errors.Join(err, group.remove()) }()
	fd, err := group.open()
	if err != nil {
		return err
	}
	defer discard(fd)
	cmd := exec.CommandContext(ctx, helper, pauseRole)
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
	stdin, err := cmd.StdinPipe() // held open: the child waits for its end
	if err != nil {
		return err
	}
	defer discard(stdin)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a process in a cgroup: %w", err)
	}
	err = group.kill()
	if err != nil {
		err = errors.Join(err, cmd.Process.Kill())
	}
	var died *exec.ExitError
	if waitErr := cmd.Wait(); !errors.As(waitErr, &died) {
		err = errors.Join(err, fmt.Errorf("a killed process ended with: %w", waitErr))
	}
	empty, waitErr := group.waitEmpty(ctx.Done(), killWait)
	if !empty && waitErr == nil {
		waitErr = errors.New("a killed cgroup does not become empty")
	}
	return errors.Join(err, waitErr)
}

// open returns the directory, for starting processes in it.
func (g cgroup) open() (*os.File, error) {
	fd, err := unix.Open(string(g), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: string(g), Err: err}
	}
	return os.NewFile(uintptr(fd), string(g)), nil
}

// remakeFolder is for when somebody has tidied up while no build ran.
func (t *tree) remakeFolder() error {
	err := t.folder.create()
	for _, c := range t.controllers {
		err = errors.Join(err, t.folder.write("cgroup.subtree_control", "+"+c))
	}
	t.lock(t.folder)
	return err
}

// createBuild makes a build's cgroups and sets its limits. A controller that cannot be had was a warning at start; a limit
// that the kernel refuses now is an error, for the build must not run without it.
func (t *tree) createBuild(name string, l Limits) error {
	group := t.folder.child(name)
	err := group.create()
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.Join(t.remakeFolder(), group.create())
	}
	if err != nil {
		return err
	}
	for _, c := range t.controllers {
		// So that each step is counted by itself.
		if err := group.write("cgroup.subtree_control", "+"+c); err != nil {
			return err
		}
	}
	for _, s := range l.settings() {
		if err := t.limit(name, s); err != nil {
			return err
		}
	}
	return nil
}

// createStep makes a step's cgroups. A step has no limits of its own; it is one so that it can be listed, killed and
// counted without the others.
func (t *tree) createStep(build, name string) (*step, error) {
	s := &step{group: t.folder.child(build).child(stepName(name))}
	if err := s.group.create(); err != nil {
		return nil, err
	}
	if slices.Contains(t.controllers, "memory") {
		s.memory = s.group
	}
	for controller, folder := range t.v1 {
		// Memory is always counted; the others are there only if they limit the build.
		if controller != "memory" && !folder.child(build).exists() {
			continue
		}
		g := folder.child(build).child(stepName(name))
		if err := os.MkdirAll(string(g), 0o755); err != nil {
			return nil, err
		}
		s.v1 = append(s.v1, g)
		if controller == "memory" {
			s.memory = g
		}
	}
	return s, nil
}
