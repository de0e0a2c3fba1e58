package client

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// TestCanary plants secrets everywhere that the server's API carries them, makes every call with every dump switched
// on, well and with answers that repeat the secret, and looks for them in errors, log and dump.
func TestCanary(t *testing.T) {
	t.Parallel()
	const rpc = `canary-rpc-7f3a"<&`
	srv := runtimetest.NewServer(t, runtimetest.Secret(rpc), runtimetest.Poll(100*time.Millisecond))
	log, dump := &output{}, &output{}
	cfg := config(srv, log)
	cfg.Dump, cfg.DumpHTTP, cfg.DumpBody = dump, true, true
	c := open(t, cfg)
	job := srv.Enqueue(runtimetest.Job{
		Config:  "kind: secret\ndata: canary-config",
		Repo:    drone.Repo{Secret: "canary-signing-key", Signer: "canary-signer"},
		Build:   drone.Build{Params: map[string]string{"TOKEN": "canary-parameter"}},
		Secrets: []*drone.Secret{{Name: "password", Data: "canary-secret"}},
		Netrc:   &drone.Netrc{Machine: "forge", Login: "canary-login", Password: "canary-netrc"},
	})
	var said strings.Builder
	note := func(err error) { fmt.Fprintln(&said, err) }

	ctx := t.Context()
	stage, err := c.Request(ctx, filter)
	note(err)
	stage.Machine = machine
	note(c.Accept(ctx, stage))
	details, err := c.Detail(ctx, stage)
	note(err)
	if details.Secrets[0].Data != "canary-secret" || details.Netrc.Password != "canary-netrc" || details.Repo.Secret != "canary-signing-key" {
		t.Fatal("the details lack what the build needs")
	}
	stage.Status = drone.StatusRunning
	stage.Steps = []*drone.Step{{Number: 1, Name: "one", Status: drone.StatusPending}}
	note(c.Update(ctx, stage))
	step := stage.Steps[0]
	step.Status = drone.StatusRunning
	note(c.UpdateStep(ctx, step))
	note(c.Upload(ctx, step.ID, lines(1, "a line")))
	if got := said.String(); strings.Trim(got, "<nil>\n") != "" {
		t.Fatalf("errors on the way: %s", got)
	}
	for _, fault := range []runtimetest.Fault{
		runtimetest.StatusText(400, "you sent "+rpc),
		runtimetest.StatusText(500, "X-Drone-Token: "+rpc),
		runtimetest.StatusText(500, fmt.Sprintf(`{"message":%q}`, rpc)),
		runtimetest.StatusText(429, "<p>"+html.EscapeString(rpc)+"</p>"),
		runtimetest.StatusText(400, "/rpc/v2?token="+url.QueryEscape(rpc)),
		runtimetest.StatusText(401, rpc),
		runtimetest.Redirect("https://elsewhere.example.com/?token=" + rpc),
		runtimetest.StatusText(200, `{"id":"`+rpc+`"}`),
		runtimetest.StatusText(200, fmt.Sprintf(`{"id":%q}`, rpc)),
		runtimetest.Reset(), runtimetest.Hang(),
	} {
		srv.Heal()
		for _, call := range runtimetest.Calls() {
			srv.Script(call, fault, 1)
		}
		_, err = c.Request(ctx, filter)
		note(err)
		_, err = c.Watch(ctx, job.Build)
		note(err)
		note(c.Ping(ctx, machine))
		note(c.Batch(ctx, step.ID, lines(1, "x")))
		note(c.Heartbeat(ctx, stage))
		note(c.UpdateStep(ctx, step))
	}
	for where, text := range map[string]string{"an error": said.String(), "the log": log.String(), "the dump": dump.String()} {
		for line := range strings.Lines(text) {
			if strings.Contains(line, "canary") {
				t.Errorf("%s shows a secret: %s", where, line)
			}
		}
	}
	for _, want := range []string{"> POST /rpc/v2/stage\n", "> X-Drone-Token: [redacted]\n", `"netrc":"[redacted]"`, "< 200 OK\n", "(a log)"} {
		if !strings.Contains(dump.String(), want) {
			t.Errorf("the dump lacks %q", want)
		}
	}
}

// TestProxyCannotBeParsed: net/http quotes a proxy's address that it cannot parse, with the password in it.
func TestProxyCannotBeParsed(t *testing.T) {
	t.Parallel()
	srv, log := runtimetest.NewServer(t), &output{}
	cfg := config(srv, log)
	cfg.Proxy = func(*http.Request) (*url.URL, error) {
		return nil, errors.New(`invalid proxy address "http://user:canary%@proxy:3128": parse: invalid URL escape "%@"`)
	}
	c := open(t, cfg)
	ctx, done := context.WithTimeout(t.Context(), 30*time.Second)
	defer done()
	_, err := c.Request(ctx, filter)
	if err == nil || !strings.Contains(err.Error(), "https_proxy") {
		t.Errorf("the error does not name the setting: %v", err)
	}
	if h := c.Health(); h.OK {
		t.Error("the server counts as reached")
	}
	if said := fmt.Sprint(err, log); strings.Contains(said, "canary") {
		t.Errorf("the password is shown: %s", said)
	}
}

// TestDumpOnlyWhatIsAsked: headers without bodies, and nothing at all.
func TestDumpOnlyWhatIsAsked(t *testing.T) {
	t.Parallel()
	srv := runtimetest.NewServer(t)
	for _, headers := range []bool{true, false} {
		dump := &output{}
		cfg := config(srv, &output{})
		cfg.Dump, cfg.DumpHTTP = dump, headers
		srv.Enqueue(runtimetest.Job{})
		if _, err := open(t, cfg).Request(t.Context(), filter); err != nil {
			t.Fatal(err)
		}
		if got := dump.String(); (got != "") != headers || strings.Contains(got, "pipeline") {
			t.Errorf("DumpHTTP %v wrote %q", headers, got)
		}
	}
}

// TestSaysItOnce: an outage or a wrong secret costs one line when it begins, one when it ends.
func TestSaysItOnce(t *testing.T) {
	t.Parallel()
	srv := runtimetest.NewServer(t, runtimetest.Poll(100*time.Millisecond))
	log := &output{}
	c := open(t, config(srv, log))
	if h := c.Health(); !h.OK || h.Err != nil {
		t.Errorf("health before the first call: %+v", h)
	}
	srv.Script(runtimetest.RequestStage, runtimetest.Status(401))
	for range 5 {
		if _, err := c.Request(t.Context(), filter); err == nil {
			t.Fatal("401 without an error")
		}
	}
	if h := c.Health(); h.OK || h.Err == nil {
		t.Errorf("health with a refused secret: %+v", h)
	}
	if n := strings.Count(log.String(), "DRONE_RPC_SECRET"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log)
	}
	srv.Heal()
	srv.Enqueue(runtimetest.Job{})
	srv.Script(runtimetest.RequestStage, runtimetest.Reset(), 1, 2, 3)
	if stage, err := c.Request(t.Context(), filter); stage == nil {
		t.Fatal(err)
	}
	if h := c.Health(); !h.OK || h.Err != nil {
		t.Errorf("health after an answer: %+v", h)
	}
	if got := log.String(); strings.Count(got, "cannot work with") != 2 || strings.Count(got, "answers again") != 1 {
		t.Errorf("the log:\n%s", got)
	}
}
