package process

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// EndStep says which processes the step left running and, unless leftovers are kept until the build's end, ends them. It is
// called once all of the step's commands have ended; what is left is then nobody's any more. An unknown build or step has
// nothing to end, and is no error. With nothing that ignores SIGTERM it takes milliseconds, else the grace period.
func (h *Host) EndStep(ctx context.Context, buildName, stepName string) ([]leftover.Item, error) {
	b := h.build(buildName)
	if b == nil {
		return nil, nil
	}
	b.mu.Lock()
	s := b.steps[stepName]
	b.mu.Unlock()
	if s == nil {
		return nil, nil
	}
	left, err := h.leftovers(b, s)
	if !h.cfg.KeepLeftovers && !b.Keep { // even if none was seen: one that forks and exits all the time is missed easily
		err = errors.Join(err, h.stopStep(ctx, b, s))
		escaped, escErr := h.endEscaped(ctx, b)
		left, err = append(left, escaped...), errors.Join(err, escErr)
	}
	if err != nil {
		return left, fmt.Errorf("end step %s: %w", stepName, err)
	}
	return left, nil
}

// stopStep asks the step's processes to end and kills them after the grace period.
func (h *Host) stopStep(ctx context.Context, b *build, s *step) error {
	if s.group != "" {
		return h.stopGroup(ctx, s.group)
	}
	over := func() bool { return len(b.launchersOf(s)) == 0 }
	return sweep(ctx.Done(), sweepPlan{find: b.below(s), grace: h.cfg.Grace, over: over})
}

// stopGroup ends all processes of a cgroup and waits until it is empty: first SIGTERM to each, which cgroup.kill cannot
// send, then cgroup.kill. Between the list and the signal a PID can go to a stranger; hence the look whether it is in.
// When ctx ends, only the grace is cut short.
func (h *Host) stopGroup(ctx context.Context, g cgroup) error {
	pids, err := g.pids()
	for _, pid := range pids {
		if p, ok := readProc(pid); ok && p.in(g) {
			_ = askToEnd(p) // another user's process cannot be asked, but is killed with its cgroup
		}
	}
	empty, waitErr := g.waitEmpty(ctx.Done(), h.cfg.Grace)
	if empty {
		return errors.Join(err, waitErr)
	}
	err = errors.Join(err, waitErr, g.kill())
	// From here on ctx is not asked: what was killed is gone in milliseconds, or never.
	empty, waitErr = g.waitEmpty(nil, killWait)
	if !empty && waitErr == nil {
		pids, waitErr = g.pids()
		waitErr = errors.Join(waitErr, fmt.Errorf("%d killed processes do not die: %v", len(pids), pids))
	}
	return errors.Join(err, waitErr)
}

// in says that the process is in the cgroup or below it.
func (p proc) in(g cgroup) bool {
	text, err := os.ReadFile(procPath(p.pid, "cgroup"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			// The path is relative to the root of the tree, g to its mount; the build's part is in both.
			return strings.Contains(path+"/", "/"+g.tail()+"/")
		}
	}
	return false
}

// tail is the part of the path that is this runner's own: the folder's name and what is below.
func (g cgroup) tail() string {
	parts := strings.Split(string(g), "/")
	return strings.Join(parts[max(0, len(parts)-2):], "/")
}

// stepPIDs are the processes of a step. Without cgroups that is a walk along parents, which can miss one that moves: as
// long as a launcher lives there must be somebody, so it looks again.
func (h *Host) stepPIDs(b *build, s *step) ([]int, error) {
	if s.group != "" {
		return s.group.pids()
	}
	procs, err := b.below(s).insist(func() bool { return len(b.launchersOf(s)) > 0 })
	var pids []int
	for _, p := range procs {
		pids = append(pids, p.pid)
	}
	return pids, err
}

// isGone says that the PID is not the run's any more: it has been waited for, and the kernel may give it to another.
func (r *run) isGone() bool {
	select {
	case <-r.gone:
		return true
	default:
		return false
	}
}

