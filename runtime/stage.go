package runtime

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/logs"
)

const teardownName = "teardown"

// defaultTimeout is the time of a stage whose repository sets none.
const defaultTimeout = time.Hour

// stage is one stage on its way from Accept to its final report.
type stage struct {
	*Runner
	rec *record
	rep *reporter
	log *logrus.Entry

	// life ends when the build is cancelled or the runner is stopped; its cause says which.
	life context.Context
	end  context.CancelCauseFunc

	detail   *runner.Context
	spec     *engine.Spec
	masker   *logs.Masker
	me       *peer
	timeout  time.Duration
	deadline time.Time
	touched  bool        // Setup was called: the host may hold parts of the build
	late     atomic.Bool // the stage ran out of time
	skipRest atomic.Bool // a step asked to skip what is left

	// reports are the goroutines that tell the server about one step each. They end early when stopReports is called.
	reports     sync.WaitGroup
	reporting   context.Context
	stopReports context.CancelFunc
}

// newStage takes over a stage that was just accepted. The context ends when the runner is stopped.
func (r *Runner) newStage(ctx context.Context, rec *record) *stage {
	s := &stage{Runner: r, rec: rec}
	s.life, s.end = context.WithCancelCause(ctx)
	s.reporting, s.stopReports = context.WithCancel(context.WithoutCancel(ctx))
	rec.read(func(e *entry) { s.log = r.log.WithFields(logrus.Fields{"stage": e.Stage.ID, "name": e.Stage.Name}) })
	s.rep = r.newReporter(rec, s.log)
	s.rep.onCancel = func() { s.end(engine.ErrCancelled) }
	return s
}

// run walks the stage from room to room. Whatever happens on the way, what was set up is torn down, and the server is
// told how it ended.
func (s *stage) run() {
	defer s.end(nil)
	defer s.stopReports()
	var build int64
	s.rec.read(func(e *entry) { build = e.Stage.BuildID })
	watching, stopWatching := context.WithCancel(s.life)
	var guarded sync.WaitGroup
	guarded.Go(func() { newGuard(s.cfg.Server, build, s.rep, s.rep.cancelled).watch(watching) })

	err := s.guarded(s.prepare)
	if err == nil {
		err = s.guarded(s.execute)
	}
	var leak error
	if s.touched {
		leak = s.guarded(s.teardown)
	}
	s.peers.leave(s.me)
	stopWatching()
	guarded.Wait()
	s.conclude(err, leak)
	s.report()
}

// guarded calls f and turns a panic into an error: it ends this stage, not the runner.
func (s *stage) guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(p)
		}
	}()
	return f()
}

// panicked logs what only a developer can use, and returns what a user gets to see. The panic's value is left out of
// both where it is not Go's own: it may hold anything.
func (s *stage) panicked(p any) error {
	what := fmt.Sprintf("a %T", p)
	if fault, ok := p.(interface {
		error
		RuntimeError()
	}); ok {
		what = fault.Error()
	}
	s.log.WithField("stack", string(debug.Stack())).Errorf("panic: %s", what)
	return errors.New("internal error of the runner: its log has the details")
}

// prepare does everything that changes nothing on the host.
func (s *stage) prepare() error {
	if err := s.details(); err != nil {
		return err
	}
	if err := s.limits().Check(s.detail); err != nil {
		return err
	}
	s.timeout = time.Duration(s.detail.Repo.Timeout) * time.Minute
	if s.timeout <= 0 {
		s.timeout = defaultTimeout
	}
	s.deadline = time.Now().Add(s.timeout)
	spec, err := s.cfg.Prepare(s.life, s.detail)
	if err != nil {
		return err
	}
	if err := checkGraph(spec.Steps); err != nil {
		return err
	}
	s.spec = spec
	s.masker = logs.NewMasker(secretsOf(spec))
	s.rec.read(func(e *entry) { s.plan(e) })
	return s.rep.register(s.life)
}

