package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/process"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// The test binary is also the stub that engine/process starts steps with.
func TestMain(m *testing.M) {
	if handled, code := process.Main(os.Args); handled {
		os.Exit(code)
	}
	if dir := os.Getenv(holdEnv); dir != "" {
		os.Exit(holdLock(dir, os.Getenv("BUILD")))
	}
	code := m.Run()
	if err := docker.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop Docker:", err)
		code = 1
	}
	os.Exit(code)
}

// docker is a daemon of the tests' own; see swarmtest.
var docker swarmtest.Lazy

// holdEnv makes the test binary a runner that holds a build's lock until it is killed.
const holdEnv = "ENGINE_TEST_HOLD_LOCK"

func holdLock(dir, build string) int {
	held, err := newLocks(dir)
	if err == nil {
		err = held.take(build)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("held")
	time.Sleep(time.Hour) // it is killed long before
	return 0
}

// buffer is a log that several goroutines may write.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newEngine is a real engine with real processes in directories of the test's own.
func newEngine(t *testing.T, change func(*Config)) *Engine {
	t.Helper()
	return newEngineAs(t, "", change)
}

// newEngineAs is newEngine with steps that run as other users.
func newEngineAs(t *testing.T, user string, change func(*Config)) *Engine {
	t.Helper()
	// A name that no other engine has, in this process or another: they would end each other's builds.
	name := fmt.Sprintf("cc-ci-test-%d-%s-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "_"), filepath.Base(t.TempDir()))
	host, err := process.Open(t.Context(), process.Config{User: user, Name: name, Grace: time.Second, KeepLeftovers: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Errorf("close the host: %v", err)
		}
	})
	log := logrus.New()
	log.SetOutput(t.Output())
	config := Config{
		Workspaces:  &Workspaces{Parent: t.TempDir()},
		Processes:   host,
		LockDir:     t.TempDir(),
		ReportDir:   t.TempDir(),
		KeepReports: 2,
		Log:         logrus.NewEntry(log),
	}
	if change != nil {
		change(&config)
	}
	e, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// newSpec is a build with one script as its only step.
func newSpec(e *Engine, stage int64, script string) *Spec {
	name := BuildName("http://test", stage)
	root := e.config.Workspaces.Root(name)
	return &Spec{
		Build: name, Repo: "octo/hello", Root: root,
		Home: filepath.Join(root, "home"), Workspace: filepath.Join(root, "src"),
		Scripts: filepath.Join(root, "opt"), Tmp: filepath.Join(root, "tmp"),
		Steps: []*Step{{
			Name: "test", Run: RunOnSuccess, Dir: filepath.Join(root, "src"),
			Env:      map[string]string{"PATH": os.Getenv("PATH")},
			Commands: []Command{{Args: []string{"/bin/sh", "-ec", script}}},
		}},
	}
}

// setUp sets the build up and destroys it at the end of the test.
func setUp(t *testing.T, e *Engine, spec *Spec) {
	t.Helper()
	t.Cleanup(func() {
		if _, err := e.Destroy(context.Background(), spec.Build); err != nil {
			t.Errorf("destroy: %v", err)
		}
	})
	if err := e.Setup(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
}

func TestStepRunsAndNothingIsLeft(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(e, 1, "echo hello; pwd; sleep 1000 >/dev/null 2>&1 & echo started")
	setUp(t, e, spec)
	var out buffer
	state, err := e.Run(t.Context(), spec, spec.Steps[0], &out)
	if err != nil {
		t.Fatal(err)
	}
	if state.ExitCode != 0 || state.Reason != Exited {
		t.Errorf("the step ended with %+v", state)
	}
	if want := "hello\n" + spec.Workspace + "\nstarted\n"; out.String() != want {
		t.Errorf("the output is %q, want %q", out.String(), want)
	}
	if len(state.Leftovers) != 1 || !strings.Contains(state.Leftovers[0], "sleep") {
		t.Errorf("the step left %v, want a sleep", state.Leftovers)
	}
	report, err := e.Destroy(t.Context(), spec.Build)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Leftovers) != 1 || report.Leftovers[0].Kind != "process" || len(report.Survivors) != 0 {
		t.Errorf("the report is %+v", report)
	}
	if text := strings.Join(report.Lines(), "\n"); !strings.Contains(text, "clean: nothing is left") || !strings.Contains(text, "sleep") {
		t.Errorf("the report says:\n%s", text)
	}
	if _, err := os.Lstat(spec.Root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the build's directory is still there: %v", err)
	}
}

func TestReasonsAreToldApart(t *testing.T) {
	tests := []struct {
		name   string
		script string
		cause  error
		reason Reason
		code   int
	}{
		{"exit code", "exit 3", nil, Exited, 3},
		{"signal", "kill -KILL $$", nil, Signaled, 137},
		{"cancel", "echo go; exec sleep 1000", ErrCancelled, Cancelled, 143},
		{"timeout", "echo go; exec sleep 1000", ErrTimeout, TimedOut, 143},
		{"stop", "echo go; exec sleep 1000", ErrStopped, Stopped, 143},
		{"end of the stage", "echo go; exec sleep 1000", ErrStageEnded, StageEnded, 143},
		{"cancel with a shell that ignores it", "trap '' TERM; echo go; while :; do sleep 0.1; done", ErrCancelled, Cancelled, 137},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := newEngine(t, nil)
			spec := newSpec(e, int64(i), test.script)
			setUp(t, e, spec)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			out := &started{begun: make(chan struct{})}
			if test.cause != nil {
				go func() { <-out.begun; cancel(test.cause) }()
			}
			state, err := e.Run(ctx, spec, spec.Steps[0], out)
			if err != nil {
				t.Fatal(err)
			}
			if state.Reason != test.reason || state.ExitCode != test.code {
				t.Errorf("ended with code %d and reason %q, want %d and %q", state.ExitCode, state.Reason, test.code, test.reason)
			}
		})
	}
}

