package client

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// TestAcceptRefused: a 409 is another runner's stage, also when that runner has our name, unless an attempt of this
// very call got no answer.
func TestAcceptRefused(t *testing.T) {
	t.Parallel()
	f := offered(t)
	other := *f.stage
	f.must(connect(t, f.srv).Accept(t.Context(), &other))
	version := f.stage.Version
	if err := f.c.Accept(t.Context(), f.stage); !errors.Is(err, ErrTaken) || !errors.Is(err, ErrOptimisticLock) {
		t.Errorf("got %v, want ErrTaken", err)
	}
	if f.stage.Version != version {
		t.Errorf("the refusal changed the version from %d to %d", version, f.stage.Version)
	}
	if n := len(f.srv.Requests(runtimetest.Detail)); n != 0 {
		t.Errorf("a clear refusal was followed by %d questions", n)
	}
}

// TestAcceptLostToAnother: an attempt got no answer, and it was another runner that took the stage.
func TestAcceptLostToAnother(t *testing.T) {
	t.Parallel()
	f := offered(t)
	other := *f.stage
	other.Machine = "other"
	f.must(connect(t, f.srv).Accept(t.Context(), &other))
	f.srv.Script(runtimetest.Accept, runtimetest.Reset(), 1)
	if err := f.c.Accept(t.Context(), f.stage); !errors.Is(err, ErrTaken) {
		t.Errorf("got %v, want ErrTaken", err)
	}
}

// TestStepIDsLost: the answer with the steps' ids is lost once and twice; the steps get other numbers and ids that the
// server knows.
func TestStepIDsLost(t *testing.T) {
	t.Parallel()
	for n, nth := range [][]int{{}, {1}, {1, 3}} {
		f := accepted(t)
		if len(nth) > 0 {
			f.srv.Script(runtimetest.StageRunning, runtimetest.LostReply(), nth...)
		}
		f.must(f.c.Update(t.Context(), f.stage))
		f.must(f.inStep())
		if got := len(f.srv.Stage(f.stage.ID).Steps); got != 3*(n+1) {
			t.Errorf("%d lost answers: %d steps on the server", n, got)
		}
		if got := f.step().Number; got != 3*n+1 {
			t.Errorf("%d lost answers: the first step has number %d", n, got)
		}
		f.begin()
		f.must(f.c.UpdateStep(t.Context(), f.step()))
	}
}

// TestStepNumbersTaken: the server has updated the stage when it finds that a step's number is taken.
func TestStepNumbersTaken(t *testing.T) {
	t.Parallel()
	f := running(t)
	for _, step := range f.stage.Steps {
		step.ID = 0
	}
	f.must(f.c.Update(t.Context(), f.stage))
	f.must(f.inStep())
	if got := f.step().Number; got != 4 {
		t.Errorf("the first step has number %d, want 4", got)
	}
}

// TestFinalReportAfterCancel: a cancelled stage is never reported as anything else; the error carries the version
// under which `killed` is accepted.
func TestFinalReportAfterCancel(t *testing.T) {
	t.Parallel()
	for _, fault := range []runtimetest.Fault{{}, runtimetest.Reset(), runtimetest.Status(http.StatusBadGateway)} {
		f := started(t)
		f.srv.Cancel(f.job.Build)
		if fault.Name != "" {
			f.srv.Script(runtimetest.StageFinal, fault, 1)
		}
		f.finish(drone.StatusPassing)
		version := f.stage.Version
		err := f.c.Update(t.Context(), f.stage)
		var lock *LockError
		if !errors.Is(err, ErrCancelled) || !errors.Is(err, ErrOptimisticLock) || !errors.As(err, &lock) {
			t.Fatalf("after %q: got %v, want a LockError of a cancel", fault.Name, err)
		}
		if got := f.srv.Stage(f.stage.ID); got.Status != drone.StatusKilled || f.stage.Version != version {
			t.Errorf("the server's stage is %s, our version %d (was %d)", got.Status, f.stage.Version, version)
		}
		f.stage.Version = lock.Server.Version
		f.finish(drone.StatusKilled)
		f.stage.Error = "and this is left"
		f.must(f.c.Update(t.Context(), f.stage))
		if got := f.srv.Stage(f.stage.ID); got.Error != f.stage.Error || got.Status != drone.StatusKilled {
			t.Errorf("the server's stage is %s (%q)", got.Status, got.Error)
		}
	}
}

