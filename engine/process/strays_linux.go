package process

import (
	"context"
	"errors"
	"os"
	"strings"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// below finds the processes below the step's launchers. A launcher lives for as long as it has any, so an empty answer
// while one lives is only a look at the wrong moment (see insist).
func (b *build) below(s *step) finder {
	return func(visit func(proc)) error {
		for pid := range b.launchersOf(s) {
			visitBelow(pid, visit)
		}
		return nil
	}
}

// tree finds the processes below all of the build's launchers.
func (b *build) tree() finder {
	return func(visit func(proc)) error {
		for pid := range b.launchers() {
			visitBelow(pid, visit)
		}
		return nil
	}
}

// watched says that a launcher of the build is still there.
func (b *build) watched() bool { return len(b.launchers()) > 0 }

// marked finds the build's processes wherever they are: those with its marker in their environment, those below one
// that has it, and those of the uid that only this build has. It looks at every process of the host. The runner itself is
// left out, in whose environment a test or a nested build may have put the marker, and so is whoever only pretends (see
// believes).
func (h *Host) marked(build string) finder {
	return func(visit func(proc)) error {
		want := h.markerValue(build)
		uids, err := lockedUIDs()
		if err != nil {
			return err
		}
		uid := uids[MarkerEnv+"="+want]
		self, launchers := os.Getpid(), h.build(build).launchers()
		ours := func(p proc) bool {
			marked, _ := p.marker()
			if (marked == want || h.ended(marked, build)) && h.believes(p, uids[MarkerEnv+"="+marked]) {
				return true
			}
			return uid > 0 && p.ids()[0] == uid
		}
		// Whose process it is is asked once more when its start is known: the PID may have gone to another meanwhile.
		return visitThose(func(pid int) bool {
			return pid != self && !launchers[pid] && ours(proc{pid: pid}) // launchers go when their work is done
		}, func(p proc) {
			if ours(p) {
				visit(p)
				visitBelow(p.pid, visit)
			}
		})
	}
}

// believes says whether a process may be of the build that its marker names: anybody can start one with the name of a
// build that runs. locked is the uid of a range that the build has, zero if none.
//
// What the steps of a user start stays that user's, in all of its ids, for it cannot gain privileges (see
// order.NoNewPrivs), and another user namespace only gives the same ids other names. A setuid program that somebody else
// has started has ids of two users. Without cgroups there are launchers and stubs as well, which are root's. Where steps
// are the runner's own user's there is nothing to go by: those of root can become anybody.
func (h *Host) believes(p proc, locked int) bool {
	if h.users == nil {
		return true
	}
	uid := locked
	if uid == 0 && h.users.shared != nil {
		uid = h.users.shared.UID
	}
	switch p.ids() {
	case [4]int{}:
		return h.tree == nil
	case [4]int{uid, uid, uid, uid}:
		return true
	}
	return false
}

// ended says that a marker names the build and a runner of Config.Ended. Whether that still runs is not asked here: only
// builds of which its lock or its folder's has told so are looked for.
func (h *Host) ended(marked, build string) bool {
	runner, name, _ := strings.Cut(marked, "/")
	return h.cfg.Ended != "" && strings.HasPrefix(runner, h.cfg.Ended) && name == build
}

// strays are the build's processes outside its cgroup. Those inside are among them where they carry its marker; Remaining
// has both in one list and drops the doubles.
func (h *Host) strays(build string) ([]proc, error) {
	b := h.build(build)
	found, err := b.tree().insist(b.watched)
	if err != nil {
		return nil, err
	}
	others, err := h.marked(build).list()
	return append(found, others...), err
}

// endStrays ends, one by one, what is not in the build's cgroup: first what is below launchers, which is quickly
// looked at, then what else carries its marker. It returns what it found before it ended any of that: afterwards there
// is no command line left to name it by.
func (h *Host) endStrays(ctx context.Context, name string) ([]leftover.Item, error) {
	b := h.build(name)
	grace := h.cfg.Grace
	if h.tree != nil {
		grace = 0 // who left a cgroup is not asked
	}
	strays, err := b.tree().insist(b.watched)
	if err != nil {
		return nil, err
	}
	ended := describe(strays)
	if b.watched() {
		plan := sweepPlan{find: b.tree(), grace: grace, over: func() bool { return !b.watched() }}
		err = sweep(ctx.Done(), plan)
	}
	others, listErr := h.marked(name).list()
	ended = append(ended, describe(others)...)
	if len(others) > 0 {
		listErr = errors.Join(listErr, sweep(ctx.Done(), sweepPlan{find: h.marked(name), grace: grace}))
	}
	return ended, errors.Join(err, listErr)
}

// endEscaped ends what has moved itself out of the build's cgroup. Which step's it was cannot be told any more; that
// it is the build's, can.
func (h *Host) endEscaped(ctx context.Context, b *build) ([]leftover.Item, error) {
	if h.tree == nil {
		return nil, nil
	}
	group := h.tree.folder.child(b.groupName())
	escaped := func(visit func(proc)) error {
		return h.marked(b.Name)(func(p proc) {
			if !p.in(group) && p.same() { // not one that has just ended, and so is in no cgroup
				visit(p)
			}
		})
	}
	found, err := finder(escaped).list()
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return describe(found), sweep(ctx.Done(), sweepPlan{find: escaped})
}

func describe(procs []proc) []leftover.Item {
	var all []leftover.Item
	for _, p := range procs {
		all = append(all, p.item())
	}
	return all
}

// kept are the processes that the build may leave running, where no cgroup tells. One that has cleared its environment is
// not found, and lives on all the same.
func (h *Host) kept(build string) ([]leftover.Item, error) {
	uids, err := lockedUIDs()
	if err != nil {
		return nil, err
	}
	var found []leftover.Item
	err = visitAll(func(p proc) {
		if _, marked := p.marker(); marked == h.markerValue(build) && h.believes(p, uids[KeptMarkerEnv+"="+marked]) {
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

// launchersOf are those of one step.
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
