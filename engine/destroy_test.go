package engine

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/process"
)

func TestDestroyOfNothingAndTwice(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(e, 1, "true")
	if report, err := e.Destroy(t.Context(), spec.Build); err != nil || report.found() {
		t.Errorf("destroying nothing: %+v, %v", report, err)
	}
	setUp(t, e, spec)
	for range 2 {
		if _, err := e.Destroy(t.Context(), spec.Build); err != nil {
			t.Error(err)
		}
	}
}

// stubborn is a Reaper of a thing that cannot be removed.
type stubborn struct{ item leftover.Item }

func (s stubborn) Builds(context.Context) ([]string, error) { return nil, nil }

func (s stubborn) Teardown(context.Context, string) ([]leftover.Item, error) {
	return nil, errors.New("it does not let go")
}

func (s stubborn) Remaining(context.Context, string) ([]leftover.Item, error) {
	return []leftover.Item{s.item}, nil
}

func TestSurvivorsAreALeak(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(e, 1, "true")
	if err := e.Setup(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	e.reapers = append(e.reapers, stubborn{leftover.Item{Kind: "volume", Name: "data", Detail: "in use"}})
	report, err := e.Destroy(t.Context(), spec.Build)
	var leak *LeakError
	if !errors.As(err, &leak) || len(leak.Items) != 1 || leak.Items[0].Name != "data" {
		t.Fatalf("the error is %v", err)
	}
	if len(report.Survivors) != 1 {
		t.Errorf("the report is %+v", report)
	}
	if _, err := os.Lstat(spec.Root); !errors.Is(err, os.ErrNotExist) {
		t.Error("one reaper's failure kept the others from their work")
	}
}

func TestReportsAreKeptAndPruned(t *testing.T) {
	e := newEngine(t, nil)
	for stage := range int64(4) {
		spec := newSpec(e, stage, "true")
		if err := e.Setup(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Destroy(t.Context(), spec.Build); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(e.config.ReportDir, "*.json"))
	if err != nil || len(files) != 2 {
		t.Errorf("there are %v, %v; want the two newest", files, err)
	}
}

// TestReportOfTheWorkStays: a second teardown, which finds nothing, does not replace what the first one found.
func TestReportOfTheWorkStays(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(e, 1, "true")
	setUp(t, e, spec)
	for range 2 {
		if _, err := e.Destroy(t.Context(), spec.Build); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(e.config.ReportDir, spec.Build+".json"))
	if err != nil || !strings.Contains(string(text), spec.Root) {
		t.Errorf("the report does not name the directory that was removed: %s, %v", text, err)
	}
}

// TestSweepAfterACrash runs a build in a child process, kills that, and sweeps; a build that lives is left alone.
func TestSweepAfterACrash(t *testing.T) {
	e := newEngine(t, nil)
	crashed, alive := newSpec(e, 1, "true"), newSpec(e, 2, "true")
	setUp(t, e, alive)
	if err := os.MkdirAll(crashed.Workspace, 0o700); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), holdEnv+"="+e.config.LockDir, "BUILD="+crashed.Build)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	if reports, err := e.Sweep(t.Context()); err != nil || len(reports) != 0 {
		t.Errorf("while both live, the sweep found %+v, %v", reports, err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed, which Wait reports as an error
	reports, err := e.Sweep(t.Context())
	if err != nil || len(reports) != 1 || reports[0].Build != crashed.Build {
		t.Errorf("after the crash, the sweep found %+v, %v", reports, err)
	}
	if _, err := os.Lstat(crashed.Root); !errors.Is(err, os.ErrNotExist) {
		t.Error("the crashed build's directory is still there")
	}
	if _, err := os.Lstat(alive.Root); err != nil {
		t.Errorf("the living build was swept away: %v", err)
	}
}

// TestSweepTellsNoDetails: a command line may hold a secret that nobody knows any more who could mask it.
func TestSweepTellsNoDetails(t *testing.T) {
	e := newEngine(t, nil)
	if err := os.MkdirAll(newSpec(e, 1, "true").Root, 0o700); err != nil {
		t.Fatal(err)
	}
	e.reapers = append(e.reapers, stubborn{leftover.Item{Kind: "process", Name: "4711", Detail: "login canary"}})
	reports, err := e.Sweep(t.Context())
	if err == nil || len(reports) != 1 {
		t.Fatalf("the sweep found %+v, %v", reports, err)
	}
	text := strings.Join(reports[0].Lines(), "\n") + err.Error()
	if strings.Contains(text, "canary") || strings.Count(text, "process 4711") != 2 {
		t.Errorf("the sweep tells: %s", text)
	}
}

// TestKeptProcessesAfterACrash: what the build of an exempt repository left running lives on, and the report of the
// process that recovers the crash says so.
func TestKeptProcessesAfterACrash(t *testing.T) {
	for _, mode := range []process.Mode{"", process.Subreaper} {
		t.Run("mode "+string(mode), func(t *testing.T) {
			name := "cc-ci-test-kept-" + strconv.Itoa(os.Getpid()) + string(mode)
			host := func() *process.Host {
				host, err := process.Open(t.Context(), process.Config{Name: name, Mode: mode, Grace: time.Second})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := host.Close(); err != nil {
						t.Errorf("close the host: %v", err)
					}
				})
				return host
			}
			before := newEngine(t, func(c *Config) { c.Processes, c.Keep = host(), func(string) bool { return true } })
			spec := newSpec(before, 1, "setsid sleep 1000 >/dev/null 2>&1 & echo $!")
			setUp(t, before, spec)
			var out buffer
			if _, err := before.Run(t.Context(), spec, spec.Steps[0], &out); err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(out.String()))
			if err != nil {
				t.Fatal(err)
			}
			defer endKept(t, before, pid)
			// As the kernel does when the process ends.
			if err := before.locks.release(spec.Build); err != nil {
				t.Fatal(err)
			}
			after := newEngine(t, func(c *Config) { c.Processes, c.Workspaces = host(), before.config.Workspaces })
			reports, err := after.Sweep(t.Context())
			if err != nil || len(reports) != 1 {
				t.Fatalf("the sweep found %+v, %v", reports, err)
			}
			if r := reports[0]; len(r.Kept) != 1 || r.Kept[0].Name != strconv.Itoa(pid) || len(r.Leftovers) != 0 {
				t.Errorf("the report says:\n%s", strings.Join(r.Lines(), "\n"))
			}
		})
	}
}