// TestKilledUnderAStaleVersion: the server's own end as killed is not taken for our report of it.
func TestKilledUnderAStaleVersion(t *testing.T) {
	t.Parallel()
	f := started(t)
	f.srv.Cancel(f.job.Build)
	f.finish(drone.StatusKilled)
	if err := f.c.Update(t.Context(), f.stage); !errors.Is(err, ErrCancelled) {
		t.Errorf("got %v, want ErrCancelled: the report did not arrive", err)
	}
}

// TestKilledReportLostAfterCancel: the server ended the stage as killed by itself; a lost report of killed is told
// from that by its times, so the text of ours arrives.
func TestKilledReportLostAfterCancel(t *testing.T) {
	t.Parallel()
	f := started(t)
	f.srv.Cancel(f.job.Build)
	f.stage.Version = f.srv.Stage(f.stage.ID).Version
	f.finish(drone.StatusKilled)
	f.stage.Error = "two processes are left"
	f.srv.Script(runtimetest.StageFinal, runtimetest.LostReply(), 1)
	f.must(f.c.Update(t.Context(), f.stage))
	f.must(f.inStep())
	if got := f.srv.Stage(f.stage.ID).Error; got != f.stage.Error {
		t.Errorf("the server's error is %q", got)
	}
}

// TestHeartbeat: it tells a cancel, and nothing else, from a build that lives.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	f := started(t)
	for _, fault := range []runtimetest.Fault{{}, runtimetest.LostReply(), runtimetest.Truncate(), runtimetest.Reset(), runtimetest.Status(500)} {
		if fault.Name != "" {
			f.srv.Script(runtimetest.StageRunning, fault, 1)
		}
		if err := f.c.Heartbeat(t.Context(), f.stage); err != nil {
			t.Fatalf("after %q: %v", fault.Name, err)
		}
		f.must(f.inStep())
	}
	f.srv.Bump(f.stage.ID, nil)
	f.must(f.c.Heartbeat(t.Context(), f.stage))
	f.must(f.inStep())
	if got := len(f.srv.Stage(f.stage.ID).Steps); got != 3 {
		t.Errorf("the heartbeats left %d steps", got)
	}
	for _, fault := range []runtimetest.Fault{{}, runtimetest.Reset()} {
		if fault.Name != "" {
			f.srv.Script(runtimetest.StageRunning, fault, 1)
		}
		f.srv.Cancel(f.job.Build)
		if err := f.c.Heartbeat(t.Context(), f.stage); !errors.Is(err, ErrCancelled) {
			t.Errorf("after the cancel: got %v, want ErrCancelled", err)
		}
	}
	if got := f.srv.Stage(f.stage.ID).Status; got != drone.StatusKilled {
		t.Errorf("a heartbeat made the cancelled stage %s", got)
	}
}

// TestStepAfterCancel: the cancel has moved the step's version; the report is sent once more, and arrives.
func TestStepAfterCancel(t *testing.T) {
	t.Parallel()
	f := started(t)
	f.srv.Cancel(f.job.Build)
	f.end()
	f.must(f.c.UpdateStep(t.Context(), f.step()))
	f.must(f.c.Upload(t.Context(), f.step().ID, lines(1, "x")))
	f.must(f.inStepVersion())
}

// TestStepLostAndCancelled: the report was applied, its answer lost, and before the next attempt a cancel has moved the
// version again.
func TestStepLostAndCancelled(t *testing.T) {
	t.Parallel()
	f := running(t)
	cfg := config(f.srv, &output{})
	cfg.Timing.Retry, cfg.Timing.RetryMax = time.Second, time.Second
	c := open(t, cfg)
	f.srv.Script(runtimetest.StepRunning, runtimetest.LostReply(), 1)
	f.begin()
	step := *f.step()
	reported := make(chan error, 1)
	go func() { reported <- c.UpdateStep(t.Context(), &step) }()
	f.srv.Wait("the lost report", func() bool { return f.srv.Stage(f.stage.ID).Steps[0].Version == 2 })
	f.srv.Cancel(f.job.Build)
	f.must(<-reported)
	*f.step() = step
	f.must(f.inStepVersion())
}

