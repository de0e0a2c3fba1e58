package runtime

import (
	"errors"
	"path"

	runner "github.com/drone/runner-go/client"
)

// errDenied is the end of a stage that the limits do not let run here. The sentence is the one that users know.
var errDenied = errors.New("insufficient permission to run the pipeline")

// Limits say whose stages may run here. A stage is known only after it was accepted, so one that is denied ends with
// an error; it does not go to another runner.
type Limits struct {
	// Repos and Events are globs of path.Match, in which a star stops at a slash: `owner/*`, not `owner*`. Nil allows
	// all, an empty list nothing: a setting that is set to nothing must not open the runner to everybody.
	Repos  []string
	Events []string

	// Trusted allows trusted repositories only.
	Trusted bool
}

// Check returns an error for a stage that may not run here.
func (l Limits) Check(detail *runner.Context) error {
	if l.Trusted && !detail.Repo.Trusted || !anyMatch(l.Repos, detail.Repo.Slug) || !anyMatch(l.Events, detail.Build.Event) {
		return errDenied
	}
	return nil
}

func anyMatch(globs []string, name string) bool {
	for _, g := range globs {
		// A malformed glob matches nothing; cmd refuses it when it reads the configuration.
		if ok, err := path.Match(g, name); ok && err == nil {
			return true
		}
	}
	return globs == nil
}
