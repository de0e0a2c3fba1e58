package runtime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/logs"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// accepted makes a build with these steps, accepts its stage by hand and registers the steps: what a reporter needs.
func (g *rig) accepted(names ...string) *reporter {
	g.t.Helper()
	job := g.srv.Enqueue(runtimetest.Job{})
	offer := g.srv.Stage(job.Stage)
	offer.Steps = nil
	rec, err := g.runner.accept(g.t.Context(), &offer)
	if err != nil {
		g.t.Fatal(err)
	}
	rep := g.runner.newReporter(rec, g.entry())
	rec.note(func(e *entry) {
		for i, name := range names {
			e.Steps = append(e.Steps, &stepEntry{Step: drone.Step{
				Name: name, Number: i + 1, StageID: e.Stage.ID, Status: drone.StatusPending,
			}})
		}
	})
	if err := rep.register(g.t.Context(), false); err != nil {
		g.t.Fatal(err)
	}
	return rep
}

func (r *reporter) id() (id int64) {
	r.rec.read(func(e *entry) { id = e.Stage.ID })
	return id
}

// conclude gives stage and steps in the record their ends.
func (r *reporter) conclude(status string) {
	r.rec.note(func(e *entry) {
		for _, s := range e.Steps {
			e.begin(s.Name)
			e.end(s.Name, outcome{status: drone.StatusPassing})
		}
		e.conclude(status, "")
		e.Phase = phaseEnded
	})
}

// The call that starts the build waits for the forge and is the likeliest to lose its answer, or the runner: it holds no
// steps, so none is registered twice.
func TestALostStartLeavesNoSteps(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.srv.Script(runtimetest.StageRunning, runtimetest.LostReply(), 1)
	g.start()
	job := g.build(testStep{Name: "a", Sh: "true"})
	expect(t, g.settled(job.Stage), "success", "a success, teardown success")
	calls := g.srv.Requests(runtimetest.StageRunning)
	if first := calls[0].Stage(); len(first.Steps) > 0 {
		t.Errorf("the start holds %d steps", len(first.Steps))
	}
}

// What the server knows decides about a final report that it does not take as it is.
func TestFinalReport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*runtimetest.Server, *reporter)
		want   string // the stage's status on the server afterwards
	}{
		{"nothing in between", func(*runtimetest.Server, *reporter) {}, "success"},
		{"another version", func(s *runtimetest.Server, r *reporter) { s.Bump(r.id(), nil) }, "success"},
		{"cancelled", func(s *runtimetest.Server, r *reporter) { s.Cancel(s.Stage(r.id()).BuildID) }, "killed"},
		{"ended by the server", func(s *runtimetest.Server, r *reporter) {
			s.Bump(r.id(), func(st *drone.Stage) { st.Status = "error" })
		}, "killed"},
		{"another runner's", func(s *runtimetest.Server, r *reporter) {
			s.Bump(r.id(), func(st *drone.Stage) { st.Machine = "other" })
		}, "running"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			rep := g.accepted("a", "teardown")
			rep.conclude(drone.StatusPassing)
			c.change(g.srv, rep)
			if err := rep.deliver(t.Context()); err != nil {
				t.Error(err)
			}
			if stage := g.srv.Stage(rep.id()); stage.Status != c.want {
				t.Errorf("the stage is %s", stage.Status)
			}
			if err := rep.deliver(t.Context()); err != nil {
				t.Errorf("again: %v", err)
			}
		})
	}
}

// After a cancel no step but the teardown is reported: the server has ended the others.
func TestStepsAfterCancel(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	rep := g.accepted("a", "teardown")
	g.srv.Cancel(g.srv.Stage(rep.id()).BuildID)
	if err := rep.beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	rep.conclude(drone.StatusPassing)
	if err := rep.deliver(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, g.srv.Stage(rep.id()), "killed", "a skipped, teardown success")
}

