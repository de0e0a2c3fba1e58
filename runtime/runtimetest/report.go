package runtimetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"
)

// The real server's errors.
var (
	errLock     = runner.ErrOptimisticLock // its text is the real server's
	errNoRows   = errors.New("sql: no rows in result set")
	errNoStream = errors.New("stream: not found")
)

// serveStage answers PUT /stage/{id}.
func (s *Server) serveStage(_ *http.Request, body []byte) (any, error) {
	sent := new(drone.Stage)
	if err := json.Unmarshal(body, sent); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.touch()
	b := s.state.builds[sent.BuildID]
	if b == nil {
		return nil, errNoRows
	}
	if done(sent.Status) {
		return sent, s.afterAll(b, sent)
	}
	return sent, s.beforeAll(b, sent)
}

// beforeAll puts a stage to running: first the stage, then one step after the other (operator/manager/setup.go). An
// error in the middle leaves what was done before it: the version has moved, and steps with smaller numbers are
// there.
func (s *Server) beforeAll(b *build, sent *drone.Stage) error {
	if err := s.updateStage(sent); err != nil {
		return err
	}
	for _, step := range sent.Steps {
		for _, other := range s.state.steps {
			if other.StageID == step.StageID && other.Number == step.Number {
				return errors.New("UNIQUE constraint failed: steps.step_stage_id, steps.step_number")
			}
		}
		step.ID, step.Version = s.state.id(), 1
		stored := *step
		s.state.steps[step.ID] = &stored
	}
	if b.Status == drone.StatusPending {
		b.Status, b.Started, b.Version = drone.StatusRunning, time.Now().Unix(), b.Version+1
	}
	return nil
}

// afterAll ends a stage: the steps, the stage, the stages that wait for it, and the build where it was the last
// (operator/manager/teardown.go). The build gets the status of its first stage that failed. A step that is not
// sent stays as it is.
func (s *Server) afterAll(b *build, sent *drone.Stage) error {
	for _, step := range sent.Steps {
		if err := s.updateStep(step); err != nil {
			return err
		}
	}
	if err := s.updateStage(sent); err != nil {
		return err
	}
	for _, step := range sent.Steps {
		delete(s.state.streams, step.ID)
	}
	s.downstream(b)
	status := drone.StatusPassing
	for _, id := range b.stages {
		stage := s.state.stages[id]
		if !done(stage.Status) {
			return nil
		}
		switch stage.Status {
		case drone.StatusKilled, drone.StatusFailing, drone.StatusError:
			if status == drone.StatusPassing {
				status = stage.Status
			}
		}
	}
	// The real server finds the build's version changed, and says nothing of it.
	if s.state.loseEnd {
		s.state.loseEnd, b.Status = false, drone.StatusRunning
		return nil
	}
	b.Status, b.Finished, b.Version = status, time.Now().Unix(), b.Version+1
	return nil
}

// LoseBuildEnd makes the next report that would end a build end its stage only, with an answer as always. That is what
// the real server does when another report changes the build at the same moment.
func (s *Server) LoseBuildEnd() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.loseEnd = true
}

// downstream skips or offers the stages whose dependencies have ended. Any stage of the build that failed counts, not
// only those that are waited for, as on the real server.
func (s *Server) downstream(b *build) {
	failed, ended := false, map[string]bool{}
	for _, id := range b.stages {
		stage := s.state.stages[id]
		ended[stage.Name] = done(stage.Status)
		switch stage.Status {
		case drone.StatusKilled, drone.StatusFailing, drone.StatusError:
			failed = true
		}
	}
	now := time.Now().Unix()
	for _, id := range b.stages {
		stage := s.state.stages[id]
		if stage.Status != drone.StatusWaiting ||
			slices.ContainsFunc(stage.DependsOn, func(name string) bool { return !ended[name] }) {
			continue
		}
		stage.Version++
		if failed && !stage.OnFailure || !failed && !stage.OnSuccess {
			stage.Status, stage.Started, stage.Stopped = drone.StatusSkipped, now, now
			continue
		}
		stage.Status, stage.Updated = drone.StatusPending, now
	}
	s.signal()
}

// updateStage stores what an update may change, under the version that was sent. That is nearly all (stmtUpdate in
// store/stage/stage.go), so a runner that does not send a field back erases it.
func (s *Server) updateStage(sent *drone.Stage) error {
	stored := s.state.stages[sent.ID]
	if stored == nil || stored.Version != sent.Version {
		return errLock
	}
	sent.Version++
	sent.Updated = time.Now().Unix()
	sent.Error = short(sent.Error)
	next := *sent
	next.BuildID, next.Number, next.Name, next.Kind, next.Type = stored.BuildID, stored.Number, stored.Name, stored.Kind, stored.Type
	next.Limit, next.LimitRepo, next.Created, next.Steps = stored.Limit, stored.LimitRepo, stored.Created, nil
	*stored = next
	return nil
}

// serveStep answers PUT /step/{id} (Before and After in operator/manager/manager.go). The live log is opened, or
// emptied, before the version is looked at, and closed whatever comes of the update.
func (s *Server) serveStep(_ *http.Request, body []byte) (any, error) {
	sent := new(drone.Step)
	if err := json.Unmarshal(body, sent); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.touch()
	if !done(sent.Status) {
		log := &Log{}
		s.state.streams[sent.ID], s.state.history[sent.ID] = log, log
		return sent, s.updateStep(sent)
	}
	err := s.updateStep(sent)
	delete(s.state.streams, sent.ID)
	if err != nil {
		// The real server lists what went wrong, and a lost lock in a list is no longer a 409.
		return nil, fmt.Errorf("1 error occurred:\n\t* %w", err)
	}
	return sent, nil
}

// updateStep stores what an update may change, under the version that was sent.
func (s *Server) updateStep(sent *drone.Step) error {
	stored := s.state.steps[sent.ID]
	if stored == nil || stored.Version != sent.Version {
		return errLock
	}
	sent.Version++
	sent.Error = short(sent.Error)
	next := *sent
	next.StageID, next.Number = stored.StageID, stored.Number
	*stored = next
	return nil
}

// short is what the server does to long errors: a cut at 500 bytes, also within a character.
func short(text string) string { return text[:min(len(text), 500)] }
