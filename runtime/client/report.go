package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/drone/drone-go/drone"
)

// maxResync bounds how often one report is matched anew with what the server has.
const maxResync = 3

// Heartbeat tells the server that the stage still runs and so finds out whether that is so: an ErrCancelled says that
// the stage was ended there. The stage is sent as running and without steps; its version moves.
func (c *Client) Heartbeat(ctx context.Context, stage *drone.Stage) error {
	beat := *stage
	beat.Status, beat.Steps = drone.StatusRunning, nil
	if err := c.update(ctx, fmt.Sprintf("confirm that stage %d runs", stage.ID), &beat); err != nil {
		return err
	}
	stage.Version, stage.Updated = beat.Version, beat.Updated
	return nil
}

// Update reports the stage.
//
// With status pending or running, the steps that have no ID yet are registered and get their IDs and versions. Where
// the answer with the IDs was lost they are registered once more under new numbers (Number changes), since the server
// tells the IDs to nobody else; it goes on showing the first set as pending.
//
// With any other status the stage ends. Steps that have an ID are sent along, and one stale version among them fails
// the report: better report each step first and leave Steps nil.
//
// When the server's version of the stage has moved on, it is asked why: a report that was applied although its answer
// was lost is a success, a stage that still runs there is reported again under its version, and anything else is a
// LockError. On an error nothing has changed in stage.
func (c *Client) Update(ctx context.Context, stage *drone.Stage) error {
	return c.update(ctx, fmt.Sprintf("report stage %d as %s", stage.ID, stage.Status), stage)
}

func (c *Client) update(ctx context.Context, op string, stage *drone.Stage) error {
	next := copyStage(stage)
	for n := 0; ; n++ {
		cl, err := c.putStage(op, next)
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		err = c.persist(ctx, cl)
		// A duplicate is a step number that is taken: the server updates the stage first and inserts the steps then,
		// so an attempt that failed in between, or whose answer was lost, has moved the version too.
		if err != nil && !errors.Is(err, ErrOptimisticLock) && !errors.Is(err, ErrDuplicate) {
			return err
		}
		done := err == nil
		if !done {
			if done, err = c.resync(ctx, op, next); err != nil {
				return err
			}
		}
		if done {
			takeStage(stage, next)
			return nil
		}
		if n == maxResync {
			return &LockError{Op: op, Server: next}
		}
		if n > 0 {
			if err := c.pause(ctx, n, passing); err != nil {
				return fmt.Errorf("%s: %w", op, err)
			}
		}
	}
}

// putStage is one report of next, which takes the answer's versions and IDs. It gets Report's five minutes: the server
// answers when it has told the forge, and a forge that hangs does not keep it from applying the report.
func (c *Client) putStage(op string, next *drone.Stage) (*call, error) {
	sent := *next
	sent.Steps = nil
	for _, step := range next.Steps {
		// The server inserts every step of a stage that is not final, also those that it has.
		if (step.ID == 0) != ended(next.Status) {
			sent.Steps = append(sent.Steps, step)
		}
	}
	cl, err := c.jsonCall(http.MethodPut, fmt.Sprintf("/stage/%d", next.ID), &sent, into(func(got *drone.Stage) error {
		return merge(next, sent.Steps, got)
	}))
	if err != nil {
		return nil, err
	}
	cl.op, cl.limit, cl.versioned = op, c.timing.Report, true
	return cl, nil
}

// merge takes versions and IDs out of the answer to a report of these steps.
func merge(next *drone.Stage, sent []*drone.Step, got *drone.Stage) error {
	if got.ID != next.ID || got.Version <= next.Version {
		return errors.New("not the stage that was sent")
	}
	answers := map[int]*drone.Step{}
	for _, step := range got.Steps {
		answers[step.Number] = step
	}
	for _, step := range sent {
		if a := answers[step.Number]; a == nil || a.ID == 0 {
			return fmt.Errorf("step %d has no id", step.Number)
		}
	}
	for _, step := range sent {
		step.ID, step.Version = answers[step.Number].ID, answers[step.Number].Version
	}
	next.Version, next.Updated = got.Version, got.Updated
	return nil
}

// resync asks what the server has after a lost lock. A version alone does not tell a report of ours that was applied
// from somebody else's change. True says that it has next already; otherwise next is made fit to be sent again, or
// the error says why it must not be.
func (c *Client) resync(ctx context.Context, op string, next *drone.Stage) (bool, error) {
	got, err := c.Stage(ctx, next.ID)
	if err != nil {
		if ctx.Err() != nil {
			return false, fmt.Errorf("%s: %w", op, err)
		}
		c.log.WithError(err).Warn("the server refuses a report and cannot say why")
		return false, &LockError{Op: op}
	}
	switch {
	case got.Machine != next.Machine && next.Machine != "":
		return false, &LockError{Op: op, Server: got}
	case ended(got.Status):
		if !sameEnd(got, next) {
			return false, &LockError{Op: op, Server: got}
		}
		next.Version, next.Updated = got.Version, got.Updated
		return true, nil
	}
	applied := got.Status == next.Status && got.Version > next.Version
	next.Version, next.Updated = got.Version, got.Updated
	if !applied {
		return false, nil
	}
	return !renumber(next.Steps), nil
}

// sameEnd tells a final report of ours that was applied from an end that the server made by itself: a cancel moves
// the version by one too, but has its own moment as the end.
func sameEnd(got, sent *drone.Stage) bool {
	return got.Status == sent.Status && got.Version == sent.Version+1 &&
		got.Stopped == sent.Stopped && got.ExitCode == sent.ExitCode
}

// renumber moves the steps that have no ID past all numbers that may be taken; false says that there are none.
func renumber(steps []*drone.Step) bool {
	last := 0
	for _, step := range steps {
		last = max(last, step.Number)
	}
	any := false
	for _, step := range steps {
		if step.ID == 0 {
			last++
			step.Number, any = last, true
		}
	}
	return any
}

// copyStage copies the stage and its steps, so that a report that fails leaves the caller's as they were.
func copyStage(stage *drone.Stage) *drone.Stage {
	next := *stage
	next.Steps = make([]*drone.Step, len(stage.Steps))
	for i, step := range stage.Steps {
		s := *step
		s.StageID = stage.ID
		next.Steps[i] = &s
	}
	return &next
}

// takeStage hands the outcome of a report to the caller's stage.
func takeStage(stage, next *drone.Stage) {
	stage.Version, stage.Updated = next.Version, next.Updated
	for i, step := range next.Steps {
		mine := stage.Steps[i]
		mine.ID, mine.StageID, mine.Number, mine.Version = step.ID, step.StageID, step.Number, step.Version
	}
}
