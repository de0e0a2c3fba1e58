package logs

import (
	"context"
	"errors"
	"fmt"

	"github.com/drone/drone-go/drone"
)

// Resume uploads the logs that an earlier process left in dir because it crashed or because the server was away, and
// removes each that the server took. One that fails stays and does not hold up the others. No Log may be open in dir.
func Resume(ctx context.Context, dir string, sink Sink) error {
	steps, err := listSpools(dir)
	for _, step := range steps {
		if fault := upload(ctx, sink, place{dir, step}); fault != nil {
			err = errors.Join(err, fmt.Errorf("upload log of step %d: %w", step, fault))
		}
	}
	if err != nil {
		return fmt.Errorf("resume logs in %s: %w", dir, err)
	}
	return nil
}

// upload sends what the spool of a step keeps, and more lines after it, and removes the spool.
func upload(ctx context.Context, sink Sink, from place, more ...*drone.Line) error {
	lines, err := readSpool(from)
	if err != nil {
		return err
	}
	if lines = append(lines, more...); lines == nil {
		lines = []*drone.Line{} // the server stores `[]`, not `null`
	}
	// A crash between upload and removal uploads it again; the Sink takes the server's refusal for done.
	if err := sink.Upload(ctx, from.step, lines); err != nil {
		return err
	}
	return from.remove()
}
