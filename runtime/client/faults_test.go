package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// act is one call at the point of a build where it is made.
type act struct {
	call  runtimetest.Call
	reach func(testing.TB, ...runtimetest.Option) *flight
	do    func(context.Context, *flight) error
	check func(*flight) error
}

// acts returns every call, with what must be true on the server once it has succeeded.
func acts() []act {
	status := func(f *flight, want string) error {
		if got := f.srv.Stage(f.stage.ID).Status; got != want {
			return fmt.Errorf("the stage is %s, want %s", got, want)
		}
		return f.inStep()
	}
	return []act{
		{runtimetest.Accept, offered,
			func(ctx context.Context, f *flight) error { return f.c.Accept(ctx, f.stage) },
			func(f *flight) error {
				if got := f.srv.Stage(f.stage.ID).Machine; got != machine {
					return fmt.Errorf("accepted for %q", got)
				}
				return f.inStep()
			}},
		{runtimetest.Detail, accepted,
			func(ctx context.Context, f *flight) error {
				details, err := f.c.Detail(ctx, f.stage)
				if err == nil && string(details.Config.Data) != "kind: pipeline" {
					return fmt.Errorf("configuration %q", details.Config.Data)
				}
				return err
			}, nil},
		{runtimetest.StageRunning, accepted,
			func(ctx context.Context, f *flight) error { return f.c.Update(ctx, f.stage) },
			func(f *flight) error { return status(f, drone.StatusRunning) }},
		{runtimetest.StepRunning, running,
			func(ctx context.Context, f *flight) error { f.begin(); return f.c.UpdateStep(ctx, f.step()) },
			func(f *flight) error { return f.inStep() }},
		{runtimetest.Upload, started,
			func(ctx context.Context, f *flight) error { return f.c.Upload(ctx, f.step().ID, lines(5, "x")) },
			func(f *flight) error {
				if got := runtimetest.Text(f.srv.Logs(f.step().ID).Stored); got != "xxxxx" {
					return fmt.Errorf("the stored log is %q", got)
				}
				return nil
			}},
		{runtimetest.Card, started,
			func(ctx context.Context, f *flight) error {
				return f.c.UploadCard(ctx, f.step().ID, &drone.CardInput{Schema: "s", Data: []byte(`{}`)})
			}, nil},
		{runtimetest.StepFinal, started,
			func(ctx context.Context, f *flight) error { f.end(); return f.c.UpdateStep(ctx, f.step()) },
			func(f *flight) error {
				if got, _ := f.srv.Step(f.stage.ID, "step 1"); got.Status != drone.StatusPassing {
					return fmt.Errorf("the step is %s", got.Status)
				}
				return f.inStep()
			}},
		{runtimetest.StageFinal, started,
			func(ctx context.Context, f *flight) error {
				f.finish(drone.StatusFailing)
				return f.c.Update(ctx, f.stage)
			},
			func(f *flight) error { return status(f, drone.StatusFailing) }},
	}
}

// TestOneFault lets each call meet each fault once: the call succeeds all the same, and the server's state is what it
// would have been without the fault. The exceptions are answers that do mean something.
func TestOneFault(t *testing.T) {
	meaning := map[string]error{
		"accept 409":       ErrTaken,
		"step running 409": ErrOptimisticLock,
		"step final 409":   ErrOptimisticLock,
		"card 404":         ErrNoEndpoint,
	}
	for _, act := range acts() {
		for _, fault := range runtimetest.Faults() {
			name := string(act.call) + " " + fault.Name
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f := act.reach(t, runtimetest.Cards())
				f.srv.Script(act.call, fault, 1)
				before := len(f.srv.Requests())
				err := within(t, func(ctx context.Context) error { return act.do(ctx, f) })
				if !errors.Is(err, meaning[name]) {
					t.Fatalf("got %v, want %v", err, meaning[name])
				}
				if err == nil && act.check != nil {
					f.must(act.check(f))
				}
				if !slices.ContainsFunc(f.srv.Requests(act.call), func(r runtimetest.Request) bool { return r.Fault == fault.Name }) {
					t.Error("the call did not meet the fault")
				}
				if n := len(f.srv.Requests()) - before; n > 12 {
					t.Errorf("%d requests for one fault", n)
				}
			})
		}
	}
}

