package runtimetest

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"
)

// serveRequest answers POST /stage: a stage for this runner, or 204 at the end of the poll.
func (s *Server) serveRequest(r *http.Request, body []byte) (any, error) {
	w := &worker{offer: make(chan drone.Stage, 1)}
	if err := json.Unmarshal(body, &w.filter); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.state.workers = append(s.state.workers, w)
	s.signal()
	s.mu.Unlock()
	if stage, ok := s.await(r.Context(), w); ok {
		return stage, nil
	}
	// An offer may have come at the moment at which the poll ended: it is made all the same. The real server's queue
	// can lock up there.
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.workers = slices.DeleteFunc(s.state.workers, func(other *worker) bool { return other == w })
	select {
	case stage := <-w.offer:
		return stage, nil
	default:
		return nil, context.DeadlineExceeded
	}
}

// await waits for an offer until the poll ends.
func (s *Server) await(ctx context.Context, w *worker) (drone.Stage, bool) {
	timer := time.NewTimer(s.poll)
	defer timer.Stop()
	select {
	case stage := <-w.offer:
		return stage, true
	case <-timer.C:
	case <-ctx.Done():
	case <-s.quit:
	}
	return drone.Stage{}, false
}

// signal offers every stage that waits for a runner to one that fits. A stage without a machine is offered again at
// the next signal, even while another runner is about to accept it. The lock is held. The real server does this also
// once a minute (scheduler/queue/queue.go), which no test waits for.
func (s *Server) signal() {
	for _, id := range slices.Sorted(maps.Keys(s.state.stages)) {
		stage := s.state.stages[id]
		if stage.Status != drone.StatusPending || stage.Machine != "" || !s.withinLimits(stage) {
			continue
		}
		for i, w := range s.state.workers {
			// The channel has room for the one offer that a worker gets, so nothing waits under the lock.
			if fits(stage, &w.filter) {
				w.offer <- *stage
				s.state.workers = slices.Delete(s.state.workers, i, i+1)
				break
			}
		}
	}
}

// withinLimits counts the unfinished stages of the same name and repository that came before, and all earlier ones of
// the repository for a throttle. A stage that was cancelled no longer counts, whatever its runner still does.
func (s *Server) withinLimits(stage *drone.Stage) bool {
	same, all := 0, 0
	for id, other := range s.state.stages {
		if id >= stage.ID || other.Status != drone.StatusPending && other.Status != drone.StatusRunning ||
			s.state.builds[other.BuildID].RepoID != s.state.builds[stage.BuildID].RepoID {
			continue
		}
		all++
		if other.Name == stage.Name {
			same++
		}
	}
	return (stage.Limit == 0 || same < stage.Limit) && (stage.LimitRepo == 0 || all < stage.LimitRepo)
}

// fits tells whether a runner may run the stage. Kind and type must be the same, OS and architecture where the runner
// names any platform, variant and kernel where the stage names them; labels must be the same on both sides, none left
// over.
func fits(stage *drone.Stage, f *runner.Filter) bool {
	if f.Kind != stage.Kind || f.Type != stage.Type {
		return false
	}
	if f.OS != "" || f.Arch != "" || f.Variant != "" || f.Kernel != "" {
		if f.OS != stage.OS || f.Arch != stage.Arch ||
			stage.Variant != "" && stage.Variant != f.Variant || stage.Kernel != "" && stage.Kernel != f.Kernel {
			return false
		}
	}
	return maps.Equal(stage.Labels, f.Labels)
}

// serveAccept answers POST /stage/{id}. The machine alone decides, not the status: a stage that was cancelled while
// it waited is accepted and pending again, and only its build shows the cancel.
func (s *Server) serveAccept(r *http.Request, _ []byte) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stage := s.state.stages[pathID(r)]
	switch {
	case stage == nil:
		return nil, errNoRows
	case stage.Machine != "":
		return nil, errLock
	}
	stage.Machine, stage.Status, stage.Updated = r.FormValue("machine"), drone.StatusPending, time.Now().Unix()
	stage.Version++
	s.touch()
	return *stage, nil
}

// serveDetail answers GET /stage/{id}. The stage comes without its steps, as from the real server.
func (s *Server) serveDetail(r *http.Request, _ []byte) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stage := s.state.stages[pathID(r)]
	if stage == nil {
		return nil, errNoRows
	}
	b := s.state.builds[stage.BuildID]
	// The build's stages come along, also without their steps.
	copied, inBuild := *stage, b.Build
	for _, id := range b.stages {
		sibling := *s.state.stages[id]
		inBuild.Stages = append(inBuild.Stages, &sibling)
	}
	repo := b.repo
	// As in Details of operator/manager/manager.go.
	var secrets []*drone.Secret
	for _, secret := range b.job.Secrets {
		if secret.PullRequest || b.Event != "pull_request" {
			secrets = append(secrets, secret)
		}
	}
	return &runner.Context{
		Build:   &inBuild,
		Stage:   &copied,
		Config:  &runner.File{Data: []byte(b.job.Config)},
		Netrc:   b.job.Netrc,
		Repo:    &repo,
		Secrets: secrets,
		System:  &drone.System{Proto: s.Proto, Host: s.Host, Link: s.URL, Version: "2.0.4"},
	}, nil
}

// serveWatch answers POST /build/{id}/watch: 200 when the build is cancelled while the watch is open, else 204. A
// build that was cancelled before, or that does not exist, is watched like any other.
func (s *Server) serveWatch(r *http.Request, _ []byte) (any, error) {
	watch := make(chan struct{})
	s.mu.Lock()
	s.state.watches[watch] = pathID(r)
	s.touch()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.state.watches, watch)
	}()
	timer := time.NewTimer(s.poll)
	defer timer.Stop()
	select {
	case <-watch:
		return nil, nil
	case <-timer.C:
	case <-r.Context().Done():
	case <-s.quit:
	}
	return nil, context.DeadlineExceeded
}

// Watches returns how many watches of the build are open.
func (s *Server) Watches(build int64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, watched := range s.state.watches {
		if watched == build {
			n++
		}
	}
	return n
}
