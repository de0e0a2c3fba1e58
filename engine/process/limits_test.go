//go:build linux

package process

import (
	"slices"
	"testing"
	"time"
)

// needController skips the test where the limit cannot be enforced.
func needController(t *testing.T, h *Host, controller string) {
	t.Helper()
	if unlimited(t, h, controller) {
		t.Skipf("no %s controller", controller)
	}
}

func TestMemoryHogUnderALimit(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode, Limits: Limits{Memory: 100 << 20}})
		needController(t, h, "memory")
		b := newBuild(t, h, Build{Name: "hog"})
		c, _ := escapeCommand(t, b, "CC_CI_TEST_CHILD=hog exec $SELF")
		exit, out := mustRun(t, h, c)
		if exit.Code != 137 || !exit.OOM || exit.PeakMemory < 90<<20 || exit.PeakMemory > 110<<20 {
			t.Errorf("%+v\n%s", exit, out)
		}
		// The next command of the same step is not blamed for it.
		if exit, _ := mustRun(t, h, shell(b, "exit 3")); exit.Code != 3 || exit.OOM {
			t.Errorf("afterwards: %+v", exit)
		}
		tearDown(t, h, b.Name)
	})
}

func TestCPULimitIsWritten(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode, Limits: Limits{CPUs: 1.5}})
		needController(t, h, "cpu")
		b := newBuild(t, h, Build{})
		if exit, _ := mustRun(t, h, shell(b, "true")); exit.Code != 0 {
			t.Errorf("%+v", exit)
		}
		for _, g := range h.tree.groups(b.Name) {
			if quota, ok := g.number("cpu.cfs_quota_us"); ok {
				if quota != 150_000 {
					t.Errorf("quota %d", quota)
				}
				return
			}
		}
		if got, err := h.tree.folder.child(b.Name).read("cpu.max"); err != nil || got != "150000 100000" {
			t.Errorf("cpu.max %q, %v", got, err)
		}
	})
}

// Limits can change while the runner works; a build that runs keeps those it began with.
func TestSetLimits(t *testing.T) {
	t.Parallel()
	h := openHost(t, Config{})
	if !slices.Contains(h.Report().Controllers, "memory") {
		if w := h.SetLimits(Limits{Memory: 1 << 30}); len(w) != 1 {
			t.Errorf("warnings %v", w)
		}
		return
	}
	before := newBuild(t, h, Build{Name: "before"})
	if w := h.SetLimits(Limits{Memory: 1 << 30}); len(w) != 0 {
		t.Errorf("warnings %v", w)
	}
	after := newBuild(t, h, Build{Name: "after"})
	for name, want := range map[string]bool{before.Name: false, after.Name: true} {
		limited := false
		for _, g := range h.tree.groups(name) {
			for _, file := range []string{"memory.max", "memory.limit_in_bytes"} {
				if n, ok := g.number(file); ok && n == 1<<30 {
					limited = true
				}
			}
		}
		if limited != want {
			t.Errorf("%s is limited: %t", name, limited)
		}
	}
}

func TestUsageIsMeasured(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		b := newBuild(t, h, Build{})
		exit, _ := mustRun(t, h, shell(b, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"))
		if exit.CPUSeconds <= 0.005 || exit.CPUSeconds > 30 {
			t.Errorf("%v CPU seconds", exit.CPUSeconds)
		}
		if slices.Contains(h.Report().Controllers, "memory") && (exit.PeakMemory < 100<<10 || exit.PeakMemory > 100<<20) {
			t.Errorf("%d bytes at most", exit.PeakMemory)
		}
	})
}

// A process that does not react to SIGTERM has the grace period and no more, and one that does has all the time in it
// that it needs.
func TestGrace(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode, Grace: 10 * time.Second})
		b := newBuild(t, h, Build{})
		c := shell(b, "(trap 'sleep 0.2; echo saved >saved; exit' TERM; >ready; while :; do sleep 0.05; done) & while [ ! -e ready ]; do sleep 0.01; done")
		if exit, out := mustRun(t, h, c); exit.Code != 0 {
			t.Fatalf("%+v\n%s", exit, out)
		}
		if _, err := h.EndStep(t.Context(), b.Name, "step"); err != nil {
			t.Error(err)
		}
		if size(b.Workspace+"/saved") == 0 {
			t.Error("the process could not save its work")
		}
	})
}
