package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/drone/drone-go/drone"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/logs"
)

// teardownName is the step that the runner adds to every stage. A step of the pipeline may have the name already; then
// the runner's is called `teardown (host)`. It is always the last one.
const teardownName = "teardown"

// build is a stage without its server: a Spec on its way through the engine, and how its steps stand. A stage of a
// server and a Local run both fill it, and give it the functions below, through which it reaches the world.
type build struct {
	engine  Engine
	spec    *engine.Spec
	drone   *drone.Build // as it stood when the stage began; read only
	rec     *record      // where the steps' ends are; all that changes while steps run side by side
	log     *logrus.Entry
	hooks   Hooks
	procs   *semaphore.Weighted // nil for any number of steps
	leaks   func(*engine.Report, error) (string, error)
	timeout time.Duration // of the stage
	cleanup time.Duration // for the steps that run on failure, once that is over
	tearing time.Duration // for the teardown

	// life ends when the build is cancelled or the runner is stopped; its cause says which.
	life context.Context

	// withLog begins the step, calls f with where its output goes, and ends the step with what f returns; it does not
	// call f where that cannot begin. skipped is told of a step that does not run, when the record has it already.
	withLog func(name string, f func(io.Writer) outcome)
	skipped func(name string)

	// after is called with a step whose commands were run to an end; it may be nil.
	after func(*engine.Step, io.Writer)

	// tell is called with what a teardown found, once its step's log holds it; it may be nil.
	tell func(step string, report *engine.Report)

	deadline time.Time   // when timeout is over, for Setup and steps; written before the first of them
	late     atomic.Bool // the stage ran out of time
	skipRest atomic.Bool // a step asked to skip what is left
	warned   atomic.Bool // the warnings were written
	masker   *logs.Masker
	unmasked []string // secrets that are too short, or too long, to be masked
	partly   []string // secrets whose encodings are not all masked
}

// plan writes the steps into the entry as they are registered: those of the pipeline and the teardown.
//
// The teardown is a step like the others, so that everybody who can see the build can see what it left behind.
func (b *build) plan(e *entry) {
	name := teardownName
	for _, step := range b.spec.Steps {
		if step.Name == teardownName {
			name = teardownName + " (host)"
		}
	}
	// In the journal before Setup makes any of it: a restart must know what to remove.
	e.Build, e.Root = b.spec.Build, b.spec.Root
	e.Steps = nil
	add := func(step drone.Step) {
		step.Number, step.StageID, step.Status = len(e.Steps)+1, e.Stage.ID, drone.StatusPending
		e.Steps = append(e.Steps, &stepEntry{Step: step})
	}
	for _, step := range b.spec.Steps {
		add(drone.Step{Name: step.Name, ErrIgnore: step.IgnoreFailure, DependsOn: step.DependsOn, Detached: step.Detach})
	}
	add(drone.Step{Name: name})
}

// guarded calls f and turns a panic into an error: it ends this stage, not the runner.
func (b *build) guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(b.log, p)
		}
	}()
	return f()
}

// safely calls f where nobody takes an error: a panic is logged and ends there.
func safely(log *logrus.Entry, f func()) {
	defer func() {
		if p := recover(); p != nil {
			_ = panicked(log, p) // the log has it
		}
	}()
	f()
}

// panicked logs what only a developer can use, and returns what a user gets to see. The panic's value is left out of
// both where it is not Go's own (an index, a nil map): it may hold anything, a secret too.
func panicked(log *logrus.Entry, p any) error {
	what := fmt.Sprintf("a %T", p)
	if fault, ok := p.(interface {
		error
		RuntimeError()
	}); ok {
		what = fault.Error()
	}
	log.WithField("stack", string(debug.Stack())).Errorf("panic: %s", what)
	return errors.New("internal error of the runner: its log has the details")
}

// execute sets the engine up and runs the steps. Its error is that of Setup: how steps ended is in the record.
func (b *build) execute() error {
	setup, done := context.WithDeadlineCause(b.life, b.deadline, engine.ErrTimeout)
	err := b.engine.Setup(setup, b.spec)
	b.late.Store(context.Cause(setup) == engine.ErrTimeout)
	done()
	if err != nil {
		return fmt.Errorf("set the build up: %w", err)
	}
	walk := &graph{steps: b.spec.Steps, slots: b.procs, wanted: b.wanted, skip: b.skipStep,
		run: func(ctx context.Context, step *engine.Step) { safely(b.log, func() { b.runStep(ctx, step) }) }}
	walk.walk(b.life)
	return nil
}

