package runtime

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/client"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// cancelDelay is how long a cancel may take to be noticed here. With CC_CI_TEST_FULL, on a machine that does nothing
// else, that is the two seconds that are promised; elsewhere it only tells a cancel that is noticed from one that is
// not, because the tests that ask for it switch the regular confirmation off.
func cancelDelay() time.Duration {
	if os.Getenv("CC_CI_TEST_FULL") != "" {
		return 2 * time.Second
	}
	return 30 * time.Second
}

// times is how often a repeated test runs: the whole number with CC_CI_TEST_FULL, else a tenth of it.
func times(n int) int {
	if os.Getenv("CC_CI_TEST_FULL") != "" {
		return n
	}
	return n / 10
}

// checkCancelled tells whether a cancelled build ended as it has to: killed on the server, nothing but `killed` said
// after it, its teardown shown, nothing left.
func (g *rig) checkCancelled(t *testing.T, job runtimetest.Enqueued, cancelled time.Time) {
	t.Helper()
	eventually(t, "the journal is empty", func() bool { return len(g.journalled()) == 0 })
	stage, build := g.srv.Stage(job.Stage), g.srv.Build(job.Build)
	if build.Status != "killed" || stage.Status != "killed" && stage.Status != "skipped" {
		t.Errorf("the build is %s, its stage %s (%q)", build.Status, stage.Status, stage.Error)
	}
	for _, r := range g.srv.Requests(runtimetest.StageFinal) {
		if r.Stage().ID == job.Stage && r.Time.After(cancelled) && r.Status == 200 && r.Stage().Status != "killed" {
			t.Errorf("after the cancel the server was told %s", r.Stage().Status)
		}
	}
	// A cancel may cut the answer that tells the steps' ids. Then nothing has been done on the host, or can be shown.
	_, touched := g.host.setups.Load(engine.BuildName(g.host.address, job.Stage))
	for _, s := range stage.Steps {
		if s.Name == "teardown" && s.Status != "success" && (touched || s.Status != "skipped") {
			t.Errorf("the teardown is %s", s.Status)
		}
	}
	if left := g.host.left(t); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
}

// checkNoticed tells whether the step that ran at the cancel, if one did, was cut in time.
func (g *rig) checkNoticed(t *testing.T, cancelled time.Time) {
	t.Helper()
	for {
		select {
		case at := <-g.host.cut:
			if took := at.Sub(cancelled); took > cancelDelay() {
				t.Errorf("the cancel was noticed after %s", took)
			}
		default:
			return
		}
	}
}

// A build that is cancelled at any moment ends as killed, within two seconds, and the slot is free for the next.
func TestCancelAtAnyMoment(t *testing.T) {
	t.Parallel()
	for i := range times(100) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			g := newRig(t)
			g.host.cut = make(chan time.Time, 10)
			g.runner.timing.beat = time.Hour
			g.start()
			job := g.build(
				testStep{Name: "quick", Sh: "true"},
				testStep{Name: "stubborn", Sh: `trap "" TERM; sleep 1000 & wait; sleep 1000`},
				testStep{Name: "never", Sh: "true", Run: engine.RunAlways},
			)
			g.srv.WaitRequests(runtimetest.Accept, 1)
			time.Sleep(time.Duration(rnd.Int64N(int64(700 * time.Millisecond))))
			g.srv.Cancel(job.Build)
			cancelled := time.Now()
			eventually(t, "the slot asks again", func() bool {
				past := g.srv.Requests()
				return slices.ContainsFunc(past, func(r runtimetest.Request) bool {
					return r.Call == runtimetest.RequestStage && r.Time.After(cancelled)
				})
			})
			g.checkNoticed(t, cancelled)
			g.checkCancelled(t, job, cancelled)
			g.settled(g.build(testStep{Name: "after", Sh: "true"}).Stage)
		})
	}
}

// After a cancel the teardown is shown in full: running, its log, its end.
func TestCancelShowsTeardown(t *testing.T) {
	t.Parallel()
	g := newRig(t).start()
	job := g.build(testStep{Name: "slow", Sh: "sleep 1000"}, testStep{Name: "never", Sh: "true"})
	g.srv.WaitStage(job.Stage, func(s drone.Stage) bool { return len(s.Steps) > 0 && s.Steps[0].Status == "running" })
	cancelled := time.Now()
	g.srv.Cancel(job.Build)
	g.checkCancelled(t, job, cancelled)
	expect(t, g.srv.Stage(job.Stage), "killed", "slow killed, never skipped, teardown success")
	if log := g.stored(job.Stage, "teardown"); !strings.Contains(log, "nothing is left") {
		t.Errorf("log of the teardown: %q", log)
	}
}

// A cancel that ended only the build, and was told to no watch, is found all the same.
func TestCancelOfTheBuildAlone(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.runner.timing.beat = time.Hour
	g.start()
	g.srv.LoseCancel()
	job := g.build(testStep{Name: "slow", Sh: "sleep 1000"})
	g.srv.WaitStage(job.Stage, func(s drone.Stage) bool { return len(s.Steps) > 0 && s.Steps[0].Status == "running" })
	g.srv.Cancel(job.Build)
	g.settled(job.Stage)
	if stage, build := g.srv.Stage(job.Stage), g.srv.Build(job.Build); stage.Status != "killed" || build.Status != "killed" {
		t.Errorf("the stage is %s, the build %s", stage.Status, build.Status)
	}
}

