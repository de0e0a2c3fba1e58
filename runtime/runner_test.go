package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"
	"golang.org/x/sync/semaphore"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// running waits until the stage's step of that number runs.
func (g *rig) running(stage int64, number int) {
	g.t.Helper()
	g.srv.WaitStage(stage, func(s drone.Stage) bool {
		return len(s.Steps) >= number && s.Steps[number-1].Status == "running"
	})
}

// A drain lets the stage that runs come to its end and takes no other.
func TestDrain(t *testing.T) {
	t.Parallel()
	g := newRig(t).start()
	job := g.build(testStep{Name: "a", Sh: "until test -e go; do sleep 0.01; done"})
	g.running(job.Stage, 1)
	g.runner.Drain()
	other := g.build(testStep{Name: "b", Sh: "true"})
	if !g.runner.Status().Draining {
		t.Error("the status does not say that the runner drains")
	}
	root := filepath.Join(g.host.dir, "builds", engine.BuildName(g.host.address, job.Stage), "src", "go")
	if err := os.WriteFile(root, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.wait()
	expect(t, g.srv.Stage(job.Stage), "success", "a success, teardown success")
	if stage := g.srv.Stage(other.Stage); stage.Machine != "" {
		t.Error("a stage was accepted while the runner drained")
	}
}

// When the drain's time is over, what still runs is stopped, torn down and reported (2.3 #29).
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	g := newRig(t, func(c *Config) { c.DrainTimeout = 100 * time.Millisecond }).start()
	job := g.build(testStep{Name: "a", Sh: "sleep 1000"}, testStep{Name: "b", Sh: "true"})
	g.running(job.Stage, 1)
	g.runner.Drain()
	g.wait()
	stage := g.srv.Stage(job.Stage)
	expect(t, stage, "error", "a error, b skipped, teardown success")
	if stage.Error != "the runner was stopped while this stage ran" {
		t.Errorf("error: %q", stage.Error)
	}
	if left := g.host.left(t); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
}

// The end of Run's context, a second signal, stops at once, with teardown and report.
func TestStopAtOnce(t *testing.T) {
	t.Parallel()
	g := newRig(t).start()
	job := g.build(testStep{Name: "a", Sh: "sleep 1000"})
	g.running(job.Stage, 1)
	g.runner.Drain()
	g.halt()
	expect(t, g.srv.Stage(job.Stage), "error", "a error, teardown success")
}

// An idle runner stops at once although its poll is open.
func TestStopWhileIdle(t *testing.T) {
	t.Parallel()
	g := newRig(t).start()
	g.srv.WaitRequests(runtimetest.RequestStage, 1)
	if took := g.halt(); took > stopLimit {
		t.Errorf("the stop took %s", took)
	}
}

// A stop while the server is away does not wait for it.
func TestStopWhileServerIsAway(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.runner.timing.hold, g.runner.timing.stepsLimit, g.runner.timing.stopHold = time.Hour, time.Hour, time.Hour
	g.start()
	job := g.build(testStep{Name: "a", Sh: "sleep 1000"})
	g.running(job.Stage, 1)
	g.srv.Down()
	eventually(t, "the client notices", func() bool { return !g.client.Health().OK })
	if took := g.halt(); took > stopLimit {
		t.Errorf("the stop took %s", took)
	}
	g.srv.Heal()
	g.recovered().start()
	expect(t, g.settled(job.Stage), "error", "a error, teardown success")
}

// The capacity changes while stages run: more slots open at once, too many close when they are free.
func TestSetCapacity(t *testing.T) {
	t.Parallel()
	g := newRig(t).start()
	wait := testStep{Name: "a", Sh: "sleep 1000"}
	first, second := g.build(wait), g.build(wait)
	g.running(first.Stage, 1)
	g.runner.SetCapacity(2)
	g.running(second.Stage, 1)
	if n := len(g.runner.Status().Running); n != 2 {
		t.Errorf("%d stages run", n)
	}
	g.runner.SetCapacity(1)
	g.srv.Cancel(first.Build)
	g.srv.WaitStage(first.Stage, func(s drone.Stage) bool { return s.Status == "killed" })
	eventually(t, "the slot closes", func() bool {
		g.runner.mu.Lock()
		defer g.runner.mu.Unlock()
		return g.runner.slots == 1
	})
	if stage := g.srv.Stage(second.Stage); stage.Status != "running" {
		t.Errorf("the other stage is %s", stage.Status)
	}
	g.srv.Cancel(second.Build)
	eventually(t, "both are forgotten", func() bool { return len(g.journalled()) == 0 })
}

