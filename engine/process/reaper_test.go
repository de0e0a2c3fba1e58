//go:build linux

package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/reapertest"
)

func TestReaper(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
		ended, err := after.Teardown(t.Context(), b.Name)
		if err != nil || len(ended) < 2 || !strings.Contains(ended[0].Detail, "sleep") && !strings.Contains(ended[1].Detail, "sleep") {
			t.Errorf("teardown %v, %v", ended, err)
		}
		tearDown(t, before, b.Name) // what it holds itself
		assertClean(t, after, b.Name, pidsIn(out))
	})
}

// A process can claim to be of any build; only what a build can be called is believed.
func TestMarkerIsNoPath(t *testing.T) {
	t.Parallel()
	h := openHost(t, Config{})
	for _, name := range []string{"..", ".", "", "../x", "x/..", ".x", probePrefix + "x", "x" + keptSuffix} {
		child := exec.CommandContext(t.Context(), "sleep", "1000")
		child.Env = []string{MarkerEnv + "=" + h.markerValue(name)}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := child.Process.Kill(); err != nil {
				t.Error(err)
			}
			_ = child.Wait() // that it was killed is no news
		}()
	}
	if builds, err := h.Builds(t.Context()); err != nil || len(builds) != 0 {
		t.Errorf("builds %q, %v", builds, err)
	}
}

// What builds of exempt repositories leave running lives on, in a place where no later sweep finds it.
func TestKeep(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
	h := openHost(t, Config{KeepLeftovers: true, ShareMounts: true, outputGrace: 30 * time.Second})
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

// A runner that is killed outright: its builds end at once where a launcher watches over them, and with the next
// start's sweep where a cgroup remembers them.
func TestRunnerIsKilled(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		name := testName(t)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		out := &buffer{}
		runner := exec.CommandContext(t.Context(), self)
		runner.Env = []string{"CC_CI_TEST_CHILD=runner", "CC_CI_TEST_NAME=" + name, "CC_CI_TEST_MODE=" + string(mode), "CC_CI_TEST_DIR=" + t.TempDir()}
		runner.Stdout = out
		if err := runner.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, "the step", func() bool { return len(pidsIn(out.String())) == 2 })
		pids := pidsIn(out.String())
		if err := runner.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := runner.Wait(); err == nil {
			t.Error("the runner was not killed")
		}
		h := openHost(t, Config{Mode: mode, Name: name})
		if mode == Subreaper {
			await(t, "the launcher to clean up", func() bool {
				_, one := readProc(pids[0])
				_, two := readProc(pids[1])
				return !one && !two
			})
		}
		assertClean(t, h, "build", pids)
	})
}

// A cgroup that a start from elsewhere left behind is found by its name, unless a living runner uses it.
func TestFolderElsewhereIsSwept(t *testing.T) {
	t.Parallel()
	h := openHost(t, Config{})
	if h.tree == nil {
		t.Skip("no cgroups")
	}
	place := h.tree.folder.child("service")
	old := place.child("runner-x").child("build")
	if err := os.MkdirAll(string(old), 0o755); err != nil {
		t.Fatal(err)
	}
	after := func() *Host {
		found := &tree{folder: cgroup("/elsewhere/runner-x")}
		found.earlier = found.abandoned(string(place), found.folder, func(name string) bool { return name == found.folder.name() })
		return &Host{cfg: h.cfg, tree: found, builds: map[string]*build{}}
	}
	first := after()
	if builds, err := first.Builds(t.Context()); err != nil || !slices.Contains(builds, "build") {
		t.Errorf("builds %v, %v", builds, err)
	}
	second := after()
	if builds, err := second.Builds(t.Context()); err != nil || slices.Contains(builds, "build") {
		t.Errorf("builds of a living runner: %v, %v", builds, err)
	}
	tearDown(t, first, "build")
	if old.exists() {
		t.Errorf("%s is left", old)
	}
	if err := errors.Join(first.tree.close(), second.tree.close(), place.remove()); err != nil {
		t.Error(err)
	}
}

// A cgroup that hands controllers down may hold no process: the runner makes room, whichever controllers there are, and
// its builds can start in what it made. At the end it goes back.
func TestRunnerMovesToALeaf(t *testing.T) {
	needRoot(t)
	h := openHost(t, Config{})
	if h.tree == nil {
		t.Skip("no cgroups")
	}
	home, base := cgroup(filepath.Dir(string(h.tree.folder))), h.tree.folder.child("service")
	sub := &tree{base: base, folder: base.child("runner-x")}
	err := errors.Join(os.MkdirAll(string(sub.folder), 0o755), base.write("cgroup.procs", itoa(os.Getpid())))
	if err != nil {
		t.Fatal(err)
	}
	// The last one is a controller that the kernel hands down from a cgroup with processes, too.
	for _, c := range h.tree.controllers[max(0, len(h.tree.controllers)-1):] {
		if err := h.tree.folder.write("cgroup.subtree_control", "+"+c); err != nil {
			t.Fatal(err)
		}
	}
	// Twice: where no controller is handed down, the first does nothing.
	if sub.enableControllers(); sub.leaf == "" {
		err = sub.makeRoom()
	}
	trees, readErr := readHierarchies()
	leaf := base.child("runner-x" + leafSuffix)
	if err = errors.Join(err, readErr); err != nil || trees.unified.own != string(leaf) || len(sub.problems) > 0 {
		t.Errorf("own cgroup %+v, want %s: %v, %v", trees.unified, leaf, err, sub.problems)
	}
	if got := delegatedBase(leaf, "/", "runner-x"); got != base {
		t.Errorf("the next start builds in %s, want %s", got, base)
	}
	if got, err := sub.folder.read("cgroup.subtree_control"); err != nil || len(strings.Fields(got)) != len(sub.controllers) {
		t.Errorf("controllers of the builds: %q, %v; want %v", got, err, sub.controllers)
	}
	if err := probeKill(t.Context(), "/proc/self/exe", sub.folder); err != nil {
		t.Errorf("a build below: %v", err)
	}
	sub.lock(sub.folder)
	if err := sub.close(); err != nil || sub.folder.exists() || leaf.exists() {
		t.Errorf("after the end: %v, folder %t, leaf %t", err, sub.folder.exists(), leaf.exists())
	}
	if err := errors.Join(home.write("cgroup.procs", itoa(os.Getpid())), base.remove()); err != nil {
		t.Error(err)
	}
}

// Another runner of the same name, or a person who asks with `leaks`, does not take the folder away from one that works;
// and one whose folder was taken away by hand goes on.
func TestFolderIsNotTakenAway(t *testing.T) {
	t.Parallel()
	h := openHost(t, Config{})
	if h.tree == nil {
		t.Skip("no cgroups")
	}
	guest, err := Open(t.Context(), h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := guest.Close(); err != nil {
		t.Error(err)
	}
	for _, folder := range h.tree.folders() {
		if !folder.exists() {
			t.Errorf("%s is gone", folder)
		}
	}
	if err := h.tree.folder.remove(); err != nil {
		t.Fatal(err)
	}
	b := newBuild(t, h, Build{})
	if exit, out := mustRun(t, h, shell(b, "true")); exit.Code != 0 {
		t.Errorf("%+v\n%s", exit, out)
	}
	tearDown(t, h, b.Name)
}