// A confirmation tells a cancel from a version that moved for another reason.
func TestBeat(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	rep := g.accepted("teardown")
	cancelled := false
	rep.onCancel = func() { cancelled = true }
	for range 2 {
		if err := rep.beat(t.Context()); err != nil || cancelled {
			t.Fatalf("a build that lives: %v, cancelled %t", err, cancelled)
		}
		g.srv.Bump(rep.id(), nil)
	}
	g.srv.Script(runtimetest.StageRunning, runtimetest.Status(500))
	limited, done := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer done()
	if err := rep.beat(limited); err == nil || cancelled {
		t.Errorf("a server that does not answer: %v, cancelled %t", err, cancelled)
	}
	g.srv.Heal()
	g.srv.Cancel(g.srv.Stage(rep.id()).BuildID)
	if err := rep.beat(t.Context()); err != nil || !cancelled {
		t.Errorf("a build that was cancelled: %v, cancelled %t", err, cancelled)
	}
	// From now on there is nothing to confirm.
	n := len(g.srv.Requests(runtimetest.StageRunning))
	if err := rep.beat(t.Context()); err != nil || len(g.srv.Requests(runtimetest.StageRunning)) != n {
		t.Errorf("a confirmation after the cancel: %v", err)
	}
}

// A spooled log that cannot be read says nothing about the server, which a stop asks for whether it answers.
func TestPulseHearsTheServerOnly(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	closeOne := func(dir string, broken bool) error {
		log, err := logs.Open(t.Context(), logs.Config{Dir: dir, StepID: 7, Sink: g.client})
		if err != nil {
			t.Fatal(err)
		}
		if broken {
			if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		return g.runner.pulse.call(func() error { return log.Close(t.Context()) })
	}
	if err := closeOne(filepath.Join(t.TempDir(), "spool"), true); err == nil || g.runner.pulse.stuck(time.Now()) {
		t.Errorf("after a fault of the disk (%v) the server counts as away", err)
	}
	g.srv.Script(runtimetest.Upload, runtimetest.Status(400))
	if err := closeOne(t.TempDir(), false); err == nil || !g.runner.pulse.stuck(time.Now()) {
		t.Errorf("after a refusal (%v) the server does not count as away", err)
	}
	if err := closeOne(filepath.Join(t.TempDir(), "spool"), true); err == nil || !g.runner.pulse.stuck(time.Now()) {
		t.Errorf("a fault of the disk (%v) counts as an answer", err)
	}
}

// A stage that the server never takes is given up when the server itself must have given it up; its steps sooner.
func TestOutboxGivesUp(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	rep := g.accepted("a", "teardown")
	rep.conclude(drone.StatusPassing)
	g.runner.timing.stepsLimit, g.runner.timing.delivery = 50*time.Millisecond, time.Minute
	g.srv.Script(runtimetest.StepFinal, runtimetest.Status(500))
	if g.runner.outbox.deliver(t.Context(), rep) {
		t.Error("the steps were given up at once")
	}
	if stage := g.srv.Stage(rep.id()); stage.Status != "success" {
		t.Errorf("the steps kept the stage from its end: it is %s", stage.Status)
	}
	g.runner.timing.giveUpSteps, g.runner.timing.hold = 0, 50*time.Millisecond
	rep.rec.note(func(e *entry) { e.Since, e.Stage.Stopped = 1, 1 })
	if !g.runner.outbox.deliver(t.Context(), rep) {
		t.Error("the steps were not given up")
	}
	if !strings.Contains(g.log.String(), "giving up on logs or steps") {
		t.Error("nobody is told that the steps were given up")
	}

	rep = g.accepted("teardown")
	rep.conclude(drone.StatusPassing)
	g.srv.Script(runtimetest.StageFinal, runtimetest.Status(500))
	g.runner.timing.delivery = 200 * time.Millisecond
	if g.runner.outbox.deliver(t.Context(), rep) {
		t.Error("the stage was given up at once")
	}
	rep.rec.note(func(e *entry) { e.Since, e.Stage.Stopped = 1, 1 })
	if !g.runner.outbox.deliver(t.Context(), rep) {
		t.Error("the stage was not given up")
	}
	if n := len(g.journalled()); n > 0 {
		t.Errorf("%d entries are left", n)
	}
}

// A server that is too slow for the steps before the end of their stage is told of them after it.
func TestSlowStepsAreDelivered(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	rep := g.accepted("a", "teardown")
	rep.conclude(drone.StatusPassing)
	g.runner.timing.stepsLimit = 50 * time.Millisecond
	g.srv.Script(runtimetest.StepFinal, runtimetest.Slow(200*time.Millisecond))
	if g.runner.outbox.deliver(t.Context(), rep) || g.srv.Stage(rep.id()).Status != "success" {
		t.Error("the stage waited for its steps, or was not ended")
	}
	if !g.runner.outbox.deliver(t.Context(), rep) {
		t.Error("the steps were not delivered")
	}
	expect(t, g.srv.Stage(rep.id()), "success", "a success, teardown success")
}

// A long pause of the outbox ends when the server answers another call again, or when a stage comes.
func TestOutboxPauseEndsEarly(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.runner.timing.retry = time.Millisecond
	var looks atomic.Int32
	look := g.runner.outbox.away
	g.runner.outbox.away = func() bool { looks.Add(1); return look() }
	resting := func() chan struct{} {
		over := make(chan struct{})
		go func() { g.runner.outbox.rest(t.Context(), time.Hour); close(over) }()
		return over
	}
	ended := func(over chan struct{}) bool {
		select {
		case <-over:
			return true
		default:
			return false
		}
	}
	g.srv.Down()
	if err := g.client.Ping(t.Context(), ""); err == nil {
		t.Fatal("the server is not down")
	}
	over := resting()
	eventually(t, "the pause looks for the server", func() bool { return looks.Load() > 3 })
	if ended(over) {
		t.Error("the pause ended while the server was away")
	}
	g.srv.Heal()
	if err := g.client.Ping(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pause ends when the server is back", func() bool { return ended(over) })

	seen := looks.Load()
	over = resting()
	eventually(t, "the pause looks for the server", func() bool { return looks.Load() > seen+3 })
	if ended(over) {
		t.Error("the pause ended for nothing")
	}
	g.runner.outbox.add(nil)
	eventually(t, "the pause ends when a stage comes", func() bool { return ended(over) })
}

// The journal holds each state before what it announces is done, in files that nobody else can read.
func TestJournalIsAhead(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	var phases []string
	look := func(when string) {
		// Not by load, which takes a file that is being written for one that a crash left.
		files, err := filepath.Glob(filepath.Join(g.runner.journal.stages(), "*.json"))
		if err != nil || len(files) != 1 {
			t.Errorf("%s: the journal holds %v, %v", when, files, err)
			return
		}
		id, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(files[0]), ".json"), 10, 64)
		if err != nil {
			t.Error(err)
		}
		e, err := readEntry(files[0], id)
		if err != nil {
			t.Errorf("%s: %v", when, err)
			return
		}
		phases = append(phases, when+" "+string(e.Phase))
		if when != "setup" && when != "destroy" {
			return
		}
		for _, s := range e.Steps {
			if s.ID == 0 {
				t.Errorf("%s: step %s has no id", when, s.Name)
			}
		}
	}
	prepare := g.runner.cfg.Prepare
	g.runner.cfg.Prepare = func(ctx context.Context, d *runner.Context) (*engine.Spec, error) {
		look("prepare")
		return prepare(ctx, d)
	}
	g.host.onSetup = func(*engine.Spec) error { look("setup"); return nil }
	g.host.onDestroy = func(string) { look("destroy") }
	g.srv.Script(runtimetest.Accept, runtimetest.Slow(time.Second))
	g.start()
	job := g.build(testStep{Name: "a", Sh: "true"})
	g.srv.WaitRequests(runtimetest.Accept, 1)
	look("accept")
	g.settled(job.Stage)
	if want := []string{"accept intent", "prepare accepted", "setup running", "destroy running"}; !slices.Equal(phases, want) {
		t.Errorf("%q, want %q", phases, want)
	}
}