// wanted says whether a step runs as the stage stands now. When its time is over, what runs on failure still does,
// for a short while.
func (b *build) wanted(step *engine.Step) bool {
	if b.skipRest.Load() {
		return false
	}
	// The time may be over without any step having been cut: between two of them, or while one waited for its turn.
	if time.Now().After(b.deadline) {
		b.late.Store(true)
	}
	failing := b.late.Load()
	b.rec.read(func(e *entry) { failing = failing || e.failing() })
	switch step.Run {
	case engine.RunAlways:
		return true
	case engine.RunOnFailure:
		return failing
	}
	return !failing
}

// runStep runs one step of the pipeline to its end and says how it ended.
func (b *build) runStep(ctx context.Context, step *engine.Step) {
	began := time.Now()
	end := StepEnd{Step: step.Name}
	b.withLog(step.Name, func(log io.Writer) outcome {
		b.opening(step, log)
		state, err := b.command(ctx, step, log)
		b.closing(state, log)
		if state != nil {
			end.CPUSeconds, end.PeakMemory = state.CPUSeconds, state.PeakMemory
		}
		return b.judge(ctx, state, err)
	})
	end.Took = time.Since(began)
	b.rec.read(func(e *entry) {
		end.Repo, end.Stage = e.Repo, e.Stage.Name
		if now := e.step(step.Name); now != nil {
			end.Status, end.ExitCode = now.Status, now.ExitCode
		}
	})
	b.hooks.stepEnded(end)
}

// command lets the engine run the step, within what is left of the stage's time. A step that runs after that (see
// wanted) has until the end of the time for cleaning up, which all such steps share.
func (b *build) command(ctx context.Context, step *engine.Step, log io.Writer) (*engine.State, error) {
	deadline := b.deadline
	// What was let through as the last moment of the stage's time passed gets none of the time for cleaning up.
	if b.late.Load() && step.Run != engine.RunOnSuccess {
		deadline = deadline.Add(b.cleanup)
	}
	ctx, done := context.WithDeadlineCause(ctx, deadline, engine.ErrTimeout)
	defer done()
	// A copy: other steps go on changing the stage while this one's environment is made.
	var now *drone.Stage
	b.rec.read(func(e *entry) { now = e.snapshot() })
	state, err := b.engine.Run(ctx, b.spec, withCurrent(step, b.drone, now), log)
	// A step that came to its own end just before the deadline has not run out of time.
	if context.Cause(ctx) == engine.ErrTimeout && (err != nil || state == nil || state.Reason == engine.TimedOut) {
		b.late.Store(true)
	}
	if err == nil && b.after != nil {
		b.after(step, log)
	}
	return state, err
}

// judge says how the step ended, from what the engine measured and from why its time was over.
func (b *build) judge(ctx context.Context, state *engine.State, err error) outcome {
	result := outcomeOf(state, err)
	// The engine says Exited or Signaled for an end that was the step's own, whatever happened to its context
	// meanwhile. So a test that fails in the second of a cancel is a failure, and one that passes is no victim of the
	// timeout.
	stopped := state == nil || state.Reason != engine.Exited && state.Reason != engine.Signaled
	switch cause := context.Cause(ctx); {
	case cause == engine.ErrStageEnded && state != nil && stopped:
		// A detached step is stopped when all others have ended: that is how it is meant to end.
		result = outcome{status: drone.StatusPassing, code: state.ExitCode}
	case errors.Is(cause, engine.ErrCancelled) && stopped:
		result.status, result.text = drone.StatusKilled, ""
	// `error`, not `killed`, which would say that a person has cancelled the build.
	case errors.Is(cause, engine.ErrStopped) && stopped:
		result.status, result.text = drone.StatusError, engine.ErrStopped.Error()
	// The engine says TimedOut for the stage's time and for the step's own alike; late tells them apart.
	case stopped && b.late.Load() && (state == nil || state.Reason == engine.TimedOut):
		result.status, result.text = drone.StatusError, timeoutText("stage", b.timeout)
	case state != nil && state.Reason == engine.TimedOut:
		result.text = "timeout: " + engine.ErrStepTimeout.Error()
	}
	if result.code == exitSkipRest && result.status == drone.StatusPassing {
		b.skipRest.Store(true)
	}
	return result
}

