package runtimetest

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"
)

// Job is one build to be run. Everything but Config may be left out; fields of Repo, Build and Stages that are zero
// get values that fit.
type Job struct {
	// Config is the YAML.
	Config string

	// Repo and Build describe whose build it is. Jobs with the same Repo.Slug (octocat/hello unless set) share a
	// repository, which matters for limits.
	Repo  drone.Repo
	Build drone.Build

	// Stages are the build's stages; one stage named default unless set. A stage with DependsOn waits for the others.
	Stages []drone.Stage

	// Secrets and Netrc are sent with the details.
	Secrets []*drone.Secret
	Netrc   *drone.Netrc
}

// Enqueued names what Enqueue made.
type Enqueued struct {
	Build int64

	// Stage is the first of Stages.
	Stage  int64
	Stages []int64
}

// state is what the real server has in its database and its memory.
type state struct {
	last       int64 // the last id given
	repos      map[string]int64
	builds     map[int64]*build
	stages     map[int64]*drone.Stage
	steps      map[int64]*drone.Step
	logs       map[int64][]*drone.Line
	cards      map[int64][]byte
	streams    map[int64]*Log          // live logs that are open, by step; in the real server's memory
	history    map[int64]*Log          // the last live log of each step, also after its end, for tests to look at
	workers    []*worker               // polls that wait, in the order of their arrival
	watches    map[chan struct{}]int64 // open watches and their builds; closed by a cancel
	loseEnd    bool                    // see LoseBuildEnd
	loseCancel bool                    // see LoseCancel
}

// build is a build and what belongs to it but to no table of its own.
type build struct {
	drone.Build
	repo   drone.Repo
	job    Job
	stages []int64
}

// worker is one poll that waits for a stage.
type worker struct {
	filter runner.Filter
	offer  chan drone.Stage
}

func newState() state {
	return state{
		repos:   map[string]int64{},
		builds:  map[int64]*build{},
		stages:  map[int64]*drone.Stage{},
		steps:   map[int64]*drone.Step{},
		logs:    map[int64][]*drone.Line{},
		cards:   map[int64][]byte{},
		streams: map[int64]*Log{},
		history: map[int64]*Log{},
		watches: map[chan struct{}]int64{},
	}
}

func (st *state) id() int64 { st.last++; return st.last }

// Enqueue makes a build and offers its stages.
func (s *Server) Enqueue(job Job) Enqueued {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &build{Build: job.Build, repo: job.Repo, job: job}
	s.state.fillBuild(b)
	s.state.builds[b.ID] = b
	stages := job.Stages
	if len(stages) == 0 {
		stages = []drone.Stage{{}}
	}
	for i := range stages {
		stage := stages[i]
		s.state.fillStage(&stage, b, i+1)
		s.state.stages[stage.ID] = &stage
		b.stages = append(b.stages, stage.ID)
	}
	s.signal()
	s.touch()
	return Enqueued{Build: b.ID, Stage: b.stages[0], Stages: slices.Clone(b.stages)}
}

// fillBuild gives the fields of a build and its repository that were left zero a value. Ids are drawn from one
// sequence, so that a mix-up of a build's, a stage's and a step's is noticed.
func (st *state) fillBuild(b *build) {
	now := time.Now().Unix()
	r := &b.repo
	r.Namespace, r.Name = cmp.Or(r.Namespace, "octocat"), cmp.Or(r.Name, "hello")
	r.Slug = cmp.Or(r.Slug, r.Namespace+"/"+r.Name)
	r.Branch, r.Visibility = cmp.Or(r.Branch, "main"), cmp.Or(r.Visibility, "public")
	r.Config, r.Timeout, r.Active = cmp.Or(r.Config, ".drone.yml"), cmp.Or(r.Timeout, 60), true
	r.Secret = cmp.Or(r.Secret, "0123456789abcdef0123456789abcdef")
	if st.repos[r.Slug] == 0 {
		st.repos[r.Slug] = st.id()
	}
	r.ID = st.repos[r.Slug]

	b.ID, b.RepoID, b.Version, b.Status = st.id(), r.ID, 1, drone.StatusPending
	b.Number = cmp.Or(b.Number, int64(len(st.builds)+1))
	b.Event, b.Trigger = cmp.Or(b.Event, "push"), cmp.Or(b.Trigger, "@hook")
	b.Source, b.Target = cmp.Or(b.Source, "main"), cmp.Or(b.Target, "main")
	b.Ref = cmp.Or(b.Ref, "refs/heads/"+b.Target)
	b.After = cmp.Or(b.After, "7fd1a60b01f91b314f59955a4e4d4e80d8edf11d")
	b.Created, b.Updated = now, now
}

// fillStage gives the fields of a stage that were left zero a value.
func (st *state) fillStage(stage *drone.Stage, b *build, number int) {
	stage.ID, stage.BuildID, stage.Number, stage.Version = st.id(), b.ID, number, 1
	stage.Name = cmp.Or(stage.Name, "default")
	stage.Kind, stage.Type = cmp.Or(stage.Kind, "pipeline"), cmp.Or(stage.Type, "exec")
	stage.OS, stage.Arch = cmp.Or(stage.OS, runtime.GOOS), cmp.Or(stage.Arch, runtime.GOARCH)
	stage.Status = drone.StatusPending
	if len(stage.DependsOn) > 0 {
		stage.Status = drone.StatusWaiting
	}
	stage.OnSuccess = stage.OnSuccess || !stage.OnFailure
	stage.Created, stage.Updated = b.Created, b.Created
}

