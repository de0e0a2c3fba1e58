package runtime

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

// Runner takes stages from a server and runs them.
//
// Make one with New, call Recover for what an earlier process left, then Run, then Close. Drain, SetCapacity,
// SetLimits, Status and Progress may be called at any time and from any goroutine.
type Runner struct {
	// cfg has its defaults and does not change; what can change while the runner runs has its copy below mu.
	cfg     Config
	logger  *logrus.Entry
	timing  *timing
	journal *journal
	outbox  *outbox

	// procs counts the steps of all stages together, as in drone-runner-exec; nil for no limit.
	procs *semaphore.Weighted
	peers peers
	pulse *pulse

	draining  chan struct{} // closed by Drain
	drainOnce sync.Once

	// stopping is closed when running stages are cut, at stopped, which is written before and only read after that.
	stopping chan struct{}
	stopped  time.Time

	progress atomic.Int64 // when the main loop last came round

	// mu guards what follows, up to intents. It is never held while a record's locks are, nor while the server is
	// asked.
	mu       sync.Mutex
	capacity int
	slots    int           // how many slots are open
	resized  chan struct{} // closed and replaced when the capacity changes
	bounds   Limits
	running  map[int64]*stage
	claimed  map[int64]bool // stages that a slot has, or of which it is not known yet whether they are ours
	poll     Poll

	// intents are the stages that an earlier process was about to accept when it ended. Recover writes it, and nobody
	// later.
	intents map[int64]bool
}

// New opens the journal. It fails when another runner uses the same state directory. It asks the server nothing.
func New(cfg Config) (*Runner, error) {
	cfg = cfg.withDefaults()
	journal, err := openJournal(cfg.State)
	if err != nil {
		return nil, err
	}
	t := defaultTiming()
	pulse := newPulse(cfg.Server, t.stopped)
	r := &Runner{
		cfg: cfg, logger: cfg.Log, timing: t, journal: journal,
		outbox: newOutbox(cfg.Log, pulse.away, t), pulse: pulse,
		draining: make(chan struct{}), stopping: make(chan struct{}), resized: make(chan struct{}),
		capacity: cfg.Capacity, bounds: cfg.Limits, running: map[int64]*stage{}, claimed: map[int64]bool{},
		intents: map[int64]bool{},
	}
	if cfg.MaxProcs > 0 {
		r.procs = semaphore.NewWeighted(cfg.MaxProcs)
	}
	return r, nil
}

// Close gives the state directory back. Run must have returned.
func (r *Runner) Close() error { return r.journal.Close() }

// Run polls and runs stages until the context ends or Drain was called and all stages have ended. The end of the
// context cuts the stages that run: they are torn down and reported, and so does the end of the drain's time. A
// Runner runs once. The error is always nil: what goes wrong with a stage is the result of that stage, and what goes
// wrong with the server is in Status.
func (r *Runner) Run(ctx context.Context) error {
	// Three lives: polling ends with a drain or a stop, stages only with a stop, and the delivery of what could not be
	// reported goes on beside the last stages.
	polling, stopPolling := context.WithCancel(ctx)
	defer stopPolling()
	builds, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()

	var beside sync.WaitGroup
	over := make(chan struct{})
	beside.Go(func() { r.outbox.run(background) })
	beside.Go(func() { r.greet(polling) })
	beside.Go(func() {
		r.awaitStop(ctx, over, stopPolling)
		r.stopped = time.Now()
		close(r.stopping)
		cut(engine.ErrStopped)
	})
	r.keepSlots(polling, builds)
	// What the outbox holds still is in the journal: the next start delivers it.
	close(over)
	stopBackground()
	beside.Wait()
	return nil
}

// awaitStop returns when running stages are to be cut, or all have ended.
func (r *Runner) awaitStop(ctx context.Context, over <-chan struct{}, stopPolling func()) {
	select {
	case <-r.draining:
	case <-ctx.Done():
		return
	}
	stopPolling()
	timer := time.NewTimer(r.cfg.DrainTimeout)
	defer timer.Stop()
	select {
	case <-timer.C:
		r.logger.Warn("the drain's time is over: the stages that still run are stopped")
	case <-ctx.Done():
	case <-over:
	}
}

// Drain stops polling and lets the stages that run come to their end, for as long as the drain may take. It does not
// wait: Run returns when they have ended. Draining again does nothing; there is no way back.
func (r *Runner) Drain() { r.drainOnce.Do(func() { close(r.draining) }) }

// SetCapacity changes how many stages run at once. Those that run are left alone, and a poll that is open may bring one
// more: a slot closes only between two of its stages.
func (r *Runner) SetCapacity(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.capacity = n
	close(r.resized)
	r.resized = make(chan struct{})
}

