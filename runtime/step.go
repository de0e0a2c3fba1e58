package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/logs"
)

// runStep runs one step of the pipeline to its end and says how it ended. It never panics.
func (s *stage) runStep(ctx context.Context, step *engine.Step) {
	began := time.Now()
	var state *engine.State
	s.withLog(step.Name, func(log *logs.Log) outcome {
		st, err := s.command(ctx, step, log)
		state = st
		return s.judge(ctx, step, st, err)
	})
	end := StepEnd{Step: step.Name, Took: time.Since(began)}
	if state != nil {
		end.CPUSeconds, end.PeakMemory = state.CPUSeconds, state.PeakMemory
	}
	s.rec.read(func(e *entry) {
		end.Repo, end.Stage = e.Repo, e.Stage.Name
		if now := e.step(step.Name); now != nil {
			end.Status, end.ExitCode = now.Status, now.ExitCode
		}
	})
	s.cfg.Hooks.stepEnded(end)
}

// withLog begins the step, calls f with its log and ends it with what f returns. The server is told beside it: it may
// be away while the step runs, but where it answers at once it knows of the step before the first line.
func (s *stage) withLog(name string, f func(*logs.Log) outcome) {
	begun := false
	s.rep.note(func(e *entry) { begun = e.begin(name) })
	if !begun {
		return
	}
	log, err := s.openLog(name)
	announced, ended := make(chan struct{}), make(chan struct{})
	s.reports.Go(func() { s.follow(name, log, announced, ended) })
	defer close(ended)
	s.await(announced)

	result := outcome{status: drone.StatusError, code: exitNotRun}
	if err == nil {
		err = s.guarded(func() error { result = f(log); return nil })
	}
	if err != nil {
		result.text = err.Error()
	}
	s.rep.note(func(e *entry) { e.end(name, result) })
}

func (s *stage) openLog(name string) (*logs.Log, error) {
	cfg := logs.Config{Name: name, Limit: s.cfg.LogLimit, Masker: s.masker, Sink: s.cfg.Server, Log: s.log}
	s.rec.read(func(e *entry) {
		cfg.Dir = s.journal.spool(e.Stage.ID)
		if step := e.step(name); step != nil {
			cfg.StepID = step.ID
		}
	})
	return logs.Open(s.reporting, cfg)
}

// await gives the server a moment to learn that the step runs, unless it is known to be away.
func (s *stage) await(announced <-chan struct{}) {
	if s.pulse.stuck() {
		return
	}
	timer := time.NewTimer(s.timing.announce)
	defer timer.Stop()
	select {
	case <-announced:
	case <-timer.C:
	case <-s.reporting.Done():
	}
}

// follow tells the server about one step: that it runs, then its log, then how it ended.
func (s *stage) follow(name string, log *logs.Log, announced, ended chan struct{}) {
	err := s.rep.step(s.reporting, name)
	close(announced)
	<-ended
	if log != nil {
		if err := s.pulse.call(func() error { return log.Close(s.reporting) }); err != nil {
			s.log.WithError(err).WithField("step", name).Debug("the log stays on disk until the server takes it")
		}
	}
	if err == nil {
		err = s.rep.step(s.reporting, name)
	}
	if err == nil {
		s.rep.note(func(e *entry) { e.step(name).Reported = true })
	}
}

// command lets the engine run the step, within what is left of the stage's time.
func (s *stage) command(ctx context.Context, step *engine.Step, log *logs.Log) (*engine.State, error) {
	deadline := s.deadline
	if time.Now().After(deadline) {
		deadline = deadline.Add(s.cfg.CleanupTimeout)
	}
	ctx, done := context.WithDeadlineCause(ctx, deadline, engine.ErrTimeout)
	defer done()
	var now *drone.Stage
	s.rec.read(func(e *entry) { now = e.snapshot() })
	state, err := s.cfg.Engine.Run(ctx, s.spec, withCurrent(step, s.detail.Build, now), log)
	if context.Cause(ctx) == engine.ErrTimeout && (err != nil || state == nil || state.Reason == engine.TimedOut) {
		s.late.Store(true)
	}
	if err == nil {
		s.card(step, log)
	}
	return state, err
}

