package runtime

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"
)

// Server is the runner's half of Drone's /rpc/v2, as runtime/client speaks it: a call is repeated while its context
// lives and an answer may still come, and changes what it was given only when the server has answered well. A report
// that meets another version ends in a client.LockError.
type Server interface {
	// Request asks for a stage and waits for one. No stage and no error means that there was none for a while.
	Request(ctx context.Context, filter *runner.Filter) (*drone.Stage, error)

	// Accept makes the stage ours.
	Accept(ctx context.Context, stage *drone.Stage) error

	// Detail reads the stage, its build, its repository, its configuration and its secrets.
	Detail(ctx context.Context, stage *drone.Stage) (*runner.Context, error)

	// Update reports a stage. The status running registers its steps; a final one ends it.
	Update(ctx context.Context, stage *drone.Stage) error

	// Heartbeat reports that the stage runs, and so finds out whether the server has ended it.
	Heartbeat(ctx context.Context, stage *drone.Stage) error

	// UpdateStep reports a step.
	UpdateStep(ctx context.Context, step *drone.Step) error

	// Watch waits for the end of a build. True means that the server ended it: it was cancelled.
	Watch(ctx context.Context, build int64) (bool, error)

	// Batch shows lines of a running step's log, Upload stores the whole log.
	Batch(ctx context.Context, step int64, lines []*drone.Line) error
	Upload(ctx context.Context, step int64, lines []*drone.Line) error

	// UploadCard stores the card that a step wrote.
	UploadCard(ctx context.Context, step int64, card *drone.CardInput) error
}

// pauses grows the time between two attempts, with jitter, up to a cap.
type pauses struct {
	next, max time.Duration
}

// wait sleeps for the next pause. It returns false when the context ended first.
func (p *pauses) wait(ctx context.Context) bool {
	d := p.next*3/4 + rand.N(p.next/2+1)
	p.next = min(2*p.next, p.max)
	return sleep(ctx, d)
}

// sleep waits, and returns false when the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
