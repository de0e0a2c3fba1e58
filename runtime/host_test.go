package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	runner "github.com/drone/runner-go/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// testStep is a step in the little language that the tests use for pipelines: JSON, one object a step.
type testStep struct {
	Name      string
	Sh        string
	DependsOn []string
	Detach    bool
	Ignore    bool
	Run       engine.RunPolicy
	Env       map[string]string
	Secrets   []engine.Secret
}

// pipeline is the configuration of a build for the server. Steps without dependencies run one after the other.
func pipeline(t testing.TB, steps ...testStep) string {
	t.Helper()
	for i := range steps {
		if i > 0 && steps[i].DependsOn == nil {
			steps[i].DependsOn = []string{steps[i-1].Name}
		}
	}
	data, err := json.Marshal(steps)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// host is an engine of real processes for tests: it keeps the process groups of each build in a file, so that another
// process can end them too.
type host struct {
	dir string

	// onSetup and onDestroy may fail or panic in the engine's place.
	onSetup   func(*engine.Spec) error
	onDestroy func(build string) error

	mu sync.Mutex
}

func (h *host) root(build string) string { return filepath.Join(h.dir, build) }

// prepare is Config.Prepare: it reads the little language.
func (h *host) prepare(_ context.Context, detail *runner.Context) (*engine.Spec, error) {
	var steps []testStep
	if err := json.Unmarshal(detail.Config.Data, &steps); err != nil {
		return nil, fmt.Errorf(".drone.yml:1:1: %w", err)
	}
	build := engine.BuildName("test", detail.Stage.ID)
	spec := &engine.Spec{Build: build, Repo: detail.Repo.Slug, Root: h.root(build), Workspace: h.root(build)}
	for _, s := range steps {
		if s.Run == "" {
			s.Run = engine.RunOnSuccess
		}
		spec.Steps = append(spec.Steps, &engine.Step{
			Name: s.Name, DependsOn: s.DependsOn, Detach: s.Detach, IgnoreFailure: s.Ignore, Run: s.Run,
			Dir: h.root(build), Env: s.Env, Secrets: s.Secrets,
			Commands: []engine.Command{{Args: []string{"/bin/sh", "-ec", s.Sh}}},
		})
	}
	return spec, nil
}

func (h *host) Setup(_ context.Context, spec *engine.Spec) error {
	if h.onSetup != nil {
		if err := h.onSetup(spec); err != nil {
			return err
		}
	}
	return os.MkdirAll(spec.Root, 0o700)
}

func (h *host) Run(ctx context.Context, spec *engine.Spec, step *engine.Step, out io.Writer) (*engine.State, error) {
	if step.Env["PANIC"] != "" {
		panic(step.Env["PANIC"])
	}
	args := step.Commands[0].Args
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = step.Dir, out, out
	cmd.WaitDelay = 100 * time.Millisecond
	for k, v := range step.Env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	for _, s := range step.Secrets {
		cmd.Env = append(cmd.Env, s.Env+"="+s.Value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.start(cmd, spec.Build); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() {
		select {
		case <-ctx.Done():
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended meanwhile
		case <-ended:
		}
	})
	err := cmd.Wait()
	close(ended)
	killer.Wait()
	state := &engine.State{ExitCode: cmd.ProcessState.ExitCode()}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		state.ExitCode, state.Reason = 128+int(ws.Signal()), engine.Signaled
		switch cause := context.Cause(ctx); {
		case errors.Is(cause, engine.ErrCancelled):
			state.Reason = engine.Cancelled
		case errors.Is(cause, engine.ErrTimeout):
			state.Reason = engine.TimedOut
		case cause != nil:
			state.Reason = engine.Stopped
		}
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) || errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return state, err
}

// start starts the command and writes its process group down.
func (h *host) start(cmd *exec.Cmd, build string) (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f, err := os.OpenFile(h.root(build)+".pids", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, cmd.Process.Pid)
	return err
}

func (h *host) Destroy(_ context.Context, build string) (*engine.Report, error) {
	if h.onDestroy != nil {
		if err := h.onDestroy(build); err != nil {
			return &engine.Report{Build: build, Survivors: []leftover.Item{{Kind: "process", Name: "1"}}}, err
		}
	}
	report := &engine.Report{Build: build}
	data, err := os.ReadFile(h.root(build) + ".pids")
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for _, line := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			return nil, err
		}
		for syscall.Kill(-pid, syscall.SIGKILL) == nil {
			time.Sleep(time.Millisecond)
		}
	}
	if _, err := os.Stat(h.root(build)); err == nil {
		report.Removed = append(report.Removed, leftover.Item{Kind: "directory", Name: h.root(build)})
	}
	err = errors.Join(os.RemoveAll(h.root(build)), os.RemoveAll(h.root(build)+".pids"))
	return report, err
}

// left names what any build still has on the host.
func (h *host) left(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
