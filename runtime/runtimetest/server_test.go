package runtimetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"
)

// The server is tested with plain requests, so that it does not take the client's word for what is right.

// caller sends requests to a server under test.
type caller struct {
	t   *testing.T
	srv *Server
}

// send makes a request and returns the answer's status and text.
func (c caller) send(ctx context.Context, method, path string, v any) (int, string, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return 0, "", err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.srv.URL+"/rpc/v2"+path, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("X-Drone-Token", c.srv.Secret)
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := (&http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}).Do(req)
	if err != nil {
		return 0, "", err
	}
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), errors.Join(err, res.Body.Close())
}

// want makes a request, checks its status, and decodes the answer into out unless that is nil.
func (c caller) want(status int, method, path string, v, out any) string {
	c.t.Helper()
	got, text, err := c.send(c.t.Context(), method, path, v)
	if err != nil || got != status {
		c.t.Fatalf("%s %s: %d %s (%v), want %d", method, path, got, text, err, status)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(text), out); err != nil {
			c.t.Fatalf("%s %s: %q: %v", method, path, text, err)
		}
	}
	return text
}

// serve starts a server with one job.
func serve(t *testing.T, job Job, options ...Option) (caller, Enqueued) {
	srv := NewServer(t, append([]Option{Poll(50 * time.Millisecond)}, options...)...)
	return caller{t, srv}, srv.Enqueue(job)
}

var exec = &runner.Filter{Kind: "pipeline", Type: "exec"}

// running takes the job's stage to running, with n steps.
func (c caller) running(job Enqueued, n int) *drone.Stage {
	c.t.Helper()
	stage := new(drone.Stage)
	c.want(200, "POST", "/stage", exec, stage)
	c.want(200, "POST", fmt.Sprintf("/stage/%d?machine=m", job.Stage), nil, stage)
	stage.Status, stage.Started = drone.StatusRunning, 5
	for i := range n {
		stage.Steps = append(stage.Steps, &drone.Step{StageID: stage.ID, Number: i + 1, Name: fmt.Sprint(i + 1), Status: drone.StatusPending})
	}
	c.want(200, "PUT", fmt.Sprintf("/stage/%d", stage.ID), stage, stage)
	return stage
}

// TestWholeBuild follows the versions through a build.
func TestWholeBuild(t *testing.T) {
	t.Parallel()
	c, job := serve(t, Job{Config: "name: x", Netrc: &drone.Netrc{Machine: "m"}, Secrets: []*drone.Secret{{Name: "s", Data: "d"}}})
	stage := c.running(job, 2)
	if stage.Version != 3 || stage.Steps[1].ID == 0 || stage.Steps[1].Version != 1 {
		t.Fatalf("running: %+v", stage)
	}
	details := new(runner.Context)
	c.want(200, "GET", fmt.Sprintf("/stage/%d", stage.ID), nil, details)
	if string(details.Config.Data) != "name: x" || details.Netrc.Machine != "m" || details.Secrets[0].Data != "d" ||
		details.Repo.Secret == "" || details.Stage.Version != 3 || len(details.Stage.Steps) != 0 || len(details.Build.Stages) != 1 {
		t.Errorf("details: %+v", details)
	}
	step := stage.Steps[0]
	path := fmt.Sprintf("/step/%d", step.ID)
	log := []*drone.Line{{Message: "hello\n"}}
	if text := c.want(500, "POST", path+"/logs/batch", log, nil); text != "stream: not found" {
		t.Errorf("a batch before the step runs: %s", text)
	}
	step.Status = drone.StatusRunning
	c.want(200, "PUT", path, step, step)
	c.want(200, "POST", path+"/logs/batch", log, nil)
	c.want(200, "POST", path+"/logs/upload", log, nil)
	if text := c.want(500, "POST", path+"/logs/upload", log, nil); !strings.Contains(text, "UNIQUE") {
		t.Errorf("a second upload: %s", text)
	}
	c.want(404, "POST", path+"/card", &drone.CardInput{}, nil)
	step.Status = drone.StatusPassing
	c.want(200, "PUT", path, step, step)
	if step.Version != 3 {
		t.Errorf("the step has version %d", step.Version)
	}
	stage.Status, stage.Steps = drone.StatusPassing, nil
	c.want(200, "PUT", fmt.Sprintf("/stage/%d", stage.ID), stage, stage)
	if b := c.srv.Build(job.Build); b.Status != drone.StatusPassing || b.Stages[0].Version != 4 {
		t.Errorf("the build: %+v", b)
	}
	if got := c.srv.Logs(step.ID); Text(got.Live) != "hello\n" || Text(got.Stored) != "hello\n" || got.Open {
		t.Errorf("the log: %+v", got)
	}
	if s, ok := c.srv.Step(stage.ID, "2"); !ok || s.Status != drone.StatusPending {
		t.Errorf("a step that was never reported: %+v", s)
	}
}