// judge says how the step ended, from what the engine measured and from why its time was over.
func (s *stage) judge(ctx context.Context, step *engine.Step, state *engine.State, err error) outcome {
	result := outcomeOf(state, err)
	stopped := state == nil || state.Reason != engine.Exited && state.Reason != engine.Signaled
	switch cause := context.Cause(ctx); {
	case cause == errStageEnded && state != nil && stopped:
		// A detached step is stopped when all others have ended: that is how it is meant to end.
		result = outcome{status: drone.StatusPassing, code: state.ExitCode}
	case cause == engine.ErrCancelled && stopped:
		result.status, result.text = drone.StatusKilled, ""
	case cause == engine.ErrStopped && stopped:
		result.status, result.text = drone.StatusError, engine.ErrStopped.Error()
	case state != nil && state.Reason == engine.TimedOut && s.late.Load():
		result.text = timeoutText("stage", s.timeout)
	case state != nil && state.Reason == engine.TimedOut:
		result.text = "timeout: " + engine.ErrStepTimeout.Error()
	}
	if result.code == exitSkipRest && result.status == drone.StatusPassing {
		s.skipRest.Store(true)
	}
	return result
}

// card uploads the card that the step wrote to the file that it names, if any.
func (s *stage) card(step *engine.Step, log *logs.Log) {
	path := step.Env[cardPath]
	if path == "" {
		return
	}
	card, err := logs.ReadCard(path, s.spec.Workspace, s.masker)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var id int64
	s.rec.read(func(e *entry) { id = e.step(step.Name).ID })
	if err == nil {
		ctx, done := context.WithTimeout(s.reporting, s.timing.beatShort)
		defer done()
		err = s.cfg.Server.UploadCard(ctx, id, card)
	}
	if err != nil {
		log.Note("card: %v", err)
	}
}

// skipStep ends a step that does not run.
func (s *stage) skipStep(step *engine.Step) {
	if s.life.Err() != nil {
		return // what did not start is skipped when the stage is concluded
	}
	s.rep.note(func(e *entry) { e.end(step.Name, outcome{status: drone.StatusSkipped}) })
	s.reports.Go(func() {
		if s.rep.step(s.reporting, step.Name) == nil {
			s.rep.note(func(e *entry) { e.step(step.Name).Reported = true })
		}
	})
}

// teardown removes everything that the build holds, as the stage's last step. It returns what has to fail the stage.
func (s *stage) teardown() error {
	ctx, done := context.WithTimeout(context.WithoutCancel(s.life), s.cfg.TeardownTimeout)
	defer done()
	var name, build string
	s.rec.read(func(e *entry) { name, build = e.Steps[len(e.Steps)-1].Name, e.Build })
	var leak error
	torn := false
	s.withLog(name, func(log *logs.Log) outcome {
		torn = true
		leak = s.destroy(ctx, build, log)
		if leak != nil {
			return outcome{status: drone.StatusFailing, code: 1, text: leak.Error()}
		}
		return outcome{status: drone.StatusPassing}
	})
	if !torn {
		// Its log could not be opened, on a full disk for one. That is no reason to leave anything on the host.
		leak = s.destroy(ctx, build, io.Discard)
	}
	return leak
}

// destroy tears the build down and writes what was found.
func (s *stage) destroy(ctx context.Context, build string, out io.Writer) error {
	report, err := s.cfg.Engine.Destroy(ctx, build)
	s.cfg.Hooks.tornDown(report, err)
	var leak *engine.LeakError
	if err != nil && !errors.As(err, &leak) {
		s.log.WithError(err).Error("the teardown ran into an error")
		say(out, "error: "+err.Error())
	}
	if report != nil {
		for _, line := range report.Lines() {
			say(out, line)
		}
	}
	return s.cfg.Leaks(report, err)
}

func say(out io.Writer, line string) {
	// A step's log takes every line before it is closed.
	_, _ = fmt.Fprintln(out, line)
}
