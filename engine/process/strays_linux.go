package process

import (
	"context"
	"maps"
	"os"
	"slices"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// rescans is how often to look again for processes that are there but do not hold still.
const rescans = 5

// stepProcs are the processes below the step's launchers. A launcher lives for as long as it has any.
func stepProcs(b *build, s *step) ([]proc, error) {
	for range rescans {
		launchers := b.launchersOf(s)
		if len(launchers) == 0 {
			break
		}
		all, err := readProcs()
		if err != nil {
			return nil, err
		}
		var found []proc
		for pid := range launchers {
			found = append(found, descendantsOf(all, pid)...)
		}
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, nil
}

// endStrays ends, one by one, what is not in the build's cgroup.
func (h *Host) endStrays(ctx context.Context, name string) ([]leftover.Item, error) {
	strays, err := h.strays(name)
	b := h.build(name)
	if err != nil || len(strays) == 0 && len(b.launchers()) == 0 {
		return nil, err
	}
	var ended []leftover.Item
	for _, p := range strays {
		ended = append(ended, p.item())
	}
	plan := sweepPlan{find: func() ([]proc, error) { return h.strays(name) }, limit: killWait}
	if h.tree == nil {
		plan.grace = h.cfg.Grace // who left a cgroup is not asked
	}
	return ended, plan.run(ctx, func() bool { return len(b.launchers()) == 0 })
}

// kept are the processes that the build may leave running, where no cgroup tells.
func (h *Host) kept(build string) ([]leftover.Item, error) {
	all, err := readProcs()
	var found []leftover.Item
	for _, p := range all {
		if _, marked := p.marker(); marked == h.markerValue(build) {
			found = append(found, p.item())
		}
	}
	return found, err
}

// strays are the build's processes outside its cgroup: marked in their environment, or below one that is, or below a
// launcher, or of the uid that only this build has. The launchers themselves go when their work is done.
func (h *Host) strays(build string) ([]proc, error) {
	for range rescans {
		launchers := h.build(build).launchers()
		found, err := h.scan(build, launchers)
		if err != nil || len(found) > 0 || len(launchers) == 0 {
			return found, err
		}
	}
	return nil, nil
}

// scan looks once.
func (h *Host) scan(build string, launchers map[int]bool) ([]proc, error) {
	all, err := readProcs()
	if err != nil {
		return nil, err
	}
	found := map[int]proc{}
	for pid := range launchers {
		for _, p := range descendantsOf(all, pid) {
			found[p.pid] = p
		}
	}
	want := h.markerValue(build)
	uid, err := lockedUID(MarkerEnv + "=" + want)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		marked, _ := p.marker()
		ours := marked == want || uid > 0 && p.uid() == uid
		if !ours || launchers[p.pid] || p.pid == os.Getpid() {
			continue
		}
		found[p.pid] = p
		for _, below := range descendantsOf(all, p.pid) {
			found[below.pid] = below
		}
	}
	delete(found, os.Getpid())
	return slices.Collect(maps.Values(found)), nil
}

// launchers are the processes that this runner has between itself and the build's commands.
func (b *build) launchers() map[int]bool {
	found := map[int]bool{}
	if b == nil {
		return found
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.steps {
		s.addLaunchers(found)
	}
	return found
}

func (b *build) launchersOf(s *step) map[int]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	found := map[int]bool{}
	s.addLaunchers(found)
	return found
}

func (s *step) addLaunchers(found map[int]bool) {
	for _, r := range s.runs {
		if r.launcher && !r.isGone() {
			found[r.cmd.Process.Pid] = true
		}
	}
}
