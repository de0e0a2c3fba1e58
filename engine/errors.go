package engine

import (
	"errors"
	"fmt"
	"strings"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// The causes (context.Cause) with which a build's or a step's context ends. They tell Run why it was stopped.
var (
	// ErrCancelled: somebody cancelled the build on the server.
	ErrCancelled = errors.New("the build was cancelled")

	// ErrTimeout: the stage ran longer than the repository's timeout.
	ErrTimeout = errors.New("the build ran into the repository's timeout")

	// ErrStepTimeout: one step ran longer than DRONE_RUNNER_STEP_TIMEOUT.
	ErrStepTimeout = errors.New("the step ran longer than DRONE_RUNNER_STEP_TIMEOUT")

	// ErrDiskFull: the workspace grew over DRONE_RUNNER_DISK.
	ErrDiskFull = errors.New("the workspace grew over DRONE_RUNNER_DISK")

	// ErrStopped: the runner itself is stopping and its drain time is over.
	ErrStopped = errors.New("the runner was stopped")

	// ErrStageEnded: all other steps have ended, and with them the detached ones do.
	ErrStageEnded = errors.New("the stage ended")
)

// LeakError says that things of a build survived its teardown.
type LeakError struct {
	Build string
	Items []leftover.Item
}

// Error names each survivor, at most ten of them.
func (e *LeakError) Error() string {
	const most = 10
	names := make([]string, 0, most+1)
	for i, item := range e.Items {
		if i == most {
			names = append(names, fmt.Sprintf("and %d more", len(e.Items)-most))
			break
		}
		names = append(names, item.String())
	}
	return fmt.Sprintf("build %s left behind what teardown could not remove: %s", e.Build, strings.Join(names, "; "))
}

// reason maps the cause of a context's end to the step's reason.
func reason(cause error) Reason {
	switch {
	case errors.Is(cause, ErrCancelled):
		return Cancelled
	case errors.Is(cause, ErrTimeout), errors.Is(cause, ErrStepTimeout):
		return TimedOut
	case errors.Is(cause, ErrDiskFull):
		return DiskFull
	case errors.Is(cause, ErrStageEnded):
		return StageEnded
	default:
		return Stopped
	}
}
