package swarm

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestTimeOverWhileClean runs out of time after the first look that finds nothing: what looks before it found, or did
// not get to see, is not told as what is left.
func TestTimeOverWhileClean(t *testing.T) {
	for name, first := range map[string]func() (*holding, error){
		"what there was": func() (*holding, error) { return &holding{tasks: []thing{{kind: "task", id: "t"}}}, nil },
		"an error":       func() (*holding, error) { return nil, errors.New("the daemon is away") },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		looks := 0
		run := newTeardown(&Swarm{cfg: Config{TeardownTimeout: time.Minute}}, "b1", func(context.Context) (*holding, error) {
			if looks++; looks == 1 {
				return first()
			}
			cancel()
			return &holding{}, nil
		})
		left, err := run.run(ctx)
		if err != nil || (left != nil && !left.empty()) {
			t.Errorf("%s: left %+v, %v", name, left, err)
		}
	}
}
