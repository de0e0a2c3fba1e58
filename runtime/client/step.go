package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/drone/drone-go/drone"
)

// UpdateStep reports the step. Pending or running opens its live log (and empties one that is open); any other status
// closes it. A step cannot be read back, so after a lost lock (an answer that got lost, or a cancel) it is sent once
// more under the next version, which is what the server then has; after that it is an ErrOptimisticLock. It asks
// until ctx ends, without patience: an end that is never told leaves the step running for whoever looks at the build.
func (c *Client) UpdateStep(ctx context.Context, step *drone.Step) error {
	op := fmt.Sprintf("report step %d as %s", step.ID, step.Status)
	next := *step
	for tries, lost := 0, 0; ; tries++ {
		cl, err := c.jsonCall(http.MethodPut, fmt.Sprintf("/step/%d", step.ID), &next, into(func(got *drone.Step) error {
			if got.ID != next.ID || got.Version <= next.Version {
				return errors.New("not the step that was sent")
			}
			next.Version = got.Version
			return nil
		}))
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		cl.op, cl.versioned = op, true
		err = c.persist(ctx, cl)
		lost += cl.lost
		switch {
		case errors.Is(err, ErrOptimisticLock) && tries < min(1+lost, maxResync):
			next.Version++ // every answer that got lost can have moved the version once more
			continue
		case err != nil:
			return err
		}
		step.Version = next.Version
		return nil
	}
}

// Batch adds lines to the step's live log. It makes one attempt: the server keeps no position, so lines sent twice
// would show twice, and the whole log is stored by Upload anyway. An error comes after a pause that grows with each
// one in a row.
func (c *Client) Batch(ctx context.Context, step int64, lines []*drone.Line) error {
	cl, err := c.jsonCall(http.MethodPost, fmt.Sprintf("/step/%d/logs/batch", step), lines, emptyAnswer)
	if err != nil {
		return fmt.Errorf("send log lines of step %d: %w", step, err)
	}
	cl.op = fmt.Sprintf("send log lines of step %d", step)
	_, err = c.try(ctx, cl, cl.path)
	return err
}

// Upload stores the step's whole log. The server takes a log once; when it says that it has one, the upload is done.
func (c *Client) Upload(ctx context.Context, step int64, lines []*drone.Line) error {
	cl := &call{
		op:     fmt.Sprintf("upload the log of step %d", step),
		method: http.MethodPost,
		path:   fmt.Sprintf("/step/%d/logs/upload", step),
		stream: func() io.Reader { return &lineReader{lines: lines} },
		decode: emptyAnswer,
		limit:  c.timing.Report,
		max:    maxAnswer,
	}
	if err := c.persist(ctx, cl); !errors.Is(err, ErrDuplicate) {
		return err
	}
	return nil
}

// UploadCard stores the step's card. Servers that know no cards (2.0.4 and older) make it an ErrNoEndpoint.
func (c *Client) UploadCard(ctx context.Context, step int64, card *drone.CardInput) error {
	cl, err := c.jsonCall(http.MethodPost, fmt.Sprintf("/step/%d/card", step), card, nil)
	if err != nil {
		return fmt.Errorf("upload the card of step %d: %w", step, err)
	}
	cl.op, cl.optional, cl.patience = fmt.Sprintf("upload the card of step %d", step), true, c.timing.Patience
	return c.persist(ctx, cl)
}
