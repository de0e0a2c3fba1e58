package bridge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// hand is a runner that is worked by hand: it takes every stage and ends it when and how the test says. It speaks the
// runner API to the real server.
type hand struct {
	base, secret string
	cancel       context.CancelFunc
	work         sync.WaitGroup

	mu      sync.Mutex
	verdict map[string]string // by the recipe: success, failure; nothing: running
	asleep  bool              // take nothing
}

func startHand(bed *testbed.Bed) *hand {
	ctx, cancel := context.WithCancel(context.Background())
	h := &hand{base: bed.Drone.URL() + "/rpc/v2", secret: bed.Drone.RPCSecret, cancel: cancel, verdict: map[string]string{}}
	h.work.Go(func() {
		for ctx.Err() == nil {
			if err := h.next(ctx); err != nil {
				pause(ctx, 50*time.Millisecond) // the server is restarting, or the stage was cancelled
			}
		}
	})
	return h
}

func (h *hand) stop() {
	h.cancel()
	h.work.Wait()
}

// decide says how builds of a recipe end; until then they run.
func (h *hand) decide(recipe, status string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.verdict[recipe] = status
}

// sleep makes the hand take nothing more, or wakes it.
func (h *hand) sleep(asleep bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asleep = asleep
}

func (h *hand) look(recipe string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.verdict[recipe]
}

// next takes one stage and works on it beside the others.
func (h *hand) next(ctx context.Context) error {
	h.mu.Lock()
	asleep := h.asleep
	h.mu.Unlock()
	if asleep {
		pause(ctx, 50*time.Millisecond)
		return nil
	}
	var offer struct{ ID int64 }
	err := h.call(ctx, "POST", "/stage", map[string]string{"kind": "pipeline", "type": "exec", "os": "linux", "arch": "amd64"}, &offer)
	if err != nil || offer.ID == 0 {
		return err
	}
	if err := h.call(ctx, "POST", fmt.Sprintf("/stage/%d?machine=hand", offer.ID), nil, &struct{}{}); err != nil {
		return err
	}
	h.work.Go(func() {
		_ = h.stage(ctx, offer.ID) // fails when the build was cancelled, which the test sees at the server
	})
	return nil
}

// stage runs an accepted stage until the test says how it ends.
func (h *hand) stage(ctx context.Context, id int64) error {
	path := fmt.Sprintf("/stage/%d", id)
	var details struct {
		Build struct {
			Params map[string]string
		}
		Stage map[string]any
	}
	if err := h.call(ctx, "GET", path, nil, &details); err != nil {
		return err
	}
	stage := details.Stage
	stage["status"], stage["started"] = "running", time.Now().Unix()
	stage["steps"] = []map[string]any{{"step_id": id, "number": 1, "name": "run", "status": "running", "started": time.Now().Unix()}}
	if err := h.call(ctx, "PUT", path, stage, &stage); err != nil {
		return err
	}
	for {
		status := h.look(details.Build.Params["RECIPE"])
		if status == "" {
			if !pause(ctx, 20*time.Millisecond) {
				return nil
			}
			continue
		}
		step := stage["steps"].([]any)[0].(map[string]any)
		step["status"], step["stopped"] = status, time.Now().Unix()
		stage["status"], stage["stopped"] = status, time.Now().Unix()
		return h.call(ctx, "PUT", path, stage, &stage)
	}
}

// call makes one call of the runner API; an answer without content leaves into as it is.
func (h *hand) call(ctx context.Context, method, path string, body, into any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, h.base+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("X-Drone-Token", h.secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // it was read as far as it is wanted
	if resp.StatusCode > 299 {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil && err != io.EOF {
		return err
	}
	return nil
}

// pause waits and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