// SetLimits changes whose stages may run. Those that run are left alone.
func (r *Runner) SetLimits(l Limits) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bounds = l
}

func (r *Runner) limits() Limits {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bounds
}

// keepSlots keeps as many slots open as the capacity says, and returns when all have closed. It is the runner's main
// loop: as long as it comes round, also while it only waits for the last stages, the runner works.
func (r *Runner) keepSlots(polling, builds context.Context) {
	var slots sync.WaitGroup
	closed := make(chan struct{})
	// slots is waited for in a goroutine of its own, and only when no slot opens any more: a WaitGroup must not grow
	// from nothing while somebody waits for it.
	var waited sync.WaitGroup
	defer waited.Wait()
	round := time.NewTicker(r.timing.round)
	defer round.Stop()
	over := polling.Done()
	for {
		var resized <-chan struct{}
		if over != nil && polling.Err() == nil {
			resized = r.openSlots(func() { slots.Go(func() { r.slot(polling, builds) }) })
		}
		r.progress.Store(time.Now().UnixNano())
		select {
		case <-resized:
		case <-round.C:
			r.limits() // a lock that nobody gives back holds up the loop, and so shows
		case <-over:
			over = nil
			waited.Go(func() { slots.Wait(); close(closed) })
		case <-closed:
			return
		}
	}
}

// Progress is when the main loop last came round; zero before Run. The daemon feeds systemd's watchdog only while it is
// recent.
func (r *Runner) Progress() time.Time {
	if at := r.progress.Load(); at > 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// openSlots opens those that are missing and returns what tells that the capacity has changed.
func (r *Runner) openSlots(open func()) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	for ; r.slots < r.capacity; r.slots++ {
		open()
	}
	return r.resized
}

// surplus closes the calling slot if there are more than the capacity.
func (r *Runner) surplus() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slots <= r.capacity {
		return false
	}
	r.slots--
	return true
}

// slot asks for stages and runs them, one after the other. A poll that is open when the capacity shrinks ends by
// itself: a server can lock up when a poll is broken off while it offers a stage (scheduler/queue/queue.go of Drone
// sends the offer under its lock to a channel that nobody reads any more).
func (r *Runner) slot(polling, builds context.Context) {
	pause, clash := r.timing.pauses(), r.timing.clashes()
	for polling.Err() == nil && !r.surplus() {
		if !r.ready(polling) {
			return
		}
		err := r.next(polling, builds)
		if polling.Err() != nil {
			return
		}
		// Both begin anew with each good answer, so that one fault in a while costs a second and an outage no storm.
		switch err {
		case nil:
			pause, clash = r.timing.pauses(), r.timing.clashes()
		case errClaimed:
			clash.wait(polling)
		default:
			pause.wait(polling)
		}
	}
}

// ready waits while the runner is paused. It returns false when polling ends.
func (r *Runner) ready(ctx context.Context) bool {
	for {
		reason := r.paused()
		r.setPaused(reason)
		if reason == "" {
			return true
		}
		if !sleep(ctx, r.timing.paused) {
			return false
		}
	}
}

// paused is why no stage should be taken now. A disk that is full is a reason too, and is seen where the others are.
func (r *Runner) paused() string {
	if reason := r.cfg.Paused(); reason != "" {
		return reason
	}
	return r.journal.unfit()
}

// errClaimed is why an offer is passed over: a server offers a stage to every slot that asks until one has accepted it.
var errClaimed = errors.New("another slot has this stage")

// next asks for one stage and runs it. No stage is no error. Asking ends with polling; from Accept on the stage lives
// under builds, so that a drain never cuts a call that may have made it ours.
func (r *Runner) next(polling, builds context.Context) error {
	offer, err := r.cfg.Server.Request(polling, &r.cfg.Filter)
	if polling.Err() != nil {
		return nil // an offer that came at this moment is not accepted: the server makes it again
	}
	r.polled(err)
	if err != nil {
		return fmt.Errorf("ask for a stage: %w", err)
	}
	if offer == nil || offer.ID == 0 {
		return nil
	}
	if r.paused() != "" {
		return nil // looked at again, since the poll took up to 30 s; the server makes the offer again
	}
	if !r.claim(offer.ID) {
		return errClaimed
	}
	rec, err := r.accept(builds, offer)
	if err != nil {
		r.unclaim(offer.ID)
		r.logger.WithError(err).WithField("stage", offer.ID).Warn("a stage that was offered is not taken")
		return err
	}
	s := r.newStage(builds, rec)
	r.enter(offer.ID, s)
	defer r.leave(offer.ID)
	safely(s.log, s.run)
	return nil
}
