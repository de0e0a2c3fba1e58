package client

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// loops are callers that ask again at once, whatever they got, as the poller and the watchers may.
var loops = []struct {
	call runtimetest.Call
	do   func(context.Context, *flight)
}{
	{runtimetest.RequestStage, func(ctx context.Context, f *flight) { _, _ = f.c.Request(ctx, filter) }},
	{runtimetest.Watch, func(ctx context.Context, f *flight) { _, _ = f.c.Watch(ctx, f.job.Build) }},
	{runtimetest.Batch, func(ctx context.Context, f *flight) { _ = f.c.Batch(ctx, f.step().ID, lines(1, "x")) }},
	{runtimetest.Accept, func(ctx context.Context, f *flight) {
		if stage, err := f.c.Request(ctx, filter); err == nil && stage != nil {
			stage.Machine = machine
			_ = f.c.Accept(ctx, stage)
		}
	}},
}

// TestEdge06RatesAndStop measures, with the real pauses, what every call and every caller's loop does to a server that
// gives the same fault all the time: the old poller made 17,000 requests a second. Everything runs at once in one
// window; then the context ends, and everything must return within a second.
func TestEdge06RatesAndStop(t *testing.T) {
	const window = 4 * time.Second
	type probe struct {
		name string
		f    *flight
		took time.Duration
	}
	var probes []*probe
	var all sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var stopped time.Time // written before the context ends, read after
	launch := func(call runtimetest.Call, fault runtimetest.Fault, f *flight, do func()) {
		p := &probe{name: string(call) + "/" + fault.Name, f: f}
		probes = append(probes, p)
		cfg := config(f.srv, &output{})
		cfg.Timing = Timing{}
		f.c = open(t, cfg)
		f.srv.Script(call, fault)
		all.Go(func() {
			do()
			<-ctx.Done()
			p.took = time.Since(stopped)
		})
	}
	for _, fault := range runtimetest.Faults() {
		for _, act := range acts() {
			f := act.reach(t, runtimetest.Cards())
			launch(act.call, fault, f, func() { _ = act.do(ctx, f) })
		}
		for _, loop := range loops {
			f := started(t)
			f.srv.Enqueue(runtimetest.Job{})
			launch(loop.call, fault, f, func() {
				for ctx.Err() == nil {
					loop.do(ctx, f)
				}
			})
		}
	}
	begin := time.Now()
	if err := wait(t.Context(), window); err != nil {
		t.Fatal(err)
	}
	stopped = time.Now()
	stop()
	all.Wait()
	fastest, slowest := 0.0, time.Duration(0)
	for _, p := range probes {
		n := 0
		for _, r := range p.f.srv.Requests() {
			if r.Time.After(begin) {
				n++
			}
		}
		rate := float64(n) / stopped.Sub(begin).Seconds()
		fastest, slowest = max(fastest, rate), max(slowest, p.took)
		t.Run(p.name, func(t *testing.T) {
			if rate >= 2 {
				t.Errorf("%.1f requests a second", rate)
			}
			if p.took > time.Second {
				t.Errorf("returned %s after the context's end", p.took)
			}
		})
	}
	t.Logf("%d callers: at most %.2f requests a second, stopped within %s", len(probes), fastest, slowest)
}

// TestNothingIsLeft: when calls have ended and the client is closed, no goroutine is left of them.
func TestNothingIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	srv := runtimetest.NewServer(t)
	c := open(t, config(srv, &output{}))
	for _, fault := range []runtimetest.Fault{runtimetest.Hang(), runtimetest.Status(500), runtimetest.LostReply()} {
		srv.Heal()
		for _, call := range runtimetest.Calls() {
			srv.Script(call, fault)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		var calls sync.WaitGroup
		stage := func() *drone.Stage { return &drone.Stage{ID: 1, BuildID: 1, Status: drone.StatusRunning} }
		calls.Go(func() { _, _ = c.Request(ctx, filter) })
		calls.Go(func() { _, _ = c.Watch(ctx, 1) })
		calls.Go(func() { _ = c.Accept(ctx, stage()) })
		calls.Go(func() { _ = c.Update(ctx, stage()) })
		calls.Go(func() { _ = c.Upload(ctx, 1, lines(10000, "x")) })
		calls.Wait()
		cancel()
	}
	c.Close()
	srv.Close()
	late := time.After(time.Minute)
	for runtime.NumGoroutine() > before {
		select {
		case <-late:
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		case <-time.After(10 * time.Millisecond):
		}
	}
}
