package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// persist repeats the call until it is answered. It gives up when ctx ends, and when a server that does answer has
// kept answering with faults for longer than the call's patience (unless an answer was lost: then the server may have
// done what was asked, and only an answer can tell).
func (c *Client) persist(ctx context.Context, cl *call) error {
	start := time.Now()
	for n := 0; ; n++ {
		_, fault := c.once(ctx, cl)
		switch {
		case fault == nil:
			return nil
		case fault.kind == answered:
			return fault
		// A server that gives no answer at all (Status 0) costs no patience: it is away, and its absence no fault of
		// the call.
		case fault.Status != 0 && cl.patience > 0 && cl.lost == 0 && time.Since(start) > cl.patience:
			return fault
		}
		// Once a call: what the network does wrong, and what stands, is said by observe.
		if n == 0 && fault.kind == passing && fault.Status != 0 {
			c.log.WithError(fault).Warn("the server answered with an error; trying again")
		}
		if err := c.pause(ctx, n, fault.kind); err != nil {
			return stopped(err, fault)
		}
	}
}

// stopped is the error of a call whose context ended: that of the context, with what went wrong before it.
func stopped(err error, fault *Error) error {
	if errors.Is(fault.Err, err) {
		return fault
	}
	return fmt.Errorf("%s: %w (before that: %w)", fault.Op, err, fault)
}

// pause waits before attempt n+2, or until ctx ends.
func (c *Client) pause(ctx context.Context, n int, k kind) error {
	return wait(ctx, c.delay(n, k))
}

// delay is the pause after the fault number n, counted from 0. The jitter keeps many runners from asking in step after
// an outage.
func (c *Client) delay(n int, k kind) time.Duration {
	first, limit := c.timing.Retry, c.timing.RetryMax
	if k == standing {
		first, limit = c.timing.Slow, c.timing.SlowMax
	}
	d := limit // beyond every limit after 16 doublings of a second; many more would overflow
	if n < 16 && first<<n < limit {
		d = first << n
	}
	return d*3/4 + rand.N(d/2+1)
}

// wait returns after d, or the context's error when that ends sooner.
func wait(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// try makes one attempt of a call that its caller repeats by itself (watches, live log lines). A fault is returned
// after a pause that grows with the faults in a row under this key, so that no caller's loop can turn hot.
func (c *Client) try(ctx context.Context, cl *call, key string) (int, error) {
	status, fault := c.once(ctx, cl)
	if fault == nil || ctx.Err() != nil {
		c.streaks.end(key)
		if fault == nil {
			return status, nil
		}
		return 0, stopped(ctx.Err(), fault)
	}
	if err := c.pause(ctx, c.streaks.next(key), fault.kind); err != nil {
		c.streaks.end(key)
		return 0, stopped(err, fault)
	}
	return 0, fault
}

// maxStreaks bounds the memory of streaks whose end was never seen.
const maxStreaks = 1000

// streaks counts faults in a row by key.
type streaks struct {
	mu sync.Mutex
	n  map[string]int
}

// next counts one more fault and returns how many there were before it.
func (s *streaks) next(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.n) > maxStreaks {
		clear(s.n) // keys of builds long gone
	}
	s.n[key]++
	return s.n[key] - 1
}

// end forgets the key's faults.
func (s *streaks) end(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.n, key)
}