// A cancel while the connection is down is found when it is back, although no new watch will ever tell.
func TestCancelWhileBothWatchesAreCut(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.host.cut = make(chan time.Time, 1)
	g.runner.timing.beat = time.Hour
	g.start()
	job := g.build(testStep{Name: "slow", Sh: "sleep 1000"})
	g.srv.WaitStage(job.Stage, func(s drone.Stage) bool { return len(s.Steps) > 0 && s.Steps[0].Status == "running" })
	g.srv.WaitRequests(runtimetest.Watch, 2)
	g.srv.Down()
	time.Sleep(time.Second)
	g.srv.Cancel(job.Build)
	time.Sleep(time.Second)
	back := time.Now()
	g.srv.Heal()
	if took := (<-g.host.cut).Sub(back); took > cancelDelay() {
		t.Errorf("the cancel was noticed %s after the server was back", took)
	}
	g.checkCancelled(t, job, back)
}

// A restart of the server makes it forget its watches: the confirmation that follows finds the cancel (2.3 #3, #5).
func TestCancelAfterServerRestart(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.runner.timing.beat = time.Hour
	g.start()
	job := g.build(testStep{Name: "slow", Sh: "sleep 1000"})
	g.srv.WaitStage(job.Stage, func(s drone.Stage) bool { return len(s.Steps) > 0 && s.Steps[0].Status == "running" })
	g.srv.Restart()
	g.srv.Cancel(job.Build)
	cancelled := time.Now()
	g.srv.WaitRequests(runtimetest.StageFinal, 1)
	g.checkCancelled(t, job, cancelled)
}

// One watch that the server refuses or fails is not the end of watching (2.3 #5).
func TestCancelAfterAFaultyWatch(t *testing.T) {
	t.Parallel()
	for _, code := range []int{500, 401} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			g.host.cut = make(chan time.Time, 1)
			g.runner.timing.beat = time.Hour
			g.srv.Script(runtimetest.Watch, runtimetest.Status(code), 1, 2)
			g.start()
			job := g.build(testStep{Name: "slow", Sh: "sleep 1000"})
			g.running(job.Stage, 1)
			g.srv.WaitRequests(runtimetest.Watch, 4)
			cancelled := time.Now()
			g.srv.Cancel(job.Build)
			if took := (<-g.host.cut).Sub(cancelled); took > cancelDelay() {
				t.Errorf("the cancel was noticed after %s", took)
			}
			g.checkCancelled(t, job, cancelled)
		})
	}
}

// A cancel that comes before the first watch has reached a busy server is found soon.
func TestCancelBeforeTheWatchIsOpen(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	timing := fastClient()
	timing.Poll = time.Hour
	api, err := client.New(client.Config{
		Proto: g.srv.Proto, Host: g.srv.Host, Secret: g.srv.Secret, Timing: timing, Log: g.entry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	g.client, g.runner.cfg.Server = api, api
	g.srv.Script(runtimetest.Watch, runtimetest.Hang())
	g.runner.timing.beat, g.runner.timing.backoff = time.Hour, 2*time.Second
	g.start()
	job := g.build(testStep{Name: "slow", Sh: "sleep 1000"})
	g.srv.WaitStage(job.Stage, func(s drone.Stage) bool { return len(s.Steps) > 0 && s.Steps[0].Status == "running" })
	cancelled := time.Now()
	g.srv.Cancel(job.Build)
	g.srv.WaitRequests(runtimetest.StageFinal, 1)
	// The build's own time, which would end it too, is 30 s.
	if took := time.Since(cancelled); took > 20*time.Second {
		t.Errorf("the cancel was found after %s", took)
	}
	g.checkCancelled(t, job, cancelled)
}

// The regular confirmation alone finds a cancel that both watches missed.
func TestCancelThatNoWatchTells(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.srv.Script(runtimetest.Watch, runtimetest.Hang())
	g.start()
	job := g.build(testStep{Name: "slow", Sh: "sleep 1000"})
	g.srv.WaitStage(job.Stage, func(s drone.Stage) bool { return len(s.Steps) > 0 && s.Steps[0].Status == "running" })
	cancelled := time.Now()
	g.srv.Cancel(job.Build)
	g.srv.WaitRequests(runtimetest.StageFinal, 1)
	g.checkCancelled(t, job, cancelled)
}

// A build that was deleted on the server is nobody's to cancel any more: it ends, and is not asked for again and again.
func TestBuildIsDeleted(t *testing.T) {
	t.Parallel()
	g := newRig(t).start()
	job := g.build(testStep{Name: "slow", Sh: "sleep 1000"})
	g.running(job.Stage, 1)
	g.srv.Delete(job.Build)
	eventually(t, "the stage is forgotten", func() bool { return len(g.journalled()) == 0 })
	if left := g.host.left(t); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
	g.settled(g.build(testStep{Name: "after", Sh: "true"}).Stage)
}

// A cancel between the end of the last step and the final report does not turn the build green.
func TestCancelDuringTeardown(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	var job runtimetest.Enqueued
	made := make(chan struct{})
	g.host.onDestroy = func(string) { <-made; g.srv.Cancel(job.Build) }
	g.start()
	job = g.build(testStep{Name: "a", Sh: "true"})
	cancelled := time.Now()
	close(made)
	g.srv.WaitDone(job.Stage)
	g.checkCancelled(t, job, cancelled)
}

// Time running out is not a cancel (2.3 #30), at whatever moment it does: the server is told an error, and why.
func TestTimeoutAtAnyMoment(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{time.Nanosecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 400 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			g.runner.timing.minute = after
			g.start()
			job := g.srv.Enqueue(runtimetest.Job{
				Repo: drone.Repo{Timeout: 1}, Config: pipeline(t, testStep{Name: "slow", Sh: "sleep 1000"}),
			})
			if stage := g.settled(job.Stage); stage.Status != "error" || !strings.HasPrefix(stage.Error, "timeout: ") {
				t.Errorf("the stage is %s: %q", stage.Status, stage.Error)
			}
		})
	}
}