// endKept kills a process that must still be there, and waits until a teardown can clear its cgroup away.
func endKept(t *testing.T, e *Engine, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the kept process is gone: %v", err)
	}
	host := e.config.Processes
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if _, err := host.Teardown(t.Context(), BuildName("http://test", 1)); err != nil {
			t.Fatal(err)
		}
		kept, err := filepath.Glob(host.Report().Cgroup + "/*.kept")
		if err != nil || len(kept) == 0 {
			return
		}
	}
	t.Errorf("the cgroup of process %d stays", pid)
}

// TestSweepBelievesNoPath: the name of a build that a process carries in its environment is the process's own word, and
// any user of the host can start one. What is not the name of a build must not become a path.
func TestSweepBelievesNoPath(t *testing.T) {
	name := "cc-ci-test-paths-" + strconv.Itoa(os.Getpid())
	host, err := process.Open(t.Context(), process.Config{Name: name, Grace: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Errorf("close the host: %v", err)
		}
	})
	dir := t.TempDir()
	e := newEngine(t, func(c *Config) {
		c.Processes, c.Workspaces, c.LockDir = host, &Workspaces{Parent: filepath.Join(dir, "builds")}, filepath.Join(dir, "locks")
	})
	files := []string{filepath.Join(dir, "victim", "file"), filepath.Join(dir, "victim.lock"), filepath.Join(dir, "builds", "other", "file")}
	for _, file := range files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, build := range []string{"../victim", "other"} {
		child := exec.CommandContext(t.Context(), "sleep", "1000")
		child.Env = []string{process.MarkerEnv + "=" + name + "/" + build}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = child.Process.Kill() // it may have been swept
			_ = child.Wait()         // that it was killed is no news
		}()
	}
	if _, err := e.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
}

func TestFindTellsTheLivingFromTheLeft(t *testing.T) {
	e := newEngine(t, nil)
	alive, left := newSpec(e, 1, "true"), newSpec(e, 2, "true")
	setUp(t, e, alive)
	if err := os.MkdirAll(left.Workspace, 0o700); err != nil {
		t.Fatal(err)
	}
	found, err := e.Find(t.Context())
	if err != nil || len(found) != 2 {
		t.Fatalf("found %+v, %v", found, err)
	}
	for _, f := range found {
		if f.Live != (f.Build == alive.Build) || len(f.Items) == 0 {
			t.Errorf("found %+v", f)
		}
	}
	if _, err := e.Destroy(t.Context(), left.Build); err != nil {
		t.Fatal(err)
	}
	if found, err = e.Find(t.Context()); err != nil || len(found) != 1 {
		t.Errorf("after the teardown there is %+v, %v", found, err)
	}
}
