package swarm

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestTry leaves a node alone for a while when it does not answer, but not when a caller gave up: what one build's
// teardown had no time for says nothing to the next build.
func TestTry(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	away := errors.New("no route to host")
	for _, c := range []struct {
		name  string
		first func(*node) error
		again bool // whether the second look takes place
	}{
		{"the caller gave up", func(n *node) error { return n.try(over, func(ctx context.Context) error { return ctx.Err() }) }, true},
		{"no answer", func(n *node) error { return n.try(t.Context(), func(context.Context) error { return away }) }, false},
		{"too slow", func(n *node) error {
			n.timeout = time.Millisecond
			return n.try(t.Context(), func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			})
		}, false},
	} {
		n := &node{timeout: time.Minute}
		if err := c.first(n); err == nil {
			t.Errorf("%s: the first look has no error", c.name)
		}
		looked := false
		err := n.try(t.Context(), func(context.Context) error {
			looked = true
			return nil
		})
		if looked != c.again || (err == nil) != c.again {
			t.Errorf("%s: the next look: %v, %v", c.name, looked, err)
		}
	}
}
