package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/drone/drone-go/drone"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/client"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/logs"
)

// reporter tells the server what happens to one stage, and keeps in the record what it told. The stage, its guard and
// its steps share one while it runs; afterwards it is deliver's alone.
//
// The server counts versions, and a cancel counts as a change. After a cancel nothing but `killed` may be sent, or the
// build turns green again: of the steps, only the teardown is reported then, because the server has ended the others.
type reporter struct {
	server Server
	rec    *record
	log    *logrus.Entry
	timing *timing
	pulse  *pulse

	// turn lets one report of the stage itself through at a time; it is a channel so that waiting can be given up.
	// Steps have versions of their own and need no turn.
	turn chan struct{}

	// onCancel is called when the server turns out to have ended the build; nil after a restart, when nothing runs.
	onCancel func()

	// settled is called when nothing is left to say and the journal's entry is gone.
	settled func()
}

func (r *Runner) newReporter(rec *record, log *logrus.Entry) *reporter {
	var id int64
	rec.read(func(e *entry) { id = e.Stage.ID })
	return &reporter{
		server: r.cfg.Server, rec: rec, log: log, timing: r.timing, pulse: r.pulse,
		turn: make(chan struct{}, 1), settled: func() { r.unclaim(id) },
	}
}

// register puts the stage to running and learns the ids of its steps. Where that starts the build, the stage goes
// first without its steps: the server tells the forge of the start before it answers (operator/manager/setup.go of
// Drone), which may take long or lose the answer, and steps whose ids were lost with it stay pending for ever.
func (r *reporter) register(ctx context.Context, starts bool) error {
	if !r.take(ctx) {
		return context.Cause(ctx)
	}
	defer r.give()
	var stage *drone.Stage
	r.rec.read(func(e *entry) { stage = e.snapshot() })
	stage.Status = drone.StatusRunning
	var err error
	if starts {
		err = r.server.Heartbeat(ctx, stage)
	}
	if err == nil {
		err = r.server.Update(ctx, stage)
	}
	if err != nil {
		if errors.Is(err, client.ErrCancelled) {
			r.cancelled()
		}
		if ctx.Err() != nil { // a stop has cut the call, which the server may still work on
			r.rec.note(func(e *entry) { e.Unsure = true })
		}
		return fmt.Errorf("register the steps: %w", err)
	}
	// The ids are on disk before anything happens in their name: nobody tells them a second time.
	return r.rec.change(func(e *entry) {
		e.Phase = phaseRunning
		e.Stage.Status, e.Stage.Version, e.Stage.Updated = drone.StatusRunning, stage.Version, stage.Updated
		// The client may have moved the numbers, where an answer with the ids was lost; the order stays.
		for i, s := range stage.Steps {
			e.Steps[i].ID, e.Steps[i].Version, e.Steps[i].Number = s.ID, s.Version, s.Number
		}
	})
}

// beat confirms that the build lives. It returns an error when there was no clear answer.
func (r *reporter) beat(ctx context.Context) error {
	if !r.take(ctx) {
		return context.Cause(ctx)
	}
	defer r.give()
	// Before its steps are registered, a stage must not be said to run; after its end, even less.
	var stage drone.Stage
	var due bool
	r.rec.read(func(e *entry) {
		stage = *e.Stage
		due = e.Phase == phaseRunning && !e.Cancelled
	})
	if !due {
		return nil
	}
	err := r.server.Heartbeat(ctx, &stage)
	var lock *client.LockError
	switch {
	case err == nil:
		r.rec.note(func(e *entry) { e.Stage.Version, e.Stage.Updated = stage.Version, stage.Updated })
		return nil
	case ctx.Err() != nil:
		return err
	// The client gave up on a version that kept moving: somebody else changes the stage, but it lives.
	case errors.As(err, &lock) && lock.Server != nil && !final(lock.Server.Status):
		r.rec.note(func(e *entry) { e.Stage.Version = lock.Server.Version })
		return nil
	case errors.Is(err, client.ErrOptimisticLock):
		r.cancelled()
		return nil
	// Deleted with its repository: nobody can cancel it any more, or see how it ends.
	case errors.Is(err, client.ErrGone):
		r.log.Warn("the server has deleted the build: it is ended")
		r.cancelled()
		return nil
	}
	return err
}

