package runtime

import (
	"cmp"
	"slices"
	"time"

	"github.com/drone/drone-go/drone"
)

// Poll is how asking for stages goes.
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

	// Build and Origin are its build and repository; nil until the server has told them.
	Build  *drone.Build
	Origin *drone.Repo
}

// Status tells how the runner is doing.
func (r *Runner) Status() Status {
	r.mu.Lock()
	st := Status{Poll: r.poll, Capacity: r.capacity}
	stages := make([]*stage, 0, len(r.running))
	for _, s := range r.running {
		stages = append(stages, s)
	}
	r.mu.Unlock()
	select {
	case <-r.draining:
		st.Draining = true
	default:
	}
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

// claim keeps a stage for the calling slot. It returns false when another slot of this runner has it.
func (r *Runner) claim(id int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.claimed[id] {
		return false
	}
	r.claimed[id] = true
	return true
}

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
