//go:build linux

package process

import (
	"context"
	"errors"
	"strings"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/reapertest"
)

func TestReaper(t *testing.T) {
	eachMode(t, func(t *testing.T, mode Mode) {
		reapertest.Run(t, func(t *testing.T) reapertest.Subject {
			h := openHost(t, Config{Mode: mode, KeepLeftovers: true})
			return reapertest.Subject{
				Reaper: h,
				Names:  [2]string{"one", "two"},
				Make: func(ctx context.Context, name string) error {
					if h.build(name) == nil {
						newBuild(t, h, Build{Name: name})
					}
					c := shell(Build{Name: name, Workspace: "/"}, "sleep 1000 >/dev/null 2>&1 & setsid sleep 1001 &")
					exit, err := h.Run(ctx, c)
					if err == nil && exit.Code != 0 {
						err = errors.New("the step was killed")
					}
					return err
				},
			}
		})
	})
}

// A runner that was killed comes back as another process: it knows nothing but the name.
func TestTeardownAfterCrash(t *testing.T) {
	eachMode(t, func(t *testing.T, mode Mode) {
		before := openHost(t, Config{Mode: mode, KeepLeftovers: true})
		b := newBuild(t, before, Build{})
		exit, out := mustRun(t, before, shell(b, "setsid sleep 1000 >/dev/null & echo $!; sleep 1001 & echo $!"))
		after := openHost(t, Config{Mode: mode, Name: before.cfg.Name})
		if builds, err := after.Builds(t.Context()); err != nil || len(builds) != 1 || builds[0] != b.Name {
			t.Fatalf("builds %v, %v; the step ended with %+v", builds, err, exit)
		}
		if left, err := after.Remaining(t.Context(), b.Name); err != nil || len(left) < 2 {
			t.Errorf("remaining %v, %v", left, err)
		}
		if ended, err := after.Teardown(t.Context(), b.Name); err != nil || len(ended) < 2 {
			t.Errorf("teardown %v, %v", ended, err)
		}
		tearDown(t, before, b.Name) // what it holds itself
		assertClean(t, after, b.Name, pidsIn(out))
	})
}

// What builds of exempt repositories leave running lives on, in a place where no later sweep finds it.
func TestKeep(t *testing.T) {
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		b := newBuild(t, h, Build{Name: "deploy", Keep: true})
		_, out := mustRun(t, h, shell(b, "setsid sleep 1000 >/dev/null 2>&1 & echo $!"))
		pids := pidsIn(out)
		if _, err := h.EndStep(t.Context(), b.Name, "step"); err != nil {
			t.Error(err)
		}
		kept, err := h.Teardown(t.Context(), b.Name)
		if err != nil || len(kept) != 1 || kept[0].Name != itoa(pids[0]) {
			t.Errorf("kept %v, %v; want %v", kept, err, pids)
		}
		p, ok := readProc(pids[0])
		if !ok {
			t.Fatal("it was killed")
		}
		if left, err := h.Remaining(t.Context(), b.Name); err != nil || len(left) > 0 {
			t.Errorf("remaining %v, %v", left, err)
		}
		if builds, err := h.Builds(t.Context()); err != nil || len(builds) > 0 {
			t.Errorf("builds %v, %v", builds, err)
		}
		if err := p.signal(9); err != nil {
			t.Error(err)
		}
		await(t, "its end", func() bool { return !p.same() })
		tearDown(t, h, b.Name) // clears the empty cgroup away
	})
}

// Processes that were moved out of the cgroup, which only a step that runs as root can do, are found by their marker.
func TestStrayIsFoundByItsMarker(t *testing.T) {
	h := openHost(t, Config{KeepLeftovers: true, ShareMounts: true})
	if h.Mode() != HybridRoot && h.Mode() != CgroupRoot {
		t.Skip("needs root and cgroups")
	}
	neighbour := startNeighbour(t, h)
	other := h.tree.folder.child("neighbour")
	b := newBuild(t, h, Build{Name: "victim"})
	groups, err := other.children()
	if err != nil || len(groups) != 1 {
		t.Fatal(groups, err)
	}
	_, out := mustRun(t, h, shell(b, "setsid sh -c 'echo $$ >"+string(groups[0])+"/cgroup.procs; echo moved $$; exec sleep 1000 >/dev/null 2>&1' &"))
	if !strings.Contains(out, "moved") {
		t.Fatal(out)
	}
	tearDown(t, h, b.Name)
	for _, pid := range pidsIn(out) {
		if p, ok := readProc(pid); ok && !p.zombie {
			t.Errorf("%s survived in the neighbour's cgroup", p.item())
		}
	}
	neighbour(t)
}