// look asks for the build itself. It finds a cancel that crossed the report of the stage's start: the server then
// ends the build but not the stage, to which no confirmation is refused; and a watch that it had not noted yet is
// told nothing.
func (r *reporter) look(ctx context.Context) error {
	var stage drone.Stage
	r.rec.read(func(e *entry) { stage = *e.Stage })
	now, err := r.server.Detail(ctx, &stage)
	if errors.Is(err, client.ErrGone) {
		return nil // or only the repository's owner is gone, without whom there are no details: confirmations can tell
	}
	if err != nil {
		return err
	}
	if final(now.Build.Status) {
		r.cancelled()
	}
	return nil
}

// cancelled keeps that the server has ended the build, and ends the stage here. It is on disk before anything else is
// reported: a restart must not send another end than `killed`.
func (r *reporter) cancelled() {
	r.rec.keep(func(e *entry) { e.Cancelled = true })
	if r.onCancel != nil {
		r.onCancel()
	}
}

// step reports a step as it is now in the record. It returns an error only if a later attempt could do better: a lost
// lock is given up, because the server has another end of the step than ours. taken, which may be nil, is called
// as soon as the server has it.
func (r *reporter) step(ctx context.Context, name string, taken func()) error {
	step, mute := r.current(name)
	if mute {
		return nil
	}
	over := final(step.Status)
	var err error
	_ = r.pulse.call(func() error {
		if err = r.server.UpdateStep(ctx, &step); errors.Is(err, client.ErrOptimisticLock) {
			return nil // a refusal is an answer
		}
		return err
	}) // the same error is judged here
	switch {
	case err == nil:
		if taken != nil {
			taken()
		}
		r.rec.note(func(e *entry) {
			now := e.step(name)
			now.Version, now.Reported = step.Version, now.Reported || over
		})
	case ctx.Err() != nil:
		return err
	case errors.Is(err, client.ErrOptimisticLock):
		// A cancel is the usual reason, and this may be the first that is heard of it.
		r.ended(ctx)
	default:
		r.log.WithError(err).WithField("step", name).Warn("the server does not take the report of a step; it shows an older state of it")
	}
	return nil
}

// settle keeps that nothing is to be said of the step any more, where its report has not done so: the server refused it
// for good, or has an end of its own.
func (r *reporter) settle(name string) {
	var known bool
	r.rec.read(func(e *entry) { known = e.step(name).Reported })
	if !known {
		r.rec.note(func(e *entry) { e.step(name).Reported = true })
	}
}

// current is a copy of the step, and whether nothing is to be said of it.
func (r *reporter) current(name string) (drone.Step, bool) {
	var step drone.Step
	r.rec.read(func(e *entry) {
		if s := e.step(name); s != nil {
			step = s.Step
		}
	})
	return step, step.ID == 0 || r.mute(name)
}

// mute tells whether the build was cancelled and the step is one that the server has ended itself. It has ended the
// teardown's too, but takes what is reported of it afterwards, and so shows what was left behind.
func (r *reporter) mute(name string) (mute bool) {
	r.rec.read(func(e *entry) { mute = e.Cancelled && name != e.Steps[len(e.Steps)-1].Name })
	return mute
}

// ended finds out whether a lost lock of a step comes from a cancel.
func (r *reporter) ended(ctx context.Context) {
	var stage drone.Stage
	var running, cancelled bool
	r.rec.read(func(e *entry) { stage, running, cancelled = *e.Stage, e.Phase == phaseRunning, e.Cancelled })
	switch {
	case cancelled:
	case running:
		if err := r.beat(ctx); err != nil {
			r.log.WithError(err).Debug("the server did not confirm that the build lives")
		}
	default:
		now, err := r.server.Detail(ctx, &stage)
		if err == nil && final(now.Stage.Status) {
			r.cancelled()
		}
	}
}

// finish reports the stage's end. It is safe to repeat: an end that the server has already is a success.
func (r *reporter) finish(ctx context.Context) error {
	if !r.take(ctx) {
		return context.Cause(ctx)
	}
	defer r.give()
	pause := r.timing.pauses()
	for tries := 0; ; tries++ {
		stage := r.end()
		err := r.pulse.call(func() error { return r.server.Update(ctx, stage) })
		if err == nil {
			return nil
		}
		// The first conflict is followed at once: the version was out of date, and conflict has read the right one.
		over, fault := r.conflict(ctx, stage, err)
		if over || fault != nil {
			return fault
		}
		if tries > 0 && !pause.wait(ctx) {
			return fmt.Errorf("report the end of the stage: %w", err)
		}
	}
}

// end is the stage as finish sends it. It goes without its steps: one stale version among them would make the server
// refuse the stage too (operator/manager/teardown.go of Drone).
func (r *reporter) end() *drone.Stage {
	var stage drone.Stage
	r.rec.read(func(e *entry) {
		stage = *e.Stage
		if e.Cancelled {
			stage.Status = drone.StatusKilled
		}
	})
	stage.Steps = nil
	return &stage
}

