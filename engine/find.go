package engine

import (
	"context"
	"errors"
	"fmt"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// Found is what one build holds on this host.
type Found struct {
	Build string          `json:"build"`
	Items []leftover.Item `json:"items"`

	// Live says that a living process runs the build.
	Live bool `json:"live,omitempty"`
}

// Find lists every build that holds something, in the order of their names. It removes nothing but lock files that nobody
// holds, and finds those of the builds that run here too (Live).
func (e *Engine) Find(ctx context.Context) ([]Found, error) {
	names, errs := e.found(ctx)
	var list []Found
	for _, name := range names {
		found := Found{Build: name, Live: e.Busy(name)}
		for _, reaper := range e.reapers {
			items, err := reaper.Remaining(ctx, name)
			if err != nil {
				errs = append(errs, fmt.Errorf("look at build %s: %w", name, err))
			}
			found.Items = append(found.Items, items...)
		}
		if len(found.Items) > 0 {
			list = append(list, found)
		}
	}
	return list, errors.Join(errs...)
}