// Builds names the builds of this runner that have a cgroup or a process on this host, those that it is running among
// them. It reads the environment of every process, about 0.1 ms for each. Builds of Config.Ended are found by their
// cgroups only: the marker alone does not say whether their runner still lives, a folder's lock does.
func (h *Host) Builds(ctx context.Context) ([]string, error) {
	names := map[string]bool{}
	h.mu.Lock()
	for name := range h.builds {
		names[name] = true
	}
	h.mu.Unlock()
	var err error
	for _, folder := range h.tree.folders() {
		groups, listErr := folder.children()
		err = errors.Join(err, listErr)
		for _, g := range groups {
			name := strings.TrimSuffix(g.name(), keepSuffix)
			if possible(name) {
				names[name] = true
			}
		}
	}
	scanErr := visitAll(func(p proc) {
		marked, _ := p.marker()
		// Anybody can start a process with a marker: a name such as `..` would make all of the host a build.
		if name, ok := strings.CutPrefix(marked, h.cfg.Name+"/"); ok && possible(name) && p.pid != os.Getpid() {
			names[name] = true
		}
	})
	return slices.Sorted(maps.Keys(names)), errors.Join(err, scanErr)
}

// folders are all directories that hold this runner's builds; none without cgroups. The present one of version 2 comes
// first. Controllers that are mounted together share one, which is listed once.
func (t *tree) folders() []cgroup {
	if t == nil {
		return nil
	}
	folders := slices.Concat([]cgroup{t.folder}, t.earlier, t.earlierV1)
	for _, f := range t.v1 {
		if !slices.Contains(folders, f) {
			folders = append(folders, f)
		}
	}
	return folders
}

// canKill says that the build's cgroup is in the version 2 tree.
func (t *tree) canKill(g cgroup) bool {
	folder := cgroup(filepath.Dir(string(g)))
	return folder == t.folder || slices.Contains(t.earlier, folder)
}

// groups are the build's cgroups that exist, the version 2 one first.
func (t *tree) groups(build string) []cgroup {
	var found []cgroup
	for _, folder := range t.folders() {
		for _, suffix := range []string{"", keepSuffix} {
			if g := folder.child(build + suffix); g.exists() {
				found = append(found, g)
			}
		}
	}
	return found
}

// Remaining are the processes that the build still has, wherever they hid, and cgroups that could not be removed. Of a
// build that runs, that is all of them; what Keep has left alive is not among them. It changes nothing.
func (h *Host) Remaining(ctx context.Context, build string) ([]leftover.Item, error) {
	pids, err := h.inside(build)
	var left []leftover.Item
	for _, g := range h.tree.groups(build) {
		left = append(left, leftover.Item{Kind: "cgroup", Name: string(g)})
	}
	strays, findErr := h.strays(build)
	for _, p := range strays {
		pids = append(pids, p.pid)
	}
	slices.Sort(pids)
	left = append(items(slices.Compact(pids)), left...)
	if err = errors.Join(err, findErr); err != nil {
		return left, fmt.Errorf("look for processes of %s: %w", build, err)
	}
	return left, nil
}

// inside are the processes in the build's cgroups.
func (h *Host) inside(build string) ([]int, error) {
	var all []int
	var err error
	for _, g := range h.tree.groups(build) {
		pids, listErr := g.pids()
		all, err = append(all, pids...), errors.Join(err, listErr)
	}
	slices.Sort(all)
	return slices.Compact(all), err
}

// Teardown ends every process of the build and removes its cgroups. What a build with Keep has running is moved aside
// instead, lives on, and is returned as well (see Keeps). It may be called for a build of an earlier run of this program.
//
// It waits until they are gone: the grace period, and up to 30 s more for what was killed. ctx cuts that short. After
// an error the build is still known, and the next call goes on; Run refuses it from the first call on.
func (h *Host) Teardown(ctx context.Context, name string) ([]leftover.Item, error) {
	b := h.build(name)
	if b != nil {
		b.mu.Lock()
		b.closed = true // whoever is inside start has finished it now
		b.mu.Unlock()
	}
	ended, err := h.endAll(ctx, name)
	// The uid is forgotten last: until then the next look for the build also goes by it.
	if err == nil { // or something is alive that would be waited for
		err = errors.Join(b.release(ctx), h.removeGroups(ctx, name), releaseUID(MarkerEnv+"="+h.markerValue(name)))
	}
	if err != nil {
		return ended, fmt.Errorf("end processes of %s: %w", name, err)
	}
	h.mu.Lock()
	delete(h.builds, name)
	h.mu.Unlock()
	return ended, nil
}

