package runtime

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/client"
)

// report tells the server how the stage ended. What it does not take in time goes on in the background, so that the
// slot is free. First the steps' own reports end, or are cut: deliver must be alone with the spool and the versions.
func (s *stage) report() {
	ctx, done := s.reportTime()
	defer done()
	// Every step has ended by now, so these goroutines wait for the server only.
	told := make(chan struct{})
	go func() { s.reports.Wait(); close(told) }()
	steps, stepsDone := context.WithTimeout(ctx, s.timing.stepsLimit)
	defer stepsDone()
	select {
	case <-told:
	case <-steps.Done():
		s.stopReports()
		<-told
	}
	if err := s.rep.deliver(ctx); err != nil {
		s.log.WithError(err).Warn("the server does not take the end of the stage yet; trying on in the background")
		s.outbox.add(s.rep)
		return
	}
	s.outbox.forget(s.rep)
}

// reportTime is the time that the stage's last reports may take: plenty, but little when the runner is stopping, and
// next to none when the server did not answer already when it was stopped. What is not told then is told after the
// next start.
func (s *stage) reportTime() (context.Context, func()) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.life), s.timing.hold)
	var watched sync.WaitGroup
	watched.Go(func() {
		select {
		case <-s.stopping:
		case <-ctx.Done():
			return
		}
		limit := time.Now().Add(s.timing.stopHold)
		for sleep(ctx, s.timing.stopped/5) {
			if s.pulse.stuck(s.stopped) || time.Now().After(limit) {
				cancel()
			}
		}
	})
	return ctx, func() { cancel(); watched.Wait() }
}

// pulse knows whether the server answers reports. All stages share one, so that a stop need not find out for each of
// them that the server is away, and so that no step waits for a server that does not answer the others.
type pulse struct {
	mu     sync.Mutex        // guards next, begun and failed
	slow   time.Duration     // a call that takes longer counts as not answered
	next   int               // the key of the next call
	begun  map[int]time.Time // when the calls that are under way began
	failed bool              // the last call that ended was not answered
	away   func() bool       // what the client knows
}

// newPulse asks the client too, where it knows whether the server can be reached.
func newPulse(server Server, slow time.Duration) *pulse {
	p := &pulse{slow: slow, begun: map[int]time.Time{}, away: func() bool { return false }}
	if c, ok := server.(interface{ Health() client.Health }); ok {
		p.away = func() bool { return !c.Health().OK }
	}
	return p
}

// call notes how f fares, which asks the server and may read a spool before that.
func (p *pulse) call(f func() error) error {
	p.mu.Lock()
	id := p.next
	p.next++
	p.begun[id] = time.Now()
	p.mu.Unlock()
	err := f()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.begun, id)
	// A spooled log that cannot be read says nothing about the server.
	if disk := new(fs.PathError); !errors.As(err, &disk) {
		p.failed = err != nil
	}
	return err
}

// stuck tells whether the server is away, as far as can be seen from the calls begun before a moment.
func (p *pulse) stuck(before time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, begun := range p.begun {
		if begun.Before(before) && time.Since(begun) > p.slow {
			return true
		}
	}
	return p.failed || p.away()
}
