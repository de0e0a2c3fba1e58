package process

import (
	"context"
	"os"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// below finds the processes below the step's launchers. A launcher lives for as long as it has any.
func (b *build) below(s *step) finder {
	return func(visit func(proc)) error {
		for pid := range b.launchersOf(s) {
			visitBelow(pid, visit)
		}
		return nil
	}
}

// strays finds the build's processes outside its cgroup: below a launcher, marked in their environment, or below one
// that is, or of the uid that only this build has. The launchers themselves go when their work is done.
func (h *Host) strays(build string) finder {
	return func(visit func(proc)) error {
		launchers := h.build(build).launchers()
		for pid := range launchers {
			visitBelow(pid, visit)
		}
		want := h.markerValue(build)
		uid, err := lockedUID(MarkerEnv + "=" + want)
		if err != nil {
			return err
		}
		self := os.Getpid()
		return visitAll(func(p proc) {
			if p.pid == self || launchers[p.pid] {
				return
			}
			if marked, _ := p.marker(); marked == want || uid > 0 && p.uid() == uid {
				visit(p)
				visitBelow(p.pid, visit)
			}
		})
	}
}

// endStrays ends, one by one, what is not in the build's cgroup.
func (h *Host) endStrays(ctx context.Context, name string) ([]leftover.Item, error) {
	b := h.build(name)
	watched := func() bool { return len(b.launchers()) > 0 }
	strays, err := h.strays(name).insist(watched)
	if err != nil || len(strays) == 0 && !watched() {
		return nil, err
	}
	var ended []leftover.Item
	for _, p := range strays {
		ended = append(ended, p.item())
	}
	plan := sweepPlan{find: h.strays(name), over: func() bool { return !watched() }}
	if h.tree == nil {
		plan.grace = h.cfg.Grace // who left a cgroup is not asked
	}
	return ended, sweep(ctx.Done(), plan)
}

// kept are the processes that the build may leave running, where no cgroup tells.
func (h *Host) kept(build string) ([]leftover.Item, error) {
	var found []leftover.Item
	err := visitAll(func(p proc) {
		if _, marked := p.marker(); marked == h.markerValue(build) {
			found = append(found, p.item())
		}
	})
	return found, err
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
