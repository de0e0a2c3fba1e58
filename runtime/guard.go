package runtime

import (
	"context"
	"errors"
	"sync"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/client"
)

// guard notices a cancel of the build, whatever happens to the connection.
//
// The server tells a cancel only to the watches that are open at that moment, each of which lasts 30 s. (It remembers
// cancels for five minutes, but looks into that list only in a watch that is a minute old:
// scheduler/queue/canceller.go of Drone.) So two watches overlap; and because a watch that was opened after the
// cancel learns nothing, a confirmation (reporter.beat) follows soon after the first one was opened, whenever a watch
// broke, and at least every 30 s.
type guard struct {
	server Server
	build  int64
	beat   func(context.Context) error
	look   func(context.Context) error
	cancel func()
	timing *timing

	turn chan struct{} // held by whoever confirms
	last time.Time     // when the last answered confirmation was begun; guarded by turn
	soon chan struct{} // asks for a confirmation shortly, because a watch was opened anew
}

// newGuard makes the guard of the stage's build; watch sets it to work.
func (s *stage) newGuard() *guard {
	g := &guard{
		server: s.cfg.Server, beat: s.rep.beat, look: s.rep.look, cancel: s.rep.cancelled, timing: s.timing,
		turn: make(chan struct{}, 1), soon: make(chan struct{}, 1),
	}
	s.rec.read(func(e *entry) { g.build = e.Stage.BuildID })
	return g
}

// watch runs both watches and the confirmations until the context ends or the build is cancelled.
func (g *guard) watch(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { g.follow(ctx, 0, stop) })
	wg.Go(func() { g.follow(ctx, g.timing.stagger, stop) })
	wg.Go(func() { g.confirmations(ctx) })
	wg.Wait()
}

// follow keeps one watch open, the first time after a delay: two watches that began together would end together.
func (g *guard) follow(ctx context.Context, delay time.Duration, stop func()) {
	if !sleep(ctx, delay) {
		return
	}
	pause := g.timing.watchPauses()
	for broken := 0; ctx.Err() == nil; {
		opened := time.Now()
		over, err := g.server.Watch(ctx, g.build)
		if over {
			g.cancel()
			stop()
			return
		}
		// An empty answer after a moment is no long poll: something in between, or a server that goes down, gave it.
		if err == nil && time.Since(opened) > g.timing.backoff {
			broken, pause = 0, g.timing.watchPauses()
			continue
		}
		// The connection is back when a confirmation is answered. What happens between it and the new watch is
		// found by the one that follows soon.
		g.confirm(ctx)
		if broken++; broken > 1 && !pause.wait(ctx) {
			return
		}
		select {
		case g.soon <- struct{}{}:
		default:
		}
	}
}

// confirmations confirms regularly, shortly after a watch was opened anew, and twice at the beginning: a busy server
// takes a while to note the first watch, and to note a cancel in the stage. Then it looks at the build itself.
func (g *guard) confirmations(ctx context.Context) {
	for _, pause := range []time.Duration{g.timing.backoff, 2 * g.timing.backoff} {
		if sleep(ctx, pause) {
			g.confirm(ctx)
		}
	}
	for ctx.Err() == nil && g.look(ctx) != nil {
		sleep(ctx, g.timing.backoff)
	}
	for ctx.Err() == nil {
		timer := time.NewTimer(g.timing.beat)
		select {
		case <-timer.C:
		case <-g.soon:
			sleep(ctx, g.timing.backoff/2)
		case <-ctx.Done():
		}
		timer.Stop()
		g.confirm(ctx)
	}
}

// confirm asks whether the build lives until there is an answer. Callers share one another's answers: only one that was
// asked for after the caller came says something about the moment that the caller is worried about.
func (g *guard) confirm(ctx context.Context) {
	asked := time.Now()
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return
	}
	limit := g.timing.beatShort
	for ctx.Err() == nil && g.last.Before(asked) {
		begun := time.Now()
		once, done := context.WithTimeout(ctx, limit)
		err := g.beat(once)
		done()
		if err == nil {
			g.last = begun
			return
		}
		// A call is repeated with growing pauses; a new one begins with short ones again, so that a server that is
		// back is found at once. Only one that lets a call hang gets more time for the next.
		limit = g.timing.beatShort
		var fault *client.Error
		if !errors.As(err, &fault) || errors.Is(fault.Err, context.DeadlineExceeded) {
			limit = g.timing.beatLong
		}
		sleep(ctx, g.timing.backoff/2)
	}
}
