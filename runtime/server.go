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
	// Request asks for a stage and waits for one. No stage and no error means that there was none for a while (the
	// server's long poll ends after 30 s); asking again at once is right.
	Request(ctx context.Context, filter *runner.Filter) (*drone.Stage, error)

	// Accept makes the stage ours, under its Machine, and moves its Version. Where another runner has it, the error is
	// client.ErrTaken.
	Accept(ctx context.Context, stage *drone.Stage) error

	// Detail reads the stage, its build, its repository, its configuration and its secrets. The stage comes without
	// its steps: the server tells their ids in its answer to Update, and nowhere else.
	Detail(ctx context.Context, stage *drone.Stage) (*runner.Context, error)

	// Update reports a stage. The status running registers its steps; a final one ends it, and leaves those steps
	// as they are on the server that are not sent along.
	Update(ctx context.Context, stage *drone.Stage) error

	// Heartbeat reports that the stage runs, and so finds out whether the server has ended it. The server has no call
	// for that: it is an Update to running without steps, which is refused after a cancel.
	Heartbeat(ctx context.Context, stage *drone.Stage) error

	// UpdateStep reports a step. The status running opens its live log on the server, a final one closes it.
	UpdateStep(ctx context.Context, step *drone.Step) error

	// Watch waits for the end of a build. True means that the server ended it: it was cancelled. False without an error
	// means only that nothing happened for a while.
	Watch(ctx context.Context, build int64) (bool, error)

	// Batch shows lines of a running step's log, Upload stores the whole log.
	Batch(ctx context.Context, step int64, lines []*drone.Line) error
	Upload(ctx context.Context, step int64, lines []*drone.Line) error

	// UploadCard stores the card that a step wrote. Servers up to 2.0.4 know no cards and answer 404.
	UploadCard(ctx context.Context, step int64, card *drone.CardInput) error
}

// pauses grows the time between two attempts, with jitter, up to a cap. One serves one loop: it has no lock. Its
// jitter of a quarter keeps slots and runners that met the same fault from asking again in step.
type pauses struct {
	next, max time.Duration
}

// wait sleeps for the next pause. It returns false when the context ended first.
func (p *pauses) wait(ctx context.Context) bool { return sleep(ctx, p.take()) }

// take is the next pause.
func (p *pauses) take() time.Duration {
	d := p.next*3/4 + rand.N(p.next/2+1)
	p.next = min(2*p.next, p.max)
	return d
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
