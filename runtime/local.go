package runtime

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/drone/drone-go/drone"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/logs"
)

// Local runs one Spec without a server: `cc-ci-runner exec`. It walks the same build as a stage does, with a record
// that is on no disk.
type Local struct {
	// Engine, Spec, Build and Stage are what runs. The stage's status, error and exit code are set.
	Engine Engine
	Spec   *engine.Spec
	Build  *drone.Build
	Stage  *drone.Stage

	// Timeout is the stage's time; 0 for an hour.
	Timeout time.Duration

	// MaxProcs is how many steps run at once; 0 for any number.
	MaxProcs int64

	// Out gets the steps' output, masked, a whole line at a time; Pretty colours it.
	Out    io.Writer
	Pretty bool

	// Log takes what the runner itself has to say.
	Log *logrus.Entry
}

// Run runs the stage and returns it with its steps as they ended. The end of the context cancels the build, with the
// context's cause; the teardown runs all the same. An error means that the Spec cannot be run at all.
func (l Local) Run(ctx context.Context) (*drone.Stage, error) {
	if err := checkGraph(l.Spec.Steps); err != nil {
		return nil, err
	}
	cfg := Config{}.withDefaults()
	if l.Timeout <= 0 {
		l.Timeout = defaultTimeout
	}
	l.Stage.Started = time.Now().Unix()
	rec := &record{log: l.Log, entry: &entry{Stage: l.Stage, Repo: l.Spec.Repo}}
	b := &build{
		engine: l.Engine, spec: l.Spec, drone: l.Build, rec: rec, log: l.Log, leaks: cfg.Leaks,
		timeout: l.Timeout, cleanup: cfg.CleanupTimeout, tearing: cfg.TeardownTimeout,
		life: ctx, deadline: time.Now().Add(l.Timeout), skipped: func(string) {},
	}
	if l.MaxProcs > 0 {
		b.procs = semaphore.NewWeighted(l.MaxProcs)
	}
	b.mask()
	b.withLog = func(name string, f func(io.Writer) outcome) {
		rec.note(func(e *entry) { e.begin(name) })
		out := logs.NewConsole(l.Out, name, b.masker, l.Pretty)
		var result outcome
		err := b.guarded(func() error { result = f(out); return nil })
		if err = errors.Join(err, out.Close()); err != nil {
			result = outcome{status: drone.StatusError, code: exitNotRun, text: err.Error()}
		}
		result.text = b.masked(result.text)
		rec.note(func(e *entry) { e.end(name, result) })
	}
	b.plan(rec.entry)
	err := b.guarded(b.execute)
	leak := b.teardown()
	rec.entry.Cancelled = errors.Is(context.Cause(ctx), engine.ErrCancelled) || errors.Is(context.Cause(ctx), context.Canceled)
	b.conclude(err, leak)
	return rec.entry.snapshot(), nil
}
