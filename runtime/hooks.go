package runtime

import (
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

// Hooks are told what happens, for metrics. Any of them may be nil; they are called from several goroutines. The stage
// waits for them, so they must not block.
type Hooks struct {
	// Polled is told each answer to a request for a stage.
	Polled func(err error)

	// Accepted is told how long a stage waited between being ready and being accepted, to the second of the
	// server's clock.
	Accepted func(pickup time.Duration)

	// StepEnded and StageEnded are told each end.
	StepEnded  func(StepEnd)
	StageEnded func(StageEnd)

	// TornDown is told what each teardown found, also those of Recover; the error is nil when nothing is left.
	TornDown func(*engine.Report, error)
}

// StepEnd is how a step ended.
type StepEnd struct {
	// Repo is the repository's full name (owner/name).
	Repo, Stage, Step string

	// Status is the server's word for it: success, failure, error, killed. Skipped steps and the teardown end without
	// this.
	Status   string
	ExitCode int

	// Took is from the opening of the step's log until its result is known, with the moment that a step waits for the
	// server to know that it runs and without the reports that follow.
	Took time.Duration

	// CPUSeconds and PeakMemory (bytes) are zero where the host cannot tell.
	CPUSeconds float64
	PeakMemory int64
}

// StageEnd is how a stage ended.
type StageEnd struct {
	Repo, Stage string
	Status      string

	// Took is from the details to the end of the teardown, in whole seconds.
	Took time.Duration

	// Snapshot is the stage with its steps as it ended, Build and Origin are as in Running; both are nil for a stage that
	// ended before the server had told them.
	Snapshot *drone.Stage
	Build    *drone.Build
	Origin   *drone.Repo
}

func (h Hooks) polled(err error) {
	if h.Polled != nil {
		h.Polled(err)
	}
}

func (h Hooks) accepted(pickup time.Duration) {
	if h.Accepted != nil {
		h.Accepted(pickup)
	}
}

func (h Hooks) stepEnded(e StepEnd) {
	if h.StepEnded != nil {
		h.StepEnded(e)
	}
}

func (h Hooks) stageEnded(e StageEnd) {
	if h.StageEnded != nil {
		h.StageEnded(e)
	}
}

func (h Hooks) tornDown(r *engine.Report, err error) {
	if h.TornDown != nil {
		h.TornDown(r, err)
	}
}
