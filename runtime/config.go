package runtime

import (
	"context"
	"io"
	"time"

	runner "github.com/drone/runner-go/client"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

// Engine runs one stage on this host.
type Engine interface {
	// Setup prepares the host for the stage.
	Setup(ctx context.Context, spec *engine.Spec) error

	// Run runs one step to its end. The cause of the context's end says why a step is stopped before it.
	Run(ctx context.Context, spec *engine.Spec, step *engine.Step, out io.Writer) (*engine.State, error)

	// Destroy removes everything that the build holds, whether or not Setup was called, and says what it found. The
	// error is an engine.LeakError when something is left.
	Destroy(ctx context.Context, build string) (*engine.Report, error)
}

// Config is what a Runner is made of. Fields without a default are needed.
type Config struct {
	// Server is Drone, Address its address as configured with its scheme: a part of every build's name on this host,
	// so that a runner for another server does not take our builds for its own.
	Server  Server
	Address string

	// Engine runs the stages.
	Engine Engine

	// Prepare makes a stage's Spec. It changes nothing on the host. Its error is the stage's error.
	Prepare func(context.Context, *runner.Context) (*engine.Spec, error)

	// Machine is the runner's name on the server, Filter which stages it asks for.
	Machine string
	Filter  runner.Filter

	// Capacity is how many stages run at once; MaxProcs how many steps, 0 for any number.
	Capacity int
	MaxProcs int64

	// Limits say whose stages may run.
	Limits Limits

	// State is the directory of the journal and the spooled logs. It must survive a restart, and belongs to one
	// runner at a time: a lock sees to that.
	State string

	// LogLimit is how much of a step's log is kept; 0 for the default of runtime/logs.
	LogLimit int64

	// DrainTimeout is how long running stages may go on after Drain; 0 for an hour.
	DrainTimeout time.Duration

	// CleanupTimeout is how long the steps that run on failure may take after the stage's time is over; 0 for two
	// minutes.
	CleanupTimeout time.Duration

	// TeardownTimeout bounds one teardown; 0 for three minutes.
	TeardownTimeout time.Duration

	// Paused says why no stage should be taken now; empty, or a nil function, means go on. It is asked before each
	// poll and after it, by every slot, so it must be cheap.
	Paused func() string

	// Leaks decides what a teardown's findings mean for the stage: an error makes it fail with that text, a warning
	// goes into the teardown's log. Nil passes the teardown's own error on.
	Leaks func(*engine.Report, error) (warning string, err error)

	// Hooks are told what happens.
	Hooks Hooks

	// Log takes what the runner has to say.
	Log *logrus.Entry
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.DrainTimeout, time.Hour},
		{&c.CleanupTimeout, 2 * time.Minute},
		{&c.TeardownTimeout, 3 * time.Minute},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if c.Paused == nil {
		c.Paused = func() string { return "" }
	}
	if c.Leaks == nil {
		c.Leaks = func(_ *engine.Report, err error) (string, error) { return "", err }
	}
	return c
}
