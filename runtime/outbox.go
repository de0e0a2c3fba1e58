package runtime

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// outbox holds the stages that have ended here and that the server does not know to have ended. It delivers them
// while polling goes on, one after the other. It keeps nothing on disk itself: each stage's journal entry is there
// until forget.
type outbox struct {
	mu     sync.Mutex    // guards list and trying
	list   []*reporter   // for the next round, in its order
	trying int           // how many more a round has not delivered
	wake   chan struct{} // a stage came
	away   func() bool   // what the client knows of the server
	log    *logrus.Entry
	time   *timing
}

func newOutbox(log *logrus.Entry, away func() bool, t *timing) *outbox {
	return &outbox{wake: make(chan struct{}, 1), away: away, log: log, time: t}
}

// add hands the stage over.
func (o *outbox) add(rep *reporter) {
	o.mu.Lock()
	o.list = append(o.list, rep)
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// waiting is how many stages are not delivered.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.list) + o.trying
}

// run delivers until the context ends. The pauses grow while something is left, since the server is away or refuses it,
// and are short again once all is delivered.
func (o *outbox) run(ctx context.Context) {
	pause := &pauses{next: o.time.retry, max: o.time.retryMax}
	for ctx.Err() == nil {
		if o.waiting() == 0 {
			pause.next = o.time.retry
			select {
			case <-o.wake:
			case <-ctx.Done():
			}
			continue
		}
		if !o.round(ctx) {
			o.rest(ctx, pause.take())
		}
	}
}

// rest waits between two rounds. It ends early when a stage comes or the server is back, but looks for that no oftener
// than the first pause lasts: a server that comes and goes is not asked all the time.
func (o *outbox) rest(ctx context.Context, pause time.Duration) {
	away := o.away()
	for end := time.Now().Add(pause); time.Until(end) > 0; {
		if !sleep(ctx, min(time.Until(end), o.time.retry)) {
			return
		}
		before := away
		if away = o.away(); before && !away {
			return
		}
		select {
		case <-o.wake:
			return
		default:
		}
	}
}

// round tries each stage once. It returns whether all are delivered.
func (o *outbox) round(ctx context.Context) bool {
	o.mu.Lock()
	due := o.list
	o.list, o.trying = nil, len(due)
	o.mu.Unlock()
	var rest []*reporter
	for _, rep := range due {
		if !o.deliver(ctx, rep) {
			rest = append(rest, rep)
			continue
		}
		o.mu.Lock()
		o.trying--
		o.mu.Unlock()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	// Behind those that came meanwhile: one stage that the server never takes delays the others by its own time only.
	o.list, o.trying = append(o.list, rest...), 0
	return len(rest) == 0
}

// deliver tries one stage and forgets it when it is delivered, or when it is so old that the server has given it up.
func (o *outbox) deliver(ctx context.Context, rep *reporter) bool {
	// More than the client's own five minutes for one report, so that a server that is only slow gets it in one go.
	limited, done := context.WithTimeout(ctx, o.time.delivery)
	defer done()
	err := errors.New("the delivery ended before it was done")
	safely(rep.log, func() { err = rep.deliver(limited) })
	// A stage of which it is not known yet whether it is ours has no end; it counts from when it was noted.
	var age time.Duration
	var over bool
	rep.rec.read(func(e *entry) { age, over = time.Since(time.Unix(max(e.Since, e.Stage.Stopped), 0)), e.Over })
	switch {
	case err == nil:
	case over && age > o.time.giveUpSteps:
		rep.log.WithError(err).Error("giving up on logs or steps, of a stage that has ended, that the server does not take")
	case age > o.time.giveUp:
		rep.log.WithError(err).Error("giving up on a stage that the server does not take")
	default:
		rep.log.WithError(err).Debug("the server does not take the end of a stage yet")
		return false
	}
	o.forget(rep)
	return true
}

// forget removes the journal's entry, and with it the spooled logs and the claim. Where the disk refuses that, the next
// start finds the entry and learns from the server that all is said.
func (o *outbox) forget(rep *reporter) {
	if err := rep.rec.remove(); err != nil {
		rep.log.WithError(err).Error("the journal entry of a finished stage cannot be removed")
	}
	rep.settled()
}