// started closes begun at the first write.
type started struct {
	once  sync.Once
	begun chan struct{}
}

func (s *started) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.begun) })
	return len(p), nil
}

func TestStepTimeoutEndsTheStep(t *testing.T) {
	e := newEngine(t, func(c *Config) { c.Limits = func() Limits { return Limits{StepTimeout: 300 * time.Millisecond} } })
	spec := newSpec(e, 1, "sleep 1000")
	setUp(t, e, spec)
	state, err := e.Run(t.Context(), spec, spec.Steps[0], &buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if state.Reason != TimedOut {
		t.Errorf("the reason is %q", state.Reason)
	}
}

func TestDiskLimitEndsTheStep(t *testing.T) {
	e := newEngine(t, func(c *Config) { c.Limits = func() Limits { return Limits{DiskBytes: 1 << 20} } })
	spec := newSpec(e, 1, "dd if=/dev/zero of=big bs=1024 count=4096 2>/dev/null; sleep 1000")
	setUp(t, e, spec)
	state, err := e.Run(t.Context(), spec, spec.Steps[0], &buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if state.Reason != DiskFull {
		t.Errorf("the reason is %q", state.Reason)
	}
}

// A step's files (the clone's netrc) exist while it runs and not a moment longer.
func TestStepFilesLiveWithTheStep(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(e, 1, "cat $FILE")
	path := filepath.Join(spec.Home, ".netrc")
	step := spec.Steps[0]
	step.Files = []*File{{Path: path, Mode: 0o600, Data: []byte("machine example.org")}}
	step.Env["FILE"] = path
	setUp(t, e, spec)
	var out buffer
	if _, err := e.Run(t.Context(), spec, step, &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != "machine example.org" {
		t.Errorf("the step read %q", out.String())
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file outlived its step: %v", err)
	}
}

func TestFilesStayBelowTheRoot(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(root, "home")); err != nil {
		t.Fatal(err)
	}
	err := writeFiles(root, []*File{{Path: filepath.Join(root, "home", ".netrc"), Mode: 0o600, Data: []byte("x")}}, nil)
	if err == nil {
		t.Error("a file was written through a link that leads out of the root")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("outside there is %v, %v", entries, err)
	}
}

func TestRetriesAndTrace(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(e, 1, "")
	step := spec.Steps[0]
	step.Commands = []Command{
		{Args: []string{"sh", "-c", "test -e tried || { touch tried; exit 4; }"}, Trace: "try", Retries: 2},
		{Args: []string{"echo", "done"}, Trace: "echo done"},
	}
	setUp(t, e, spec)
	var out buffer
	state, err := e.Run(t.Context(), spec, step, &out)
	if err != nil || state.ExitCode != 0 {
		t.Fatalf("ended with %+v, %v", state, err)
	}
	want := "+ try\nexit code 4, trying again in 1s (1 of 2)\n+ try\n+ echo done\ndone\n"
	if out.String() != want {
		t.Errorf("the log is %q, want %q", out.String(), want)
	}
}

// cancelAt is an output that calls cancel when it is given a text.
type cancelAt struct {
	buffer
	text   string
	cancel func()
}

func (c *cancelAt) Write(b []byte) (int, error) {
	if strings.Contains(string(b), c.text) {
		c.cancel()
	}
	return c.buffer.Write(b)
}

// TestCancelBetweenTwoTries: what the try before it has used counts once.
func TestCancelBetweenTwoTries(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(e, 1, "")
	step := spec.Steps[0]
	script := "i=0; while [ $i -lt 1500000 ]; do i=$((i+1)); done; times; exit 1"
	step.Commands = []Command{{Args: []string{"sh", "-c", script}, Retries: 1}}
	setUp(t, e, spec)
	ctx, cancel := context.WithCancelCause(t.Context())
	out := &cancelAt{text: "trying again", cancel: func() { cancel(ErrCancelled) }}
	state, err := e.Run(ctx, spec, step, out)
	if err != nil || state.Reason != Cancelled || state.ExitCode != 1 {
		t.Fatalf("ended with %+v, %v", state, err)
	}
	var minutes, user, system float64
	if _, err := fmt.Sscanf(out.String(), "%fm%fs 0m%fs", &minutes, &user, &system); err != nil {
		t.Fatalf("the shell says %q: %v", out.String(), err)
	}
	if used := minutes*60 + user + system; state.CPUSeconds > 1.5*used+0.2 {
		t.Errorf("the step used %.2f s of the processor, the shell in it %.2f s", state.CPUSeconds, used)
	}
}

func TestSecretsBeatTheEnvironment(t *testing.T) {
	e := newEngine(t, nil)
	spec := newSpec(e, 1, "")
	spec.Steps[0].Env["TOKEN"] = "literal"
	spec.Steps[0].Env["TITLE"] = "zero\x00byte"
	spec.Steps[0].Secrets = []Secret{{Env: "TOKEN", Name: "token", Value: "s3cret"}}
	list := strings.Join(e.environ(spec, spec.Steps[0]), "\n")
	if !strings.Contains(list, "TITLE=zerobyte") {
		t.Error("a zero byte is still in the environment")
	}
	if !strings.Contains(list, "TOKEN=s3cret") || strings.Contains(list, "literal") {
		t.Errorf("the environment is:\n%s", list)
	}
}