// The status knows that the server is there before a poll has ended, and that it is away while one is waited out.
func TestStatusOfPolling(t *testing.T) {
	t.Parallel()
	g := newRig(t).start()
	eventually(t, "the server has answered", func() bool { return g.runner.Status().Poll.OK })
	g.srv.Down()
	eventually(t, "the server is away", func() bool { p := g.runner.Status().Poll; return !p.OK && p.Err != nil })
	g.srv.Heal()
	eventually(t, "the server is back", func() bool { return g.runner.Status().Poll.OK })
}

// A runner that is paused takes nothing and says why.
func TestPause(t *testing.T) {
	t.Parallel()
	var reason atomic.Value
	reason.Store("the swarm has no manager")
	g := newRig(t, func(c *Config) { c.Paused = func() string { return reason.Load().(string) } }).start()
	job := g.build(testStep{Name: "a", Sh: "true"})
	eventually(t, "the status says why", func() bool { return g.runner.Status().Poll.Paused == "the swarm has no manager" })
	if n := len(g.srv.Requests(runtimetest.Accept)); n > 0 {
		t.Error("a stage was accepted")
	}
	reason.Store("")
	g.settled(job.Stage)
}

// A runner that cannot write its journal takes nothing and says why, until it can again.
func TestPauseWithoutAJournal(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	stages := g.runner.journal.stages()
	if err := os.Rename(stages, stages+".away"); err != nil {
		t.Fatal(err)
	}
	g.start()
	job := g.build(testStep{Name: "a", Sh: "true"})
	eventually(t, "the status says why", func() bool {
		return strings.Contains(g.runner.Status().Poll.Paused, "the journal cannot be written")
	})
	if n := len(g.srv.Requests(runtimetest.Accept)); n > 0 {
		t.Error("a stage was accepted")
	}
	if err := os.Rename(stages+".away", stages); err != nil {
		t.Fatal(err)
	}
	expect(t, g.settled(job.Stage), "success", "a success, teardown success")
}