// endAll ends what is in the build's cgroups and what is not. The cgroups come first: without what is in them hardly
// anybody is left who could start something new outside.
func (h *Host) endAll(ctx context.Context, name string) ([]leftover.Item, error) {
	inside, err := h.inside(name)
	ended := items(inside)
	for _, g := range h.tree.groups(name) {
		switch {
		case strings.HasSuffix(g.name(), keepSuffix):
			err = errors.Join(err, g.moveAside())
		case h.tree.canKill(g): // version 1 cannot, and its processes are the same
			err = errors.Join(err, h.stopGroup(ctx, g))
		}
	}
	strayed, strayErr := h.endStrays(ctx, name)
	ended, err = append(ended, strayed...), errors.Join(err, strayErr)
	if h.tree == nil {
		kept, keptErr := h.kept(name)
		ended, err = append(ended, kept...), errors.Join(err, keptErr)
	}
	return ended, err
}

// Keeps says whether the build was created with Keep. Of a build of an earlier run of this program its cgroup's name or,
// without cgroups, its processes' marker tells.
func (h *Host) Keeps(build string) (bool, error) {
	if b := h.build(build); b != nil {
		return b.Keep, nil
	}
	if h.tree == nil {
		kept, err := h.kept(build)
		return len(kept) > 0, err
	}
	return slices.ContainsFunc(h.tree.groups(build), func(g cgroup) bool { return strings.HasSuffix(g.name(), keepSuffix) }), nil
}

// moveAside moves the processes to a cgroup that no later teardown looks at. There is no call that moves a whole cgroup, so
// it is done one by one, again and again until the old one is empty.
func (g cgroup) moveAside() error {
	kept := cgroup(strings.TrimSuffix(string(g), keepSuffix) + keptSuffix)
	for range 100 { // each round also moves what the last one's processes forked meanwhile
		pids, err := g.pids()
		if err != nil || len(pids) == 0 {
			return err
		}
		if err := kept.create(); err != nil {
			return err
		}
		for _, pid := range pids {
			if err := kept.write("cgroup.procs", itoa(pid)); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("keep process %d: %w", pid, err)
			}
		}
	}
	return fmt.Errorf("processes fork faster than they can be moved out of %s", g)
}

// release lets go of what the runner itself holds for the build: launchers, pipes, the uid. It also awaits the goroutines
// of each run (wait and copy), which is why it comes after everything was ended.
func (b *build) release(ctx context.Context) error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var err error
	for _, s := range b.steps {
		for _, r := range s.runs {
			err = errors.Join(err, r.letGo(), r.out.close())
			select {
			case <-r.gone:
			case <-ctx.Done():
				return errors.Join(err, fmt.Errorf("process %d is still there: %w", r.cmd.Process.Pid, context.Cause(ctx)))
			}
		}
		s.runs = nil
	}
	return errors.Join(err, b.unlock())
}

// removeGroups removes the build's cgroups, and those of kept builds whose processes have ended: nobody else comes by to
// do that.
func (h *Host) removeGroups(ctx context.Context, build string) error {
	var err error
	for _, g := range h.tree.groups(build) {
		err = errors.Join(err, g.removeSoon(ctx))
	}
	for _, folder := range h.tree.folders() {
		groups, listErr := folder.children()
		err = errors.Join(err, listErr)
		for _, g := range groups {
			if strings.HasSuffix(g.name(), keptSuffix) {
				_ = g.remove() // fails, as it should, while something lives in it
			}
		}
	}
	return err
}

// removeSoon removes the cgroup, waiting for processes that are dead but not yet gone from it: version 1 has no file that
// tells when that is.
func (g cgroup) removeSoon(ctx context.Context) error {
	for deadline := time.Now().Add(killWait); ; {
		err := g.remove()
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		pause(ctx.Done(), 2*time.Millisecond)
	}
}