// skipStep ends a step that does not run.
func (b *build) skipStep(step *engine.Step) {
	if b.life.Err() != nil {
		return // what did not start is skipped when the stage is concluded
	}
	b.rec.note(func(e *entry) { e.end(step.Name, outcome{status: drone.StatusSkipped}) })
	b.skipped(step.Name)
}

// teardown removes everything that the build holds, as the stage's last step. It returns what has to fail the stage. It
// takes no slot of procs and does not wait for a free one: others' steps must not keep a build on the host.
func (b *build) teardown() error {
	// A cancelled build is torn down like any other, so its life's end must not reach the teardown.
	ctx, done := context.WithTimeout(context.WithoutCancel(b.life), b.tearing)
	defer done()
	var name string
	b.rec.read(func(e *entry) { name = e.Steps[len(e.Steps)-1].Name })
	var leak error
	torn := false
	b.withLog(name, func(log io.Writer) outcome {
		torn = true
		leak = b.guarded(func() error {
			report, err := b.destroy(ctx, log)
			if b.tell != nil && report != nil {
				b.tell(name, report)
			}
			return err
		})
		if leak != nil {
			return outcome{status: drone.StatusFailing, code: 1, text: leak.Error()}
		}
		return outcome{status: drone.StatusPassing}
	})
	if !torn {
		// Its log could not be opened, on a full disk for one. That is no reason to leave anything on the host.
		leak = b.guarded(func() error { _, err := b.destroy(ctx, io.Discard); return err })
	}
	return leak
}

// destroy tears the build down and writes what was found. The error is what the leak policy makes of it, not what the
// engine returned.
func (b *build) destroy(ctx context.Context, out io.Writer) (*engine.Report, error) {
	report, err := b.engine.Destroy(ctx, b.spec.Build)
	b.hooks.tornDown(report, err)
	// What is left is in the report's lines; any other error is why the teardown could not do or know its work.
	if fault := besideLeak(err); fault != nil {
		b.log.WithError(fault).Error("the teardown ran into an error")
		say(out, "error: "+fault.Error())
	}
	if report != nil {
		for _, line := range report.Lines() {
			say(out, line)
		}
	}
	warning, err := b.leaks(report, err)
	if warning != "" {
		say(out, "warning: "+warning)
	}
	return report, err
}

// besideLeak is what a teardown's error says beyond the leak: often both are there, since what could not be removed
// is left.
func besideLeak(err error) error {
	switch e := err.(type) {
	case *engine.LeakError:
		return nil
	case interface{ Unwrap() []error }:
		var rest []error
		for _, one := range e.Unwrap() {
			rest = append(rest, besideLeak(one))
		}
		return errors.Join(rest...)
	}
	return err
}

// conclude gives the stage its result. The reasons that lie outside the steps go before what these came to. A leak
// fails a stage that passed, and is named beside the reason of one that did not. It is synced: a crash after this
// must not lose a result that the server may have been told.
func (b *build) conclude(err, leak error) {
	b.rec.keep(func(e *entry) {
		text := b.text(e, err)
		e.skipPending()
		status := e.result()
		if text != "" {
			status = drone.StatusError
		}
		if leak != nil {
			text = joinText(text, leak.Error())
			if status == drone.StatusPassing {
				status = drone.StatusFailing
			}
		}
		e.conclude(status, b.masked(text))
		e.Phase = phaseEnded
	})
}

// text is why the stage ended, where the steps do not say it.
func (b *build) text(e *entry, err error) string {
	cause := context.Cause(b.life)
	switch {
	case errors.Is(cause, engine.ErrStopped):
		if err == nil && !e.hurt() {
			return "" // the stop came when everything had run
		}
		return "the runner was stopped while this stage ran"
	case cause != nil:
		return "" // cancelled: the status says it
	case b.late.Load():
		return timeoutText("stage", b.timeout)
	case err != nil:
		return err.Error()
	}
	return ""
}

// masked is a text that goes to the server beside the logs. A command line that is named in it may hold a secret.
func (b *build) masked(text string) string {
	if b.masker == nil {
		return text // nothing is known of the build yet, its secrets least of all
	}
	return b.masker.Mask(text)
}

func joinText(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}
