package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// The tests of this file are named after the known defects of the client that this one replaces; each fails with it.

// TestEdge01RetriesEndWithTheContext: every retry was a fixed sleep of 10 seconds that no context could end.
func TestEdge01RetriesEndWithTheContext(t *testing.T) {
	t.Parallel()
	srv := runtimetest.NewServer(t)
	srv.Down()
	cfg := config(srv, &output{})
	cfg.Timing = Timing{}
	c := open(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := c.Accept(ctx, &drone.Stage{ID: 1})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's end", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("returned after %s for a context of 300 ms", took)
	}
}

// TestEdge01PausesGrow: pauses grow up to a cap, and no two runners pause alike.
func TestEdge01PausesGrow(t *testing.T) {
	t.Parallel()
	c := &Client{timing: Timing{}.withDefaults()}
	seen := map[time.Duration]bool{}
	for n := range 20 {
		d := c.delay(n, passing)
		want := min(time.Second<<min(n, 10), 15*time.Second)
		if d < want*3/4 || d > want*5/4 {
			t.Errorf("pause %d is %s, want %s give or take a quarter", n, d, want)
		}
		seen[d] = true
	}
	if len(seen) < 15 {
		t.Errorf("20 pauses have only %d lengths: no jitter", len(seen))
	}
}

// TestEdge02EmptyPollIsAnswered: an empty long poll was followed by 10 deaf seconds.
func TestEdge02EmptyPollIsAnswered(t *testing.T) {
	t.Parallel()
	srv := runtimetest.NewServer(t, runtimetest.Poll(100*time.Millisecond))
	cfg := config(srv, &output{})
	cfg.Timing = Timing{MinPoll: 10 * time.Millisecond}
	c := open(t, cfg)
	start := time.Now()
	for range 10 {
		if stage, err := c.Request(t.Context(), filter); stage != nil || err != nil {
			t.Fatalf("got %v and %v from an empty queue", stage, err)
		}
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("10 polls of 100 ms took %s", took)
	}
}

// TestEdge03CancelBetweenWatches: a cancel that no watch was open for was never learned; a heartbeat tells it.
func TestEdge03CancelBetweenWatches(t *testing.T) {
	t.Parallel()
	f := started(t, runtimetest.Poll(50*time.Millisecond))
	if over, err := f.c.Watch(t.Context(), f.job.Build); over || err != nil {
		t.Fatalf("got %v and %v from a build that lives", over, err)
	}
	f.srv.Cancel(f.job.Build)
	if over, _ := f.c.Watch(t.Context(), f.job.Build); over {
		t.Fatal("a watch opened after the cancel learned of it: this test needs a server that forgets")
	}
	if err := f.c.Heartbeat(t.Context(), f.stage); !errors.Is(err, ErrCancelled) {
		t.Errorf("the heartbeat says %v, want ErrCancelled", err)
	}
}