// TestLocks: every stale version is refused in the way of the real server, and what a refused report did is kept.
func TestLocks(t *testing.T) {
	t.Parallel()
	c, job := serve(t, Job{})
	stage := c.running(job, 1)
	c.want(409, "POST", fmt.Sprintf("/stage/%d?machine=other", stage.ID), nil, nil)
	path := fmt.Sprintf("/stage/%d", stage.ID)
	stale := *stage
	stale.Version--
	c.want(409, "PUT", path, &stale, nil)
	if text := c.want(500, "PUT", path, stage, nil); !strings.Contains(text, "UNIQUE") {
		t.Errorf("the same steps again: %s", text)
	}
	if got := c.srv.Stage(stage.ID).Version; got != stage.Version+1 {
		t.Errorf("a report that failed at its steps left version %d, want %d: the stage is updated first", got, stage.Version+1)
	}
	step := *stage.Steps[0]
	step.Version, step.Status = 7, drone.StatusRunning
	c.want(409, "PUT", fmt.Sprintf("/step/%d", step.ID), &step, nil)
	step.Status = drone.StatusPassing
	if text := c.want(500, "PUT", fmt.Sprintf("/step/%d", step.ID), &step, nil); !strings.Contains(text, "* Optimistic Lock Error") {
		t.Errorf("a stale end of a step: %s", text)
	}
	step.Version = 1
	c.want(200, "PUT", fmt.Sprintf("/step/%d", step.ID), &step, nil) // it never ran, which is what skipping is
	if got, _ := c.srv.Step(stage.ID, "1"); got.Status != drone.StatusPassing || got.Version != 2 {
		t.Errorf("the end of a step that never ran: %+v", got)
	}
	stale.BuildID, stale.Status = 99, drone.StatusPassing
	if text := c.want(500, "PUT", path, &stale, nil); !strings.Contains(text, "no rows") {
		t.Errorf("a build that is gone: %s", text)
	}
}

// TestCancel: only an open watch learns of it, versions move, and a restart forgets what nobody watched.
func TestCancel(t *testing.T) {
	t.Parallel()
	c, job := serve(t, Job{}, Poll(time.Minute))
	stage := c.running(job, 2)
	step := stage.Steps[0]
	step.Status, step.Started = drone.StatusRunning, 6
	c.want(200, "PUT", fmt.Sprintf("/step/%d", step.ID), step, step)
	answers := make(chan int, 2)
	for range 2 {
		go func() {
			status, _, err := c.send(t.Context(), "POST", fmt.Sprintf("/build/%d/watch", job.Build), nil)
			if err != nil {
				status = -1
			}
			answers <- status
		}()
	}
	c.srv.Wait("both watches", func() bool { return c.srv.Watches(job.Build) == 2 })
	c.srv.Cancel(job.Build)
	if a, b := <-answers, <-answers; a != 200 || b != 200 {
		t.Errorf("the watches were answered %d and %d", a, b)
	}
	got := c.srv.Stage(stage.ID)
	if got.Status != drone.StatusKilled || got.Version != stage.Version+1 || c.srv.Build(job.Build).Status != drone.StatusKilled {
		t.Errorf("the stage: %+v", got)
	}
	if one, two := got.Steps[0], got.Steps[1]; one.Status != drone.StatusKilled || one.ExitCode != 130 || one.Version != 3 ||
		two.Status != drone.StatusSkipped || two.Version != 2 {
		t.Errorf("the steps: %+v %+v", one, two)
	}
	c.want(409, "PUT", fmt.Sprintf("/stage/%d", stage.ID), stage, nil)
	late, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if status, _, err := c.send(late, "POST", fmt.Sprintf("/build/%d/watch", job.Build), nil); err == nil {
		t.Errorf("a watch opened after the cancel was answered %d", status)
	}
}

// TestQueue: platform, labels, limits, dependencies, and an offer that is repeated until it is accepted.
func TestQueue(t *testing.T) {
	t.Parallel()
	c, first := serve(t, Job{Stages: []drone.Stage{{Name: "a", Limit: 1}, {Name: "b", DependsOn: []string{"a"}},
		{Name: "c", DependsOn: []string{"a"}, OnFailure: true}}})
	second := c.srv.Enqueue(Job{Stages: []drone.Stage{{Name: "a", Limit: 1}}})
	c.want(204, "POST", "/stage", &runner.Filter{Kind: "pipeline", Type: "docker"}, nil)
	c.want(204, "POST", "/stage", &runner.Filter{Kind: "pipeline", Type: "exec", OS: "plan9", Arch: "mips"}, nil)
	c.want(204, "POST", "/stage", &runner.Filter{Kind: "pipeline", Type: "exec", Labels: map[string]string{"a": "b"}}, nil)
	var again drone.Stage
	for range 2 {
		if c.want(200, "POST", "/stage", exec, &again); again.ID != first.Stage {
			t.Fatalf("offered %d, want %d until it is accepted", again.ID, first.Stage)
		}
	}
	stage := c.running(first, 0)
	c.want(204, "POST", "/stage", exec, nil) // the limit holds the second build back
	stage.Status = drone.StatusFailing
	c.want(200, "PUT", fmt.Sprintf("/stage/%d", stage.ID), stage, nil)
	b := c.srv.Build(first.Build)
	if b.Stages[1].Status != drone.StatusSkipped || b.Stages[2].Status != drone.StatusPending || b.Status != drone.StatusRunning {
		t.Errorf("after a failed: %+v", b)
	}
	c.want(200, "POST", "/stage", exec, &again)
	c.want(200, "POST", fmt.Sprintf("/stage/%d?machine=m", first.Stages[2]), nil, nil)
	c.srv.Cancel(first.Build)
	if c.want(200, "POST", "/stage", exec, &again); again.ID != second.Stage {
		t.Errorf("offered %d, want %d: the limit is free", again.ID, second.Stage)
	}
}

