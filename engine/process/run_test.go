//go:build linux

package process

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// modes are the ways of containment that this process can use on this host.
func modes(t *testing.T) []Mode {
	trees, err := readHierarchies()
	if err != nil {
		t.Fatal(err)
	}
	found := []Mode{Subreaper}
	h, err := Open(t.Context(), Config{Name: testName(t), Mode: trees.mode()})
	if err != nil {
		t.Logf("only without cgroups: %v", err)
		return found
	}
	cleanHost(t, h)
	return append(found, h.Mode())
}

// eachMode runs the test once for each of modes.
func eachMode(t *testing.T, test func(t *testing.T, mode Mode)) {
	for _, mode := range modes(t) {
		t.Run(string(mode), func(t *testing.T) { test(t, mode) })
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		b := newBuild(t, h, Build{})
		for script, want := range map[string]Exit{
			"true":          {},
			"exit 3":        {Code: 3},
			"kill -9 $$":    {Code: 137, Signal: syscall.SIGKILL},
			"kill -TERM $$": {Code: 143, Signal: syscall.SIGTERM},
		} {
			exit, _ := mustRun(t, h, shell(b, script))
			if exit.Code != want.Code || exit.Signal != want.Signal || exit.OOM || len(exit.Leftovers) > 0 {
				t.Errorf("%s: %+v, want %+v", script, exit, want)
			}
		}
		_, out := mustRun(t, h, shell(b, "pwd; echo oops >&2; umask; env | sort"))
		want := b.Workspace + "\noops\n0022\n" +
			strings.Join([]string{h.marker(&build{Build: b}), "HOME=" + b.Home, "PATH=/usr/local/bin:/usr/bin:/bin", "PWD=" + b.Workspace, ""}, "\n")
		if out != want {
			t.Errorf("got\n%s\nwant\n%s", out, want)
		}
	})
}

func TestRunErrors(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		b := newBuild(t, h, Build{})
		for args, want := range map[string]string{
			"no-such-program": "not found in the step's PATH",
			"/no/such/file":   "no such file or directory",
			"/etc/passwd":     "permission denied",
		} {
			c := shell(b, "")
			c.Args = []string{args}
			if _, err := h.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", args, err, want)
			}
		}
		c := shell(b, "true")
		c.Dir = "/no/such/dir"
		if _, err := h.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), c.Dir) {
			t.Errorf("missing directory: %v", err)
		}
		c.Build = "other"
		if _, err := h.Run(t.Context(), c); err == nil {
			t.Error("a build that was not created runs a command")
		}
	})
}

// Old defect: cancel killed only the shell, and what it had started went on.
func TestCancelEndsTheWholeTree(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode, Grace: 20 * time.Second})
		b := newBuild(t, h, Build{})
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("cancelled by a person")
		var out buffer
		c := shell(b, "setsid sleep 1000 & echo $!; sleep 1001 & echo $!; echo ready; wait")
		c.Output = &out
		go func() {
			await(t, "the step", func() bool { return strings.Contains(out.String(), "ready") })
			cancel(cause)
		}()
		exit, err := h.Run(ctx, c)
		if !errors.Is(err, cause) {
			t.Errorf("error %v, want the cause", err)
		}
		if exit.Code != 143 || len(exit.Leftovers) > 0 {
			t.Errorf("%+v, want 143 and nothing left", exit)
		}
		assertClean(t, h, b.Name, pidsIn(out.String()))
	})
}

// pidsIn are the numbers that a step printed on lines of their own.
func pidsIn(out string) []int {
	var pids []int
	for _, word := range strings.Fields(out) {
		if pid, err := strconv.Atoi(word); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// assertClean tears the build down and checks that nothing of it is left, by the Host's word and by the kernel's.
func assertClean(t *testing.T, h *Host, name string, pids []int) {
	t.Helper()
	ctx := context.Background()
	if _, err := h.Teardown(ctx, name); err != nil {
		t.Error(err)
	}
	left, err := h.Remaining(ctx, name)
	if err != nil || len(left) > 0 {
		t.Errorf("remaining: %v, %v", left, err)
	}
	for _, pid := range pids {
		if p, ok := readProc(pid); ok && !p.zombie {
			t.Errorf("%s survived", p.item())
		}
	}
	if builds, err := h.Builds(ctx); err != nil || len(builds) > 0 {
		t.Errorf("builds: %v, %v", builds, err)
	}
	for _, folder := range h.tree.folders() {
		if below, err := folder.children(); err != nil || len(below) > 0 {
			t.Errorf("cgroups left: %v, %v", below, err)
		}
	}
}

// Old defect: `cmd &` that inherited stdout held the step open.
func TestBackgroundChildDoesNotHoldTheStep(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode, KeepLeftovers: true})
		b := newBuild(t, h, Build{})
		exit, out := mustRun(t, h, shell(b, "sleep 1000 & echo $!; echo done"))
		pids := pidsIn(out)
		if exit.Code != 0 || len(exit.Leftovers) != 1 || len(pids) != 1 || !strings.HasPrefix(exit.Leftovers[0].Detail, "sleep, running for") {
			t.Fatalf("%+v\n%s", exit, out)
		}
		left, err := h.EndStep(t.Context(), b.Name, "step")
		if err != nil || len(left) != 1 || left[0].Name != itoa(pids[0]) {
			t.Errorf("end of step: %v, %v", left, err)
		}
		if _, ok := readProc(pids[0]); !ok {
			t.Error("the leftover did not live on")
		}
		assertClean(t, h, b.Name, pids)
	})
}
