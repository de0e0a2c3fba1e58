package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"
)

// Accept takes the stage for stage.Machine. It returns ErrTaken if another runner was faster. The version moves only
// on success. After any other error the stage may be ours: the server has no call that gives one back.
func (c *Client) Accept(ctx context.Context, stage *drone.Stage) error {
	path := fmt.Sprintf("/stage/%d?machine=%s", stage.ID, url.QueryEscape(stage.Machine))
	cl, err := c.jsonCall(http.MethodPost, path, nil, into(func(got *drone.Stage) error {
		if got.ID != stage.ID {
			return errors.New("another stage than the one accepted")
		}
		stage.Version, stage.Updated = got.Version, got.Updated
		return nil
	}))
	if err != nil {
		return err
	}
	cl.op, cl.patience, cl.versioned = fmt.Sprintf("accept stage %d", stage.ID), c.timing.Patience, true
	err = c.persist(ctx, cl)
	if errors.Is(err, ErrOptimisticLock) {
		return c.refused(ctx, cl, stage)
	}
	c.streaks.end(cl.path)
	return err
}

// refused finds out whose the stage is after a 409. Only an attempt of this very call that got no answer can have made
// it ours: another runner may have our name.
func (c *Client) refused(ctx context.Context, cl *call, stage *drone.Stage) error {
	if cl.lost > 0 {
		got, err := c.Stage(ctx, stage.ID)
		if err != nil {
			return fmt.Errorf("%s: %w", cl.op, err)
		}
		// This is how Accept leaves a stage: pending, with our name, one version further.
		if got.Machine == stage.Machine && got.Status == drone.StatusPending && got.Version == stage.Version+1 {
			stage.Version, stage.Updated = got.Version, got.Updated
			return nil
		}
	}
	// A server that offers the same refused stage again and again must not make its runners spin.
	if n := c.streaks.next(cl.path); n > 0 {
		if err := c.pause(ctx, n, passing); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: %w", cl.op, ErrTaken)
}

// Detail fetches all that a stage needs: repository, build, configuration, secrets, netrc. Build, Stage, Repo, Config
// and System are never nil. The server asks the forge for some of it, so it may fail for a while.
func (c *Client) Detail(ctx context.Context, stage *drone.Stage) (*runner.Context, error) {
	var details *runner.Context
	cl, err := c.jsonCall(http.MethodGet, fmt.Sprintf("/stage/%d", stage.ID), nil, into(func(got *runner.Context) error {
		if got.Build == nil || got.Stage == nil || got.Repo == nil {
			return errors.New("details without a build, a stage or a repository")
		}
		if got.Config == nil {
			got.Config = new(runner.File)
		}
		if got.System == nil {
			got.System = new(drone.System)
		}
		details = got
		return nil
	}))
	if err != nil {
		return nil, err
	}
	cl.op, cl.max = fmt.Sprintf("get stage %d", stage.ID), maxDetails
	cl.limit, cl.patience = c.timing.Report, c.timing.Patience
	if err := c.persist(ctx, cl); err != nil {
		return nil, err
	}
	return details, nil
}

// Stage fetches the stage as the server has it: its version, status and machine. Its steps are not told. The server
// has no smaller call for that, so it costs as much as Detail.
func (c *Client) Stage(ctx context.Context, id int64) (*drone.Stage, error) {
	details, err := c.Detail(ctx, &drone.Stage{ID: id})
	if err != nil {
		return nil, err
	}
	return details.Stage, nil
}