// conflict follows a final report that the server did not take. It is over when the server has an end that is as good
// as ours; otherwise, without an error, the record has what to send instead.
func (r *reporter) conflict(ctx context.Context, sent *drone.Stage, err error) (over bool, _ error) {
	var lock *client.LockError
	if !errors.As(err, &lock) && !errors.Is(err, client.ErrGone) {
		return false, fmt.Errorf("report the end of the stage: %w", err)
	}
	// Where the server's status is the one that was sent, only a fresh look tells an end from a report that was
	// refused.
	var now *drone.Stage
	if lock != nil {
		now = lock.Server
	}
	if now == nil || now.Status == sent.Status {
		detail, err := r.server.Detail(ctx, sent)
		switch {
		case errors.Is(err, client.ErrGone):
		case err != nil:
			return false, fmt.Errorf("report the end of the stage: %w", err)
		default:
			now = detail.Stage
		}
	}
	if now == nil || now.Machine != sent.Machine {
		// Deleted, or another runner's by the server's word: nobody waits for our report.
		r.log.WithError(err).Warn("the server has no such stage of this runner any more")
		return true, nil
	}
	// A stage that the server killed by itself still needs our report: it schedules what comes after, and ends the
	// build.
	if now.Status == sent.Status && sent.Status != drone.StatusKilled {
		return true, nil
	}
	r.rec.note(func(e *entry) {
		e.Cancelled = e.Cancelled || final(now.Status)
		e.Stage.Version = now.Version
	})
	return false, nil
}

// endBuild sends the end of the stage once more where the build has not ended with its last stage. The server leaves a
// build running, without a word, if another report changes it at the moment that would end it; a registration
// that was cut, by the end of its process or by a stop, can be such a report.
func (r *reporter) endBuild(ctx context.Context) error {
	var stage drone.Stage
	var unsure bool
	r.rec.read(func(e *entry) { stage, unsure = *e.Stage, e.Unsure })
	pause := r.timing.pauses()
	for unsure {
		now, err := r.server.Detail(ctx, &stage)
		switch {
		case errors.Is(err, client.ErrGone):
			return nil
		case err != nil:
			return fmt.Errorf("find out whether the build has ended: %w", err)
		case final(now.Build.Status) || slices.ContainsFunc(now.Build.Stages, func(s *drone.Stage) bool { return !final(s.Status) }):
			return nil
		}
		r.rec.note(func(e *entry) { e.Stage.Version = now.Stage.Version })
		if err := r.finish(ctx); err != nil {
			return err
		}
		if !pause.wait(ctx) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// deliver says all that the server does not know yet of a stage that has ended here: the rest of the logs, the ends of
// the steps, the end of the stage. It returns nil when nothing is left to say. No log of the stage may be open.
func (r *reporter) deliver(ctx context.Context) error {
	var unclear bool
	r.rec.read(func(e *entry) { unclear = e.Phase == phaseIntent || e.Phase == phaseLost })
	if unclear {
		if ours, err := r.claim(ctx); err != nil || !ours {
			return err
		}
	}
	var id int64
	var open []string
	var over bool
	r.rec.read(func(e *entry) {
		id, over = e.Stage.ID, e.Over
		for _, s := range e.Steps {
			if !s.Reported {
				open = append(open, s.Name)
			}
		}
	})
	// The steps come first, since the end of the stage leaves unreported ones as they are. But a step that the server
	// never takes must not keep the stage from its end. After that there is more time: a server that takes ten seconds for
	// each answer would never take any.
	limit := r.timing.stepsLimit
	if over {
		limit = r.timing.hold
	}
	limited, done := context.WithTimeout(ctx, limit)
	err := logs.Resume(limited, r.rec.journal.spool(id), r.server)
	for _, name := range open {
		fault := r.step(limited, name, nil)
		if fault == nil {
			r.settle(name)
		}
		err = errors.Join(err, fault)
	}
	done()
	if !over {
		fault := r.finish(ctx)
		if fault == nil {
			fault = r.endBuild(ctx)
		}
		if fault != nil {
			return errors.Join(err, fault)
		}
		r.rec.note(func(e *entry) { e.Over = true })
	}
	return err
}

// take gets the turn to report: the server counts versions, so a stage's reports go one after the other.
func (r *reporter) take(ctx context.Context) bool {
	select {
	case r.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *reporter) give() { <-r.turn }