// TestStepGivenUp: a step whose version is far from ours is given up after one more attempt, and left as it was.
func TestStepGivenUp(t *testing.T) {
	t.Parallel()
	f := started(t)
	f.step().Version -= 5
	before := *f.step()
	f.end()
	if err := f.c.UpdateStep(t.Context(), f.step()); !errors.Is(err, ErrOptimisticLock) {
		t.Errorf("got %v, want ErrOptimisticLock", err)
	}
	if n := len(f.srv.Requests(runtimetest.StepFinal)); n != 2 || f.step().Version != before.Version {
		t.Errorf("%d attempts, version %d, want 2 and %d", n, f.step().Version, before.Version)
	}
}

// TestStepEndsWithoutLiveLog: the server was restarted, so there is no live log to close; the end is reported all the same.
func TestStepEndsWithoutLiveLog(t *testing.T) {
	t.Parallel()
	f := started(t)
	f.srv.Restart()
	f.end()
	f.must(f.c.UpdateStep(t.Context(), f.step()))
	f.must(f.inStepVersion())
	if n := len(f.srv.Requests(runtimetest.StepFinal)); n != 1 {
		t.Errorf("the step was reported %d times", n)
	}
}

// TestLockWithoutReason: the server refuses a report and cannot be asked why.
func TestLockWithoutReason(t *testing.T) {
	t.Parallel()
	f := started(t)
	cfg := config(f.srv, &output{})
	cfg.Timing.Patience = 50 * time.Millisecond
	f.srv.Cancel(f.job.Build)
	f.srv.Script(runtimetest.Detail, runtimetest.Status(500))
	f.finish(drone.StatusPassing)
	err := open(t, cfg).Update(t.Context(), f.stage)
	var lock *LockError
	if !errors.As(err, &lock) || lock.Server != nil || !errors.Is(err, ErrOptimisticLock) || errors.Is(err, ErrCancelled) {
		t.Errorf("got %v, want a LockError without the server's stage", err)
	}
}

// TestGone: what was deleted on the server is not asked for again.
func TestGone(t *testing.T) {
	t.Parallel()
	f := started(t)
	f.stage.BuildID = 999
	f.finish(drone.StatusPassing)
	if err := f.c.Update(t.Context(), f.stage); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
	if err := f.c.Accept(t.Context(), &drone.Stage{ID: 999}); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
	if n := len(f.srv.Requests(runtimetest.StageFinal)); n != 1 {
		t.Errorf("%d requests for a build that is gone", n)
	}
}

// TestDuplicateUpload: the server keeps the first log, and the second upload is done.
func TestDuplicateUpload(t *testing.T) {
	t.Parallel()
	f := started(t)
	f.must(f.c.Upload(t.Context(), f.step().ID, lines(2, "a")))
	f.must(f.c.Upload(t.Context(), f.step().ID, lines(2, "b")))
	if got := runtimetest.Text(f.srv.Logs(f.step().ID).Stored); got != "aa" {
		t.Errorf("the stored log is %q", got)
	}
	for text, want := range map[string]error{
		`pq: duplicate key value violates unique constraint "logs_pkey"`: ErrDuplicate,
		"Error 1062: Duplicate entry '5' for key 'PRIMARY'":              ErrDuplicate,
		"UNIQUE constraint failed: logs.log_id":                          ErrDuplicate,
	} {
		if _, err := serverFault(text); !errors.Is(err, want) {
			t.Errorf("%q is %v, want %v", text, err, want)
		}
	}
}

// inStepVersion checks the first step's version only.
func (f *flight) inStepVersion() error {
	stage := *f.stage
	defer func() { f.stage = &stage }()
	f.stage = &drone.Stage{ID: stage.ID, Version: f.srv.Stage(stage.ID).Version, Steps: stage.Steps[:1]}
	return f.inStep()
}
