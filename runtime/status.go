package runtime

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/client"
)

// Poll is how asking for stages goes. Since is zero until the server has answered, or failed to, for the first time.
type Poll struct {
	// OK says whether the last request was answered well, Since from when on that has been so, Err why it is not.
	OK    bool
	Since time.Time
	Err   error

	// Answered is when the server last answered.
	Answered time.Time

	// Paused is why no stage is asked for; empty when one is.
	Paused string
}

// Status is the Runner at one moment.
type Status struct {
	Poll     Poll
	Capacity int
	Draining bool

	// Running are the stages on their way, oldest first, with their steps.
	Running []Running

	// Undelivered is how many stages have ended here without the server knowing it.
	Undelivered int
}

// Running is one stage on its way.
type Running struct {
	Repo  string
	Stage *drone.Stage

	// Build and Origin are its build, without its parameters, and its repository, without its keys; nil until the server
	// has told them.
	Build  *drone.Build
	Origin *drone.Repo
}

// Status tells how the runner is doing. It asks nobody and returns at once, so that metrics and pages may call it
// often.
func (r *Runner) Status() Status {
	r.mu.Lock()
	st := Status{Poll: r.poll, Capacity: r.capacity}
	stages := make([]*stage, 0, len(r.running))
	for _, s := range r.running {
		stages = append(stages, s)
	}
	r.mu.Unlock()
	st.Poll = r.reached(st.Poll)
	select {
	case <-r.draining:
		st.Draining = true
	default:
	}
	// Without the runner's lock: a stage's own lock may be held while its journal is written.
	for _, s := range stages {
		var one Running
		s.rec.read(func(e *entry) { one = Running{Repo: e.Repo, Stage: e.snapshot()} })
		if detail := s.shown.Load(); detail != nil {
			one.Build, one.Origin = detail.Build, detail.Repo
		}
		st.Running = append(st.Running, one)
	}
	slices.SortFunc(st.Running, func(a, b Running) int { return cmp.Compare(a.Stage.ID, b.Stage.ID) })
	st.Undelivered = r.outbox.waiting()
	return st
}

// reached adds what the client knows of the server. It waits the network's faults out by itself, so that a request
// tells nothing for as long as the server is away.
func (r *Runner) reached(p Poll) Poll {
	c, ok := r.cfg.Server.(interface{ Health() client.Health })
	if !ok {
		return p
	}
	if h := c.Health(); !h.OK {
		p.OK, p.Since, p.Err = false, h.Since, h.Err
	}
	return p
}

// greet asks the server whether it is there and knows us, where the client can: the first request may be open for half
// a minute before it tells.
func (r *Runner) greet(ctx context.Context) {
	c, ok := r.cfg.Server.(interface {
		Ping(ctx context.Context, machine string) error
	})
	if !ok {
		return
	}
	err := c.Ping(ctx, r.cfg.Machine)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && r.poll.Since.IsZero() {
		r.poll.OK, r.poll.Since, r.poll.Answered = true, time.Now(), time.Now()
	}
}

// polled keeps how a request for a stage was answered.
func (r *Runner) polled(err error) {
	r.cfg.Hooks.polled(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.poll.Since.IsZero() || r.poll.OK != (err == nil) {
		r.poll.Since = now
	}
	r.poll.OK, r.poll.Err = err == nil, err
	if err == nil {
		r.poll.Answered = now
	}
}

// setPaused notes why no stage is taken, and logs changes only: it is called before each poll.
func (r *Runner) setPaused(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reason != r.poll.Paused {
		if reason != "" {
			r.logger.Warnf("no stage is taken for now: %s", reason)
		} else {
			r.logger.Info("stages are taken again")
		}
	}
	r.poll.Paused = reason
}

// claim keeps a stage for the calling slot. It returns false when another slot of this runner has it. Of a stage
// that was taken the claim ends with the journal's entry, so that no slot takes up one whose end is not reported.
func (r *Runner) claim(id int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.claimed[id] {
		return false
	}
	r.claimed[id] = true
	return true
}

// unclaim lets any slot have the stage again.
func (r *Runner) unclaim(id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.claimed, id)
}

func (r *Runner) enter(id int64, s *stage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[id] = s
}

func (r *Runner) leave(id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, id)
}