// TestFaults: each fault does what its name says, the nth time only, and is recorded.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		fault   Fault
		status  int // 0: no answer
		applied bool
	}{
		{Status(502), 502, false}, {StatusText(500, "x"), 500, false}, {Empty(), 204, false}, {Redirect("https://x/"), 302, false},
		{HTML(), 200, false}, {Hang(), 0, false}, {Reset(), 0, false}, {LostReply(), 0, true}, {Stall(), 0, true},
		{Truncate(), 0, true}, {Slow(10 * time.Millisecond), 200, true},
	} {
		t.Run(tt.fault.Name, func(t *testing.T) {
			t.Parallel()
			c, job := serve(t, Job{})
			other := c.srv.Enqueue(Job{})
			c.srv.Script(Accept, tt.fault, 2)
			c.want(200, "POST", fmt.Sprintf("/stage/%d?machine=m", other.Stage), nil, nil)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			status, _, err := c.send(ctx, "POST", fmt.Sprintf("/stage/%d?machine=m", job.Stage), nil)
			if (err != nil) != (tt.status == 0) || err == nil && status != tt.status {
				t.Errorf("answered %d (%v), want %d", status, err, tt.status)
			}
			if got := c.srv.Stage(job.Stage).Machine == "m"; got != tt.applied {
				t.Errorf("applied: %v, want %v", got, tt.applied)
			}
			if r := c.srv.Requests(Accept); len(r) != 2 || r[0].Fault != "" || r[1].Fault != tt.fault.Name {
				t.Errorf("recorded %+v", r)
			}
		})
	}
}

// TestDownAndRestart: a server that is away answers nothing until it is healed; a restart loses live logs only.
func TestDownAndRestart(t *testing.T) {
	t.Parallel()
	c, job := serve(t, Job{})
	stage := c.running(job, 1)
	step := stage.Steps[0]
	step.Status = drone.StatusRunning
	c.want(200, "PUT", fmt.Sprintf("/step/%d", step.ID), step, step)
	c.srv.Down()
	if status, _, err := c.send(t.Context(), "POST", "/ping", nil); err == nil {
		t.Errorf("a server that is down answered %d", status)
	}
	c.srv.Heal()
	c.want(200, "POST", "/ping", nil, nil)
	c.srv.Restart()
	c.want(500, "POST", fmt.Sprintf("/step/%d/logs/batch", step.ID), []*drone.Line{{}}, nil)
	if got := c.srv.Stage(stage.ID).Status; got != drone.StatusRunning {
		t.Errorf("after the restart the stage is %s", got)
	}
}

// TestRequestRate counts by calls and within the busiest window.
func TestRequestRate(t *testing.T) {
	t.Parallel()
	s := &Server{}
	base := time.Unix(1000, 0)
	for _, at := range []time.Duration{0, 900, 1800, 1900, 2000, 9000} {
		s.past = append(s.past, Request{Call: Ping, Time: base.Add(at * time.Millisecond)})
	}
	s.past = append(s.past, Request{Call: Watch, Time: base.Add(9001 * time.Millisecond)})
	for _, tt := range []struct {
		window time.Duration
		calls  []Call
		want   float64
	}{{time.Second, nil, 3}, {2 * time.Second, nil, 2}, {time.Second, []Call{Watch}, 1}, {time.Second, []Call{Batch}, 0}} {
		if got := s.RequestRate(tt.window, tt.calls...); got != tt.want {
			t.Errorf("window %s of %v: %v, want %v", tt.window, tt.calls, got, tt.want)
		}
	}
}

// TestSecret: a wrong secret is 401, and cards are taken where they are known.
func TestSecret(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, Job{}, Secret("right"), Cards())
	c.want(200, "POST", "/step/7/card", map[string]string{"schema": "x"}, nil)
	if got := string(c.srv.Card(7)); got != `{"schema":"x"}` {
		t.Errorf("the card is %s", got)
	}
	caller{t, &Server{URL: c.srv.URL, Secret: "wrong"}}.want(401, "POST", "/ping", nil, nil)
}
