package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"
)

// Join does nothing: the server has no use for it. It and Leave are there for runner-go's interface.
func (c *Client) Join(context.Context, string) error { return nil }

// Leave does nothing: the server has no use for it.
func (c *Client) Leave(context.Context, string) error { return nil }

// Ping asks once whether the server is there and knows the secret. It is the only call that says nothing about a
// stage, so `doctor` and the daemon's start use it.
func (c *Client) Ping(ctx context.Context, _ string) error {
	cl, err := c.jsonCall(http.MethodPost, "/ping", nil, emptyAnswer)
	if err != nil {
		return err
	}
	cl.op = "ping the server"
	if _, fault := c.once(ctx, cl); fault != nil {
		return fault
	}
	return nil
}

// emptyAnswer refuses a body where Drone sends none: whatever sent one is not Drone.
func emptyAnswer(body []byte) error {
	if len(body) > 0 {
		return errors.New("an empty answer was expected")
	}
	return nil
}

// Request asks for a stage to run. It returns nil without an error when the server had none for the length of its
// long poll; the caller asks again at once. Faults that pass are waited out inside. Those that need a person are
// returned, after a pause that grows, so that asking again at once is right after an error too.
func (c *Client) Request(ctx context.Context, filter *runner.Filter) (*drone.Stage, error) {
	var stage *drone.Stage
	cl, err := c.jsonCall(http.MethodPost, "/stage", filter, into(func(s **drone.Stage) error {
		if *s != nil && (*s).ID == 0 {
			return errors.New("a stage without an id")
		}
		stage = *s
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("request a stage: %w", err)
	}
	cl.op, cl.empty, cl.limit = "request a stage", true, c.timing.Poll
	for n := 0; ; n++ {
		start := time.Now()
		_, fault := c.once(ctx, cl)
		switch {
		case fault == nil && stage != nil:
			c.streaks.end("request")
			return stage, nil
		case fault == nil:
			c.streaks.end("request")
			return nil, c.holdBack(ctx, start)
		case fault.kind != passing && ctx.Err() == nil:
			if err := c.pause(ctx, c.streaks.next("request"), standing); err != nil {
				return nil, stopped(err, fault)
			}
			return nil, fault
		}
		if err := c.pause(ctx, n, fault.kind); err != nil {
			return nil, stopped(err, fault)
		}
	}
}

// Watch waits until the server ends the build; true says that it has. It returns false without an error at the end of
// the server's long poll, and an error, after a pause that grows with each one in a row, when the watch broke. The
// server tells a cancel only to the watches that are open at that moment: keep two, and confirm with Heartbeat
// whenever both may have been closed.
func (c *Client) Watch(ctx context.Context, build int64) (bool, error) {
	cl, err := c.jsonCall(http.MethodPost, fmt.Sprintf("/build/%d/watch", build), nil, emptyAnswer)
	if err != nil {
		return false, err
	}
	cl.op, cl.empty, cl.limit = fmt.Sprintf("watch build %d", build), true, c.timing.Poll
	start := time.Now()
	status, err := c.try(ctx, cl, cl.path)
	if err != nil || status == http.StatusOK {
		return err == nil, err
	}
	return false, c.holdBack(ctx, start)
}

// holdBack makes an empty answer last MinPoll at least: an honest one takes 30 seconds, and the caller asks again at
// once.
func (c *Client) holdBack(ctx context.Context, start time.Time) error {
	if rest := c.timing.MinPoll - time.Since(start); rest > 0 {
		return wait(ctx, rest)
	}
	return nil
}
