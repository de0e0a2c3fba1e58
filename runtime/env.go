package runtime

import (
	"maps"

	"github.com/drone/drone-go/drone"
	"github.com/drone/runner-go/environ"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

// cardPath is set by the environment of a stage (environ.Stage) to /dev/stdout, where a card cannot be told from
// output: a card is read from a file only, and only if the pipeline names one.
const cardPath = "DRONE_CARD_PATH"

// withCurrent is the step with what is only known when it starts laid over its environment: how build and stage stand
// now, and which step it is. The compiled step itself is left as it is.
func withCurrent(step *engine.Step, build *drone.Build, stage *drone.Stage) *engine.Step {
	now := *step
	now.Env = maps.Clone(step.Env)
	if now.Env == nil {
		now.Env = map[string]string{}
	}
	// DRONE_STAGE_STATUS, DRONE_FAILED_STEPS and the like change with every step, so the compiler cannot know them.
	current := environ.Stage(stage)
	delete(current, cardPath)
	// A build whose own stage is failing counts as failing, so that a step that runs on failure can tell.
	standing := *build
	for _, s := range stage.Steps {
		if failed(s.Status) && !s.ErrIgnore {
			standing.Status = s.Status
		}
	}
	maps.Copy(now.Env, environ.Build(&standing))
	maps.Copy(now.Env, current)
	for _, s := range stage.Steps {
		if s.Name == step.Name {
			maps.Copy(now.Env, environ.Step(s))
		}
	}
	return &now
}