// TestEdge03WatchesAreReopenedAtOnce: the gap of 10 seconds between two watches swallowed a quarter of the cancels.
func TestEdge03WatchesAreReopenedAtOnce(t *testing.T) {
	t.Parallel()
	f := started(t, runtimetest.Poll(50*time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	for range 5 {
		if _, err := f.c.Watch(ctx, f.job.Build); err != nil {
			t.Fatalf("watch: %v", err)
		}
	}
}

// TestEdge04ServerErrorsAreRetried: 500 and 501, which is how the server reports a database that is busy, were final.
func TestEdge04ServerErrorsAreRetried(t *testing.T) {
	t.Parallel()
	for _, code := range []int{500, 501, 503, 429} {
		f := accepted(t)
		f.srv.Script(runtimetest.StageRunning, runtimetest.Status(code), 1, 2, 3)
		if err := f.c.Update(t.Context(), f.stage); err != nil {
			t.Errorf("three times %d: %v", code, err)
		}
		f.must(f.inStep())
	}
}

// TestEdge07VersionsSurviveFailures: any error set the version to 0, after which every report was stale.
func TestEdge07VersionsSurviveFailures(t *testing.T) {
	t.Parallel()
	for _, act := range acts() {
		f := act.reach(t)
		f.srv.Script(act.call, runtimetest.Status(http.StatusBadRequest))
		stage, step := f.stage.Version, int64(0)
		if len(f.stage.Steps) > 0 {
			step = f.step().Version
		}
		steps := f.stage.Steps
		if err := act.do(t.Context(), f); err == nil {
			t.Errorf("%s: 400 is a success", act.call)
		}
		if f.stage.Version != stage || len(steps) > 0 && steps[0].Version != step {
			t.Errorf("%s: the failure changed a version", act.call)
		}
	}
}

// TestEdge09LostAcceptIsOurs: an accept whose answer was lost was tried again and refused, and the stage was dropped
// by its own runner.
func TestEdge09LostAcceptIsOurs(t *testing.T) {
	t.Parallel()
	f := offered(t)
	f.srv.Script(runtimetest.Accept, runtimetest.LostReply(), 1)
	f.must(f.c.Accept(t.Context(), f.stage))
	f.must(f.inStep())
}

// TestEdge10StaleStepIsSettled: one 409 or 500 for a step failed the whole pipeline.
func TestEdge10StaleStepIsSettled(t *testing.T) {
	t.Parallel()
	f := started(t)
	f.srv.Script(runtimetest.StepFinal, runtimetest.LostReply(), 1)
	f.end()
	f.must(f.c.UpdateStep(t.Context(), f.step()))
	f.must(f.inStep())
	got := f.srv.Requests(runtimetest.StepFinal)
	if len(got) != 3 || got[1].Status != http.StatusInternalServerError {
		t.Errorf("want lost, 500 with the lock's text, 200; got %d requests", len(got))
	}
}

// TestEdge22Limits: there was no timeout at all; a server that hangs held the call for ever.
func TestEdge22Limits(t *testing.T) {
	t.Parallel()
	f := accepted(t)
	f.srv.Script(runtimetest.Ping, runtimetest.Hang())
	err := within(t, func(ctx context.Context) error { return f.c.Ping(ctx, machine) })
	if !errors.Is(err, ErrTimeout) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want ErrTimeout, which is not the caller's deadline", err)
	}
	def := Timing{}.withDefaults()
	if def.Poll <= 30*time.Second || def.Report < 5*time.Minute || def.Call <= 0 {
		t.Errorf("limits %+v: a poll must outlast the server's, a report the forge's", def)
	}
}

// TestEdge22TLS: the transport for unverified certificates had none of the limits; the wrong scheme made an endless
// loop over pages of HTML.
func TestEdge22TLS(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	plain := httptest.NewServer(srv.Config.Handler)
	t.Cleanup(plain.Close)
	secure, open80 := srv.Listener.Addr().String(), plain.Listener.Addr().String()
	for _, tt := range []struct {
		proto, host string
		skip        bool
		want        string
	}{
		{"https", secure, true, ""},
		{"https", secure, false, "the server's certificate is not trusted"},
		{"http", secure, false, "the server speaks https, not http: set DRONE_RPC_PROTO=https"},
		{"https", open80, false, "the server speaks http, not https: set DRONE_RPC_PROTO=http"},
	} {
		c := open(t, Config{Proto: tt.proto, Host: tt.host, SkipVerify: tt.skip, Secret: "x"})
		err := within(t, func(ctx context.Context) error { return c.Ping(ctx, machine) })
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s, skip %v: got %v, want %q", tt.proto, tt.skip, err, tt.want)
		}
	}
	tr := transport(Config{SkipVerify: true})
	if tr.TLSHandshakeTimeout == 0 || tr.IdleConnTimeout == 0 || tr.Proxy == nil || !tr.TLSClientConfig.InsecureSkipVerify {
		t.Error("the transport for unverified certificates lacks a limit or the proxy")
	}
}

// TestAnswersAreBounded: what answers in the server's place cannot fill the memory, and is not believed.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewEncoder(w).Encode(map[string]string{"kind": strings.Repeat("x", maxAnswer)}); err != nil {
			return // the client has read enough
		}
	}))
	t.Cleanup(srv.Close)
	c := open(t, Config{Proto: "http", Host: srv.Listener.Addr().String(), Secret: "x", Timing: quick})
	stage, err := c.Request(t.Context(), filter)
	if stage != nil || err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %v and %v, want an error about the size", stage, err)
	}
}