// details reads all that the server knows of the stage.
func (s *stage) details() error {
	var id drone.Stage
	s.rec.read(func(e *entry) { id = *e.Stage })
	detail, err := s.cfg.Server.Detail(s.life, &id)
	if err != nil {
		return err
	}
	s.detail = detail
	if final(detail.Stage.Status) {
		s.rep.cancelled()
		return engine.ErrCancelled
	}
	s.me = s.peers.join(detail.Repo.ID, detail.Stage.Name)
	s.log = s.log.WithFields(logrus.Fields{"repo": detail.Repo.Slug, "build": detail.Build.Number})
	return s.rec.change(func(e *entry) {
		now := *detail.Stage
		now.Steps = nil
		now.Machine = e.Stage.Machine
		now.Version = max(now.Version, e.Stage.Version)
		now.Started = time.Now().Unix()
		e.Stage, e.Repo = &now, detail.Repo.Slug
	})
}

// plan writes the steps into the entry as they are registered: those of the pipeline and the teardown.
func (s *stage) plan(e *entry) {
	name := teardownName
	for _, step := range s.spec.Steps {
		if step.Name == teardownName {
			name = teardownName + " (host)"
		}
	}
	e.Root = s.spec.Root
	e.Steps = nil
	add := func(step drone.Step) {
		step.Number, step.StageID, step.Status = len(e.Steps)+1, e.Stage.ID, drone.StatusPending
		e.Steps = append(e.Steps, &stepEntry{Step: step})
	}
	for _, step := range s.spec.Steps {
		add(drone.Step{Name: step.Name, ErrIgnore: step.IgnoreFailure, DependsOn: step.DependsOn, Detached: step.Detach})
	}
	add(drone.Step{Name: name})
}

// secretsOf are all values that no log of the stage may show.
func secretsOf(spec *engine.Spec) []string {
	values := append([]string(nil), spec.Mask...)
	for _, step := range spec.Steps {
		for _, secret := range step.Secrets {
			values = append(values, secret.Value)
		}
	}
	return values
}

// execute sets the engine up and runs the steps.
func (s *stage) execute() error {
	var limit int
	s.rec.read(func(e *entry) { limit = e.Stage.Limit })
	if err := s.peers.wait(s.life, s.me, limit); err != nil {
		return err
	}
	s.touched = true
	setup, done := context.WithDeadlineCause(s.life, s.deadline, engine.ErrTimeout)
	err := s.cfg.Engine.Setup(setup, s.spec)
	s.late.Store(context.Cause(setup) == engine.ErrTimeout)
	done()
	if err != nil {
		return fmt.Errorf("set the build up: %w", err)
	}
	walk := &graph{steps: s.spec.Steps, slots: s.procs, wanted: s.wanted, run: s.runStep, skip: s.skipStep}
	walk.walk(s.life)
	return nil
}

// wanted says whether a step runs as the stage stands now. When its time is over, what runs on failure still does,
// for a short while.
func (s *stage) wanted(step *engine.Step) bool {
	if s.skipRest.Load() {
		return false
	}
	if time.Now().After(s.deadline) {
		s.late.Store(true)
	}
	failing := s.late.Load()
	s.rec.read(func(e *entry) { failing = failing || e.failing() })
	switch step.Run {
	case engine.RunAlways:
		return true
	case engine.RunOnFailure:
		return failing
	}
	return !failing
}

// conclude gives the stage its result. The reasons go before what the steps came to.
func (s *stage) conclude(err, leak error) {
	text := ""
	switch cause := context.Cause(s.life); {
	case cause == engine.ErrStopped:
		text = "the runner was stopped while this stage ran"
	case cause != nil: // cancelled: the status says it
	case s.late.Load():
		text = timeoutText("stage", s.timeout)
	case err != nil:
		text = err.Error()
	}
	s.rep.note(func(e *entry) {
		e.skipPending("")
		status := e.result()
		if text != "" {
			status = drone.StatusError
		}
		if leak != nil {
			text = joinText(text, leak.Error())
			if status == drone.StatusPassing {
				status = drone.StatusError
			}
		}
		e.conclude(status, text)
		e.Phase = phaseEnded
	})
	s.ended()
}

func joinText(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// ended tells log and hooks how the stage ended.
func (s *stage) ended() {
	var end StageEnd
	s.rec.read(func(e *entry) {
		end = StageEnd{Repo: e.Repo, Stage: e.Stage.Name, Status: e.Stage.Status,
			Took: time.Duration(e.Stage.Stopped-e.Stage.Started) * time.Second}
		s.log.WithFields(logrus.Fields{"status": e.Stage.Status, "error": e.Stage.Error}).Info("the stage has ended")
	})
	s.cfg.Hooks.stageEnded(end)
}
