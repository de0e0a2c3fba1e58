package runtime

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

// defaultTimeout is the time of a stage whose repository sets none: the 60 minutes that Drone gives a repository when
// it is enabled (handler/api/repos/enable.go).
const defaultTimeout = time.Hour

// stage is one stage of a server on its way from Accept to its final report. Its plain fields are written by the slot
// that walks it, before the goroutines start that read them; what changes later is atomic or in the record.
type stage struct {
	*Runner
	build
	rep *reporter
	end context.CancelCauseFunc // ends the build's life; for any goroutine

	// detail is all that the server told of the stage, secrets included; nil until details has read it. What of it may
	// be shown is in shown, also for Status, which any goroutine may call.
	detail *runner.Context
	shown  atomic.Pointer[runner.Context]

	me *peer // nil until the details have told whose stage it is

	// reports are the goroutines that tell the server about one step each. They end early when stopReports is called,
	// and not with the build's life: after a cancel, the logs and the teardown are still to be told.
	reports     sync.WaitGroup
	reporting   context.Context
	stopReports context.CancelFunc
}

// newStage takes over a stage that was just accepted. The context ends when the runner is stopped.
func (r *Runner) newStage(ctx context.Context, rec *record) *stage {
	s := &stage{Runner: r}
	var log *logrus.Entry
	rec.read(func(e *entry) { log = r.logger.WithFields(logrus.Fields{"stage": e.Stage.ID, "name": e.Stage.Name}) })
	s.build = build{
		engine: r.cfg.Engine, rec: rec, log: log, hooks: r.cfg.Hooks, procs: r.procs, leaks: r.cfg.Leaks,
		cleanup: r.cfg.CleanupTimeout, tearing: r.cfg.TeardownTimeout,
		withLog: s.withLog, skipped: s.skipped, after: s.card, tell: s.reportCard,
	}
	rec.log = log
	// Of several causes the first one stays: a cancel that comes after a stop does not change why the stage ended.
	s.life, s.end = context.WithCancelCause(ctx)
	s.reporting, s.stopReports = context.WithCancel(context.WithoutCancel(ctx))
	s.rep = r.newReporter(rec, log)
	s.rep.onCancel = func() { s.end(engine.ErrCancelled) }
	return s
}

// run walks the stage from room to room. Whatever happens on the way, what was set up is torn down, and the server is
// told how it ended.
func (s *stage) run() {
	defer s.end(nil)
	defer s.stopReports()
	// The first watch opens before anything is asked: a cancel is told only to the watches that are open.
	watching, stopWatching := context.WithCancel(s.life)
	var guarded sync.WaitGroup
	guard, log := s.newGuard(), s.log
	guarded.Go(func() { safely(log, func() { guard.watch(watching) }) })

	err := s.guarded(s.prepare)
	if err == nil {
		err = s.guarded(s.execute)
	}
	// From here on nothing looks at err but conclude: teardown and reports come in any case.
	var leak error
	// Also where a cancel or a stop came before the host was touched: a stage that shows a teardown shows how it went.
	var registered bool
	s.rec.read(func(e *entry) { registered = e.Phase == phaseRunning })
	if registered {
		leak = s.guarded(s.teardown)
	}
	// Before the report: a stage that waits for this one may start as soon as the host is clean, however long the
	// server takes.
	s.peers.leave(s.me)
	// A confirmation says that the stage runs, so none may be under way when it is said to have ended.
	stopWatching()
	guarded.Wait()
	s.conclude(err, leak)
	s.ended()
	s.report()
}

// prepare does everything that changes nothing on the host. Its error is the stage's. An error before the registration
// leaves a stage without steps on the server.
func (s *stage) prepare() error {
	if err := s.details(); err != nil {
		return err
	}
	if err := s.limits().Check(s.detail); err != nil {
		return err
	}
	s.timeout = time.Duration(s.detail.Repo.Timeout) * s.timing.minute
	if s.timeout <= 0 {
		s.timeout = defaultTimeout
	}
	// The time counts from here: waiting for the server and for a peer is part of it.
	s.deadline = time.Now().Add(s.timeout)
	spec, err := s.cfg.Prepare(s.life, s.detail)
	if err != nil {
		return err
	}
	// The linter has said so with a line number; this keeps a Spec from elsewhere from waiting for ever.
	if err := checkGraph(spec.Steps); err != nil {
		return err
	}
	s.spec = spec
	s.mask()
	s.rec.read(func(e *entry) { s.plan(e) })
	if err := s.rep.register(s.life, s.drone.Status == drone.StatusPending); err != nil {
		return err
	}
	// After the registration, so that the stage shows as running while it waits for its turn.
	var limit int
	s.rec.read(func(e *entry) { limit = e.Stage.Limit })
	return s.peers.wait(s.life, s.me, limit)
}

// details reads all that the server knows of the stage. The server fetches the configuration from the forge each
// time, so this can take long and fail; the client asks on for as long as its patience lasts.
func (s *stage) details() error {
	var id drone.Stage
	s.rec.read(func(e *entry) { id = *e.Stage })
	detail, err := s.cfg.Server.Detail(s.life, &id)
	if err != nil {
		return err
	}
	// A cancel ends the build at once, and its stages only after the server has told the forge.
	if final(detail.Stage.Status) || final(detail.Build.Status) {
		s.rep.cancelled()
		return engine.ErrCancelled
	}
	s.detail, s.drone = detail, detail.Build
	s.shown.Store(presentable(detail))
	s.me = s.peers.join(detail.Repo.ID, detail.Stage.Name)
	s.log = s.log.WithFields(logrus.Fields{"repo": detail.Repo.Slug, "build": detail.Build.Number})
	s.rec.note(func(e *entry) {
		// Every report echoes the stage's fields: the server stores what it is sent.
		now := *detail.Stage
		now.Steps = nil
		now.Machine = e.Stage.Machine
		now.Version = max(now.Version, e.Stage.Version)
		now.Started = time.Now().Unix()
		e.Stage, e.Repo = &now, detail.Repo.Slug
	})
	return nil
}

// presentable is what pages may show of the details: build and repository. The server sends the key along that
// encrypts a repository's secrets and signs its configuration, and the parameters of a promotion, which may be secrets
// too; a dashboard would show them to whoever asks for JSON. Its pages in HTML use none of these.
func presentable(detail *runner.Context) *runner.Context {
	build, repo := *detail.Build, *detail.Repo
	build.Params = nil
	repo.Secret, repo.Signer = "", ""
	return &runner.Context{Build: &build, Repo: &repo}
}

// ended tells log and hooks how the stage ended.
func (s *stage) ended() {
	var end StageEnd
	s.rec.read(func(e *entry) {
		end = StageEnd{Repo: e.Repo, Stage: e.Stage.Name, Status: e.Stage.Status,
			Took: time.Duration(e.Stage.Stopped-e.Stage.Started) * time.Second, Snapshot: e.snapshot()}
		s.log.WithFields(logrus.Fields{"status": e.Stage.Status, "error": e.Stage.Error}).Info("the stage has ended")
	})
	if shown := s.shown.Load(); shown != nil {
		end.Build, end.Origin = shown.Build, shown.Repo
	}
	s.hooks.stageEnded(end)
}