// Cancel cancels a build as a person does in the server's interface: every watch that is open is told, and the server
// ends the build's stages and steps by itself (service/canceler/canceler.go). The real server tells the forge between
// the watches and the stages, so that for a while the build has ended and its stages have not; here it is one step.
// Of a build that has ended, or does not exist, nothing changes.
func (s *Server) Cancel(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.state.builds[id]
	if b == nil || done(b.Status) {
		return
	}
	now := time.Now().Unix()
	b.Status, b.Finished, b.Version = drone.StatusKilled, now, b.Version+1
	if s.state.loseCancel {
		s.state.loseCancel = false
		s.touch()
		return
	}
	for watch, watched := range s.state.watches {
		if watched == id {
			close(watch)
			delete(s.state.watches, watch)
		}
	}
	for _, stageID := range b.stages {
		stage := s.state.stages[stageID]
		if done(stage.Status) {
			continue
		}
		stage.Status, stage.Started = cancelled(stage.Started, now)
		stage.Stopped, stage.Version = now, stage.Version+1
		for _, step := range s.state.stepsOf(stageID) {
			if !done(step.Status) {
				step.Status, step.Started = cancelled(step.Started, now)
				step.Stopped, step.ExitCode, step.Version = now, 130, step.Version+1
			}
		}
	}
	s.touch()
}

// Delete removes a build with its stages and steps, without a word to those that watch it. That is what becomes of a
// build when its repository is deleted, or when old builds are purged.
func (s *Server) Delete(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.state.builds, id)
	maps.DeleteFunc(s.state.steps, func(_ int64, step *drone.Step) bool { return s.state.stages[step.StageID].BuildID == id })
	maps.DeleteFunc(s.state.stages, func(_ int64, stage *drone.Stage) bool { return stage.BuildID == id })
	s.touch()
}

// LoseCancel makes the next Cancel end the build, and neither its stages nor the watches. That is what the real server
// does when a report changes the stage at the same moment, before the watch is noted.
func (s *Server) LoseCancel() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.loseCancel = true
}

// cancelled is the status and the start of something that a cancel ends: what had not started is skipped, and starts
// then.
func cancelled(started, now int64) (string, int64) {
	if started != 0 {
		return drone.StatusKilled, started
	}
	return drone.StatusSkipped, now
}

// done tells final statuses from the others.
func done(status string) bool {
	switch status {
	case drone.StatusPending, drone.StatusRunning, drone.StatusWaiting, drone.StatusBlocked:
		return false
	}
	return true
}

// stepsOf lists a stage's steps by number.
func (st *state) stepsOf(stage int64) []*drone.Step {
	var steps []*drone.Step
	for _, step := range st.steps {
		if step.StageID == stage {
			steps = append(steps, step)
		}
	}
	slices.SortFunc(steps, func(a, b *drone.Step) int { return cmp.Compare(a.Number, b.Number) })
	return steps
}

// Build, Stage and Steps return copies of what the server has; a Stage comes with its steps.

// Build returns the build with its stages. It fails the test if there is none.
func (s *Server) Build(id int64) drone.Build {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.state.builds[id]
	if b == nil {
		s.tb.Fatalf("no build %d", id)
		return drone.Build{}
	}
	copied := b.Build
	for _, stage := range b.stages {
		copied.Stages = append(copied.Stages, s.copyStage(stage))
	}
	return copied
}

// Stage returns the stage with its steps. It fails the test if there is none.
func (s *Server) Stage(id int64) drone.Stage {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.stages[id] == nil {
		s.tb.Fatalf("no stage %d", id)
		return drone.Stage{}
	}
	return *s.copyStage(id)
}

// copyStage copies a stage with its steps. The lock is held.
func (s *Server) copyStage(id int64) *drone.Stage {
	copied := *s.state.stages[id]
	copied.Steps = nil
	for _, step := range s.state.stepsOf(id) {
		c := *step
		copied.Steps = append(copied.Steps, &c)
	}
	return &copied
}

// Step returns the stage's last step of that name: where steps were registered twice, it is the one that counts.
func (s *Server) Step(stage int64, name string) (drone.Step, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, step := range slices.Backward(s.state.stepsOf(stage)) {
		if step.Name == name {
			return *step, true
		}
	}
	return drone.Step{}, false
}

// WaitStage waits until ok is true of the stage (with its steps), and returns the stage as it then was. It sees each
// state that lasts until it looks; one that is gone at once may be missed.
func (s *Server) WaitStage(id int64, ok func(drone.Stage) bool) drone.Stage {
	s.tb.Helper()
	var stage drone.Stage
	s.Wait(fmt.Sprintf("a condition of stage %d", id), func() bool { stage = s.Stage(id); return ok(stage) })
	return stage
}

// WaitDone waits until the stage has a final status, and returns it.
func (s *Server) WaitDone(id int64) drone.Stage {
	s.tb.Helper()
	return s.WaitStage(id, func(stage drone.Stage) bool { return done(stage.Status) })
}

// Bump moves a stage's version, as somebody else's update would. A change, which may be nil, is made to the stage
// before; it runs with the server's lock held and must not call the server.
func (s *Server) Bump(stage int64, change func(*drone.Stage)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if change != nil {
		change(s.state.stages[stage])
	}
	s.state.stages[stage].Version++
	s.touch()
}