// TestOneFaultOfThePoll lets the calls that the runner repeats by itself meet each fault once: a fault that passes is
// waited out by Request, and is an error of the others; the next call is well.
func TestOneFaultOfThePoll(t *testing.T) {
	for _, fault := range runtimetest.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			srv := runtimetest.NewServer(t)
			c := connect(t, srv)
			job := srv.Enqueue(runtimetest.Job{})
			srv.Script(runtimetest.RequestStage, fault, 1)
			var stage *drone.Stage
			f := within(t, func(ctx context.Context) error {
				for range 2 {
					var err error
					if stage, err = c.Request(ctx, filter); stage != nil {
						return err
					}
				}
				return errors.New("no stage in two requests")
			})
			if f != nil || stage.ID != job.Stage {
				t.Fatalf("got stage %v and %v", stage, f)
			}
		})
	}
}

// TestOneFaultOfSingleAttempts: ping, watch and live lines return their fault, and work the next time.
func TestOneFaultOfSingleAttempts(t *testing.T) {
	for _, fault := range runtimetest.Faults() {
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			f := started(t)
			for _, call := range []runtimetest.Call{runtimetest.Ping, runtimetest.Watch, runtimetest.Batch} {
				f.srv.Script(call, fault, 1)
			}
			ctx := t.Context()
			if f.c.Ping(ctx, machine) == nil {
				t.Error("ping met a fault without an error")
			}
			if _, err := f.c.Watch(ctx, f.job.Build); err == nil && fault.Name != "204" {
				t.Error("watch met a fault without an error")
			}
			if f.c.Batch(ctx, f.step().ID, lines(1, "x")) == nil {
				t.Error("batch met a fault without an error")
			}
			f.must(f.c.Ping(ctx, machine))
			f.must(f.c.Batch(ctx, f.step().ID, lines(1, "y")))
			go func() {
				f.srv.Wait("a watch", func() bool { return f.srv.Watches(f.job.Build) == 1 })
				f.srv.Cancel(f.job.Build)
			}()
			if over, err := f.c.Watch(ctx, f.job.Build); !over {
				t.Errorf("the watch after the fault did not learn of the cancel: %v", err)
			}
		})
	}
}

// TestErrorsSayWhatToDo checks the sentence for each thing that a person can get wrong.
func TestErrorsSayWhatToDo(t *testing.T) {
	srv := runtimetest.NewServer(t)
	for _, tt := range []struct {
		fault runtimetest.Fault
		is    error
		want  string
	}{
		{runtimetest.Status(http.StatusUnauthorized), ErrUnauthorized, "ping the server: the Drone server refuses the runner's secret: DRONE_RPC_SECRET must be the same on both (HTTP 401)"},
		{runtimetest.Status(http.StatusForbidden), ErrUnauthorized, "ping the server: the Drone server refuses the runner's secret: DRONE_RPC_SECRET must be the same on both (HTTP 403)"},
		{runtimetest.Status(http.StatusNotFound), ErrNoEndpoint, "ping the server: no such endpoint: is DRONE_RPC_HOST the Drone server, and is that server up? (HTTP 404)"},
		{runtimetest.Redirect("https://" + srv.Host + "/rpc/v2/ping"), ErrRedirected, "ping the server: the server redirects to https: set DRONE_RPC_PROTO=https (HTTP 302)"},
		{runtimetest.Redirect("https://ci.example.com/login?token=x"), ErrRedirected, "ping the server: the server redirects to https://ci.example.com: set DRONE_RPC_PROTO and DRONE_RPC_HOST to where the Drone server is (HTTP 302)"},
		{runtimetest.HTML(), ErrNotDrone, "ping the server: the answer is not Drone's: is DRONE_RPC_HOST the Drone server? (an empty answer was expected) (HTTP 200)"},
		{runtimetest.StatusText(500, "database is\n locked"), nil, "ping the server: database is locked (HTTP 500)"},
	} {
		t.Run(tt.fault.Name, func(t *testing.T) {
			srv.Heal()
			srv.Script(runtimetest.Ping, tt.fault)
			err := connect(t, srv).Ping(t.Context(), machine)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v is no %v", err, tt.is)
			}
		})
	}
}
