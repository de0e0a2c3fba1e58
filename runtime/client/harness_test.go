package client

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// quick keeps the tests short; its limits only matter to calls that hang.
var quick = Timing{
	Retry: 5 * time.Millisecond, RetryMax: 20 * time.Millisecond,
	Slow: 10 * time.Millisecond, SlowMax: 20 * time.Millisecond,
	Poll: 400 * time.Millisecond, MinPoll: 10 * time.Millisecond,
	Call: 400 * time.Millisecond, Report: 400 * time.Millisecond, Patience: 5 * time.Second,
}

// machine is the name that the tests accept stages under; it needs escaping on its way.
const machine = "host & co"

// output is a log or dump that many goroutines write.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// config is how the tests' server is reached, with the log written to out.
func config(srv *runtimetest.Server, out *output) Config {
	logger := logrus.New()
	logger.SetOutput(out)
	return Config{Proto: srv.Proto, Host: srv.Host, Secret: srv.Secret, Timing: quick, Log: logrus.NewEntry(logger)}
}

// connect returns a client of the server with the quick timing.
func connect(t testing.TB, srv *runtimetest.Server) *Client {
	t.Helper()
	return open(t, config(srv, &output{}))
}

func open(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// filter asks for any exec stage.
var filter = &runner.Filter{Kind: "pipeline", Type: "exec"}

// flight is a stage on its way, for tests that begin in its middle.
type flight struct {
	t     testing.TB
	srv   *runtimetest.Server
	c     *Client
	job   runtimetest.Enqueued
	stage *drone.Stage
}

// offered is a stage that was requested.
func offered(t testing.TB, options ...runtimetest.Option) *flight {
	t.Helper()
	srv := runtimetest.NewServer(t, options...)
	f := &flight{t: t, srv: srv, c: connect(t, srv), job: srv.Enqueue(runtimetest.Job{Config: "kind: pipeline"})}
	stage, err := f.c.Request(t.Context(), filter)
	f.must(err)
	if stage == nil || stage.ID != f.job.Stage {
		t.Fatalf("requested %v, want stage %d", stage, f.job.Stage)
	}
	stage.Machine = machine
	f.stage = stage
	return f
}

// accepted is a stage that was accepted.
func accepted(t testing.TB, options ...runtimetest.Option) *flight {
	t.Helper()
	f := offered(t, options...)
	f.must(f.c.Accept(t.Context(), f.stage))
	f.stage.Status, f.stage.Started = drone.StatusRunning, 1000
	for i := range 3 {
		f.stage.Steps = append(f.stage.Steps, &drone.Step{
			Number: i + 1, Name: fmt.Sprintf("step %d", i+1), Status: drone.StatusPending,
		})
	}
	return f
}

// running is a stage whose steps are registered.
func running(t testing.TB, options ...runtimetest.Option) *flight {
	t.Helper()
	f := accepted(t, options...)
	f.must(f.c.Update(t.Context(), f.stage))
	return f
}

// started is a running stage whose first step runs.
func started(t testing.TB, options ...runtimetest.Option) *flight {
	t.Helper()
	f := running(t, options...)
	f.begin()
	f.must(f.c.UpdateStep(t.Context(), f.step()))
	return f
}

func (f *flight) step() *drone.Step { return f.stage.Steps[0] }
func (f *flight) begin()            { f.step().Status, f.step().Started = drone.StatusRunning, 1001 }
func (f *flight) end()              { f.step().Status, f.step().Stopped = drone.StatusPassing, 1002 }

// finish makes the stage one that is to be reported as ended.
func (f *flight) finish(status string) {
	f.stage.Status, f.stage.Stopped, f.stage.Steps = status, 1003, nil
}

func (f *flight) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// inStep checks that stage and steps have the versions that the server has.
func (f *flight) inStep() error {
	got := f.srv.Stage(f.stage.ID)
	if got.Version != f.stage.Version {
		return fmt.Errorf("the stage has version %d, the server's has %d", f.stage.Version, got.Version)
	}
	for _, step := range f.stage.Steps {
		theirs, _ := f.srv.Step(f.stage.ID, step.Name)
		if theirs.ID != step.ID || theirs.Version != step.Version || theirs.Number != step.Number {
			return fmt.Errorf("%s is %d version %d number %d, the server's %d version %d number %d", step.Name,
				step.ID, step.Version, step.Number, theirs.ID, theirs.Version, theirs.Number)
		}
	}
	return nil
}

// within fails the test if f takes longer than a deadline that only a hang can reach.
func within(t testing.TB, f func(ctx context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := f(ctx)
	if ctx.Err() != nil {
		t.Fatalf("not done after a minute: %v", err)
	}
	return err
}

func lines(n int, message string) []*drone.Line {
	out := make([]*drone.Line, n)
	for i := range out {
		out[i] = &drone.Line{Number: i, Message: message, Timestamp: int64(i / 100)}
	}
	return out
}
