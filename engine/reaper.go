package engine

import (
	"context"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// Reaper removes one kind of thing that a build can leave on the host (processes, Docker objects, mounts, the
// workspace) and proves that none is left. Every method is safe to call at any time, for builds that never
// existed, and again after it has succeeded.
type Reaper interface {
	// Builds names the builds (see BuildName) that still hold something of this kind.
	Builds(ctx context.Context) ([]string, error)

	// Teardown removes what the build holds and waits until it is gone. It returns what it removed even when it
	// also returns an error. Of a build that is exempt from teardown it removes nothing that the pipeline made, and
	// returns what it let live.
	Teardown(ctx context.Context, build string) ([]leftover.Item, error)

	// Remaining looks again, from scratch, and returns what the build still holds: empty means clean.
	Remaining(ctx context.Context, build string) ([]leftover.Item, error)
}