// A second runner on the state directory is refused with a sentence that says what to do.
func TestStateDirectoryIsLocked(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	_, err := New(g.runner.cfg)
	if !errors.Is(err, errLocked) || !strings.Contains(err.Error(), "DRONE_RUNNER_STATE") {
		t.Errorf("a second runner: %v", err)
	}
	if err := g.runner.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := New(g.runner.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// MaxProcs limits the steps of all stages together.
func TestMaxProcs(t *testing.T) {
	t.Parallel()
	g := newRig(t, func(c *Config) { c.MaxProcs, c.Capacity = 1, 2 })
	var mu sync.Mutex
	var ends []time.Time
	g.runner.cfg.Hooks.StepEnded = func(e StepEnd) {
		mu.Lock()
		defer mu.Unlock()
		ends = append(ends, time.Now().Add(-e.Took), time.Now())
	}
	g.start()
	step := testStep{Name: "a", Sh: "sleep 0.3"}
	first, second := g.build(step), g.build(step)
	g.settled(first.Stage)
	g.settled(second.Stage)
	mu.Lock()
	defer mu.Unlock()
	if len(ends) != 4 || ends[2].Add(20*time.Millisecond).Before(ends[1]) {
		t.Errorf("the steps ran at %v", ends)
	}
}

// A stage whose concurrency limit is only free on the server waits until the one before it is torn down here.
func TestLimitWaitsForTeardown(t *testing.T) {
	t.Parallel()
	g := newRig(t, func(c *Config) { c.Capacity = 2 })
	tearing, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	g.host.onDestroy = func(string) { once.Do(func() { close(tearing); <-release }) }
	var setups atomic.Int32
	g.host.onSetup = func(*engine.Spec) error { setups.Add(1); return nil }
	g.start()
	limited := func(sh string) runtimetest.Enqueued {
		return g.srv.Enqueue(runtimetest.Job{
			Config: pipeline(t, testStep{Name: "a", Sh: sh}), Stages: []drone.Stage{{Limit: 1}},
		})
	}
	first := limited("sleep 1000")
	g.running(first.Stage, 1)
	second := limited("true")
	g.srv.Cancel(first.Build)
	<-tearing
	g.srv.WaitStage(second.Stage, func(s drone.Stage) bool { return s.Status == "running" })
	time.Sleep(100 * time.Millisecond)
	if setups.Load() != 1 {
		t.Error("the second stage was set up beside the first")
	}
	close(release)
	expect(t, g.settled(second.Stage), "success", "a success, teardown success")
}

// The main loop comes round while the runner works and while it drains; a lock that is not given back stops it, which is
// what a watchdog has to see.
func TestProgress(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.runner.timing.round = time.Millisecond
	if !g.runner.Progress().IsZero() {
		t.Error("there is progress before the start")
	}
	g.start()
	moves := func() bool {
		before := g.runner.Progress()
		for range 500 {
			if time.Sleep(10 * time.Millisecond); g.runner.Progress().After(before) {
				return true
			}
		}
		return false
	}
	job := g.build(testStep{Name: "a", Sh: "until test -e gate; do sleep 0.01; done"})
	g.running(job.Stage, 1)
	if !moves() {
		t.Error("no progress beside a build")
	}
	g.runner.Drain()
	g.runner.SetCapacity(3)
	if !moves() {
		t.Error("no progress while draining")
	}
	g.runner.mu.Lock()
	values := map[time.Time]bool{}
	for range 50 {
		values[g.runner.Progress()] = true
		time.Sleep(2 * time.Millisecond)
	}
	if len(values) > 2 { // one round may have been under way
		t.Errorf("%d rounds without the lock", len(values))
	}
	g.runner.mu.Unlock()
	gate, err := filepath.Glob(filepath.Join(g.host.dir, "builds", "*", "src"))
	if err != nil || len(gate) != 1 {
		t.Fatal(gate, err)
	}
	if err := os.WriteFile(filepath.Join(gate[0], "gate"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.settled(job.Stage)
}

// A panic ends the stage it happens in, with a report and a teardown, and nothing else (2.3 #11).
func TestPanic(t *testing.T) {
	t.Parallel()
	for name, break1 := range map[string]func(*rig){
		"step": func(*rig) {},
		"step that holds a slot of DRONE_RUNNER_MAX_PROCS": func(g *rig) { g.runner.procs = semaphore.NewWeighted(1) },
		"prepare":  func(g *rig) { g.runner.cfg.Prepare = nil },
		"setup":    func(g *rig) { g.host.onSetup = func(*engine.Spec) error { panic("canary") } },
		"teardown": func(g *rig) { g.host.onDestroy = func(string) { panic("canary") } },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			break1(g)
			g.start()
			broken := testStep{Name: "a", Sh: "true", Env: map[string]string{"FAULT": "panic", "FAULT_TEXT": "canary"}}
			stage := g.settled(g.build(broken, testStep{Name: "b", Sh: "true", Run: engine.RunAlways}).Stage)
			if stage.Status != "error" && stage.Status != "failure" {
				t.Errorf("the stage is %s", stage.Status)
			}
			if text := g.log.String(); !strings.Contains(text, "panic: ") || !strings.Contains(text, "goroutine") || strings.Contains(text, "canary") {
				t.Errorf("the log names no panic, or its value: %s", text)
			}
			g.srv.WaitRequests(runtimetest.RequestStage, 2)
		})
	}
}

// An outage of the server costs time only: the step goes on, its log and every end are told afterwards.
func TestOutage(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.runner.timing.hold = 3 * time.Second
	g.start()
	job := g.build(testStep{Name: "a", Sh: "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.2; done"}, testStep{Name: "b", Sh: "echo done"})
	g.running(job.Stage, 1)
	g.srv.Down()
	eventually(t, "the stage ends here", func() bool { return strings.Contains(g.log.String(), "the stage has ended") })
	if open := g.openSpools(); len(open) > 0 {
		t.Errorf("what waits for the server keeps files open: %q", open)
	}
	g.srv.Heal()
	expect(t, g.settled(job.Stage), "success", "a success, b success, teardown success")
	if log := g.stored(job.Stage, "a"); strings.Count(log, "line") != 8 {
		t.Errorf("log: %q", log)
	}
}

// openSpools are the files of spooled logs that this process has open.
func (g *rig) openSpools() (open []string) {
	g.t.Helper()
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		g.t.Fatal(err)
	}
	for _, file := range files {
		if name, err := os.Readlink(file); err == nil && strings.HasPrefix(name, filepath.Join(g.state, "spool")) {
			open = append(open, name)
		}
	}
	return open
}
