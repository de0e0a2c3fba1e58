package runtime

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/client"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// scale is by how much the tests' runner is faster than a real one in everything that it waits for.
const scale = 10

// fast are the waits of a runner in tests. Those that are only used up when something is wrong stay as they are, for
// machines that are busy.
func fast() *timing {
	t := defaultTiming()
	t.minute = 5 * time.Second
	for _, d := range []*time.Duration{
		&t.backoff, &t.backoffMax, &t.beat, &t.beatShort, &t.beatLong, &t.stagger, &t.paused, &t.retry, &t.retryMax,
	} {
		*d /= scale
	}
	return t
}

func fastClient() client.Timing {
	return client.Timing{
		Retry: time.Second / scale, RetryMax: 15 * time.Second / scale,
		Slow: 5 * time.Second / scale, SlowMax: time.Minute / scale,
		Poll: 4 * time.Second, MinPoll: time.Second / scale,
		Call: 10 * time.Second, Report: 10 * time.Second, Patience: 2 * time.Minute / scale,
	}
}

// rig is a runner, the server it works for and the host it works on.
type rig struct {
	t      testing.TB
	srv    *runtimetest.Server
	host   *host
	runner *Runner
	client *client.Client
	log    *safeBuffer
	state  string // the state directory

	stop context.CancelFunc
	done chan error
}

// newRig makes a rig whose runner does not run yet. The options may change the runner's configuration.
func newRig(t testing.TB, options ...func(*Config)) *rig {
	t.Helper()
	srv := runtimetest.NewServer(t, runtimetest.Poll(3*time.Second), runtimetest.Cards())
	dir := t.TempDir()
	g := &rig{t: t, srv: srv, log: &safeBuffer{}}
	h, err := newHost(filepath.Join(dir, "host"), srv.URL+dir, g.entry())
	if err != nil {
		t.Fatal(err)
	}
	g.host = h
	return g.open(filepath.Join(dir, "state"), options...)
}

// entry is the log of the rig.
func (g *rig) entry() *logrus.Entry {
	logger := logrus.New()
	logger.SetOutput(g.log)
	logger.SetLevel(logrus.DebugLevel)
	return logrus.NewEntry(logger)
}

// open makes the rig's runner on a state directory.
func (g *rig) open(state string, options ...func(*Config)) *rig {
	g.t.Helper()
	api, err := client.New(client.Config{
		Proto: g.srv.Proto, Host: g.srv.Host, Secret: g.srv.Secret, Timing: fastClient(), Log: g.entry(),
	})
	if err != nil {
		g.t.Fatal(err)
	}
	cfg := Config{
		Server: api, Address: g.host.address, Engine: g.host, Prepare: g.host.prepare, Machine: "tester",
		Filter:   runner.Filter{Kind: "pipeline", Type: "exec", OS: "linux", Arch: goarch()},
		Capacity: 1, State: state, Log: g.entry(),
	}
	for _, option := range options {
		option(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	r.setTiming(fast())
	g.runner, g.client, g.state = r, api, state
	return g
}

// waitAnswers gives the rig's runner a client that waits for each answer as long as this.
func (g *rig) waitAnswers(d time.Duration) {
	g.t.Helper()
	timing := fastClient()
	timing.Call, timing.Report, timing.Patience = d, d, max(d, timing.Patience)
	api, err := client.New(client.Config{
		Proto: g.srv.Proto, Host: g.srv.Host, Secret: g.srv.Secret, Timing: timing, Log: g.entry(),
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.client, g.runner.cfg.Server = api, api
}

// setTiming replaces the waits before the runner runs.
func (r *Runner) setTiming(t *timing) {
	r.timing, r.outbox.time, r.pulse.slow = t, t, t.stopped
}

// start lets the runner run until the test's end.
func (g *rig) start() *rig {
	g.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	g.stop, g.done = stop, make(chan error, 1)
	go func() { g.done <- g.runner.Run(ctx) }()
	var once sync.Once
	g.t.Cleanup(func() {
		once.Do(func() { g.halt() })
		if g.t.Failed() {
			g.t.Logf("the runner said:\n%s", g.log)
		}
	})
	return g
}

// halt stops the runner at once and returns how long that took. Halting again does nothing.
func (g *rig) halt() time.Duration {
	g.t.Helper()
	if g.done == nil {
		return 0
	}
	begun := time.Now()
	g.stop()
	g.wait()
	return time.Since(begun)
}

// wait waits for the runner's end.
func (g *rig) wait() {
	g.t.Helper()
	select {
	case err := <-g.done:
		if err != nil {
			g.t.Errorf("run: %v", err)
		}
	case <-time.After(time.Minute):
		g.t.Fatal("the runner does not stop")
	}
	g.done = nil
	if err := g.runner.Close(); err != nil {
		g.t.Error(err)
	}
	g.client.Close()
}

// build makes a build of these steps.
func (g *rig) build(steps ...testStep) runtimetest.Enqueued {
	g.t.Helper()
	return g.srv.Enqueue(runtimetest.Job{Config: pipeline(g.t, steps...)})
}

// settled waits until the stage is final on the server and the runner has forgotten it, and returns it.
func (g *rig) settled(stage int64) drone.Stage {
	g.t.Helper()
	g.srv.WaitDone(stage)
	eventually(g.t, "the journal is empty", func() bool { return len(g.journalled()) == 0 })
	return g.srv.Stage(stage)
}

// journalled names the journal's files.
func (g *rig) journalled() []string {
	g.t.Helper()
	entries, err := os.ReadDir(g.runner.journal.stages())
	if err != nil {
		g.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// stored is the log that the server keeps for a step, without the line about what it used.
func (g *rig) stored(stage int64, step string) string {
	g.t.Helper()
	s, ok := g.srv.Step(stage, step)
	if !ok {
		g.t.Fatalf("no step %s", step)
	}
	var text strings.Builder
	for _, line := range g.srv.Logs(s.ID).Stored {
		if !strings.HasPrefix(line.Message, "used ") {
			text.WriteString(line.Message)
		}
	}
	return text.String()
}

// eventually waits until ok is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute in vain: %s", what)
		}
	}
}

// expect compares the statuses of a stage's steps, written as `name status, name status`.
func expect(t testing.TB, stage drone.Stage, status, steps string) {
	t.Helper()
	var got []string
	for _, s := range stage.Steps {
		got = append(got, s.Name+" "+s.Status)
	}
	if all := strings.Join(got, ", "); stage.Status != status || all != steps {
		t.Errorf("the stage is %s (%q) with %s; want %s with %s", stage.Status, stage.Error, all, status, steps)
	}
}

// safeBuffer takes a log from many goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

var _ io.Writer = (*safeBuffer)(nil)
