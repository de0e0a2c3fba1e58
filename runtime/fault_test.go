package runtime

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// maxRate is how many requests a second a slot may make while something is wrong, on the tests' faster clock.
const maxRate = 2 * scale

// stopLimit is how long a stop may take on a machine that is busy with other tests; on a quiet one it is below a
// second (see BenchmarkStop).
const stopLimit = 15 * time.Second

// goodStage is more than the requests of a stage that runs well.
const goodStage = 30

// faultyCalls are the calls that a stage needs.
func faultyCalls() []runtimetest.Call {
	return slices.DeleteFunc(runtimetest.Calls(), func(c runtimetest.Call) bool {
		return c == runtimetest.Ping || c == runtimetest.Card
	})
}

// rareFaults are those that are tried in a full run only: what a real server does hardly ever, or as another fault does.
var rareFaults = []string{"html", "stall", "truncated reply", "501", "503"}

// eachFault runs f for each call and fault, in a test of its own. The names are those of the calls and faults.
func eachFault(t *testing.T, f func(*testing.T, runtimetest.Call, runtimetest.Fault)) {
	t.Parallel()
	for _, call := range faultyCalls() {
		for _, fault := range runtimetest.Faults() {
			if slices.Contains(rareFaults, fault.Name) && os.Getenv("CC_CI_TEST_FULL") == "" {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", call, fault.Name), func(t *testing.T) {
				t.Parallel()
				f(t, call, fault)
			})
		}
	}
}

// ends counts the final reports that the server has applied. Where its answer was cut, that shows in the version that
// later reports had to have.
func (g *rig) ends(stage int64) (ends int) {
	version := int64(2) // after Accept
	for _, r := range g.srv.Requests(runtimetest.StageRunning, runtimetest.StageFinal) {
		tried := r.Status == http.StatusOK && r.Fault == "" ||
			slices.Contains([]string{"lost reply", "stall", "truncated reply"}, r.Fault)
		if sent := r.Stage(); tried && sent.ID == stage && sent.Version == version {
			version++
			if r.Call == runtimetest.StageFinal {
				ends++
			}
		}
	}
	return ends
}

// A call that fails twice and then works costs time, and nothing else.
func TestPassingFault(t *testing.T) {
	eachFault(t, func(t *testing.T, call runtimetest.Call, fault runtimetest.Fault) {
		g := newRig(t)
		if fault.Name == "hang" || fault.Name == "stall" {
			g.waitAnswers(time.Second)
		}
		g.srv.Script(call, fault, 1, 2)
		g.start()
		job := g.build(testStep{Name: "a", Sh: "echo hello"}, testStep{Name: "b", Sh: "true"})
		stage := g.settled(job.Stage)
		if taken := call == runtimetest.Accept && fault.Name == "409"; taken {
			return // another runner's stage, as far as anybody can tell; it was offered again
		}
		if stage.Status != "success" {
			t.Errorf("the stage is %s: %q", stage.Status, stage.Error)
		}
		if ends := g.ends(job.Stage); ends != 1 {
			t.Errorf("%d final reports", ends)
		}
		// A lost lock is tried once more and then given up: the server has another end of the step than ours.
		given := call == runtimetest.StepFinal && fault.Name == "409"
		for _, name := range []string{"a", "b", "teardown"} {
			if s, ok := g.srv.Step(job.Stage, name); !given && (!ok || s.Status != "success") {
				t.Errorf("step %s is %q", name, s.Status)
			}
		}
		if log := g.stored(job.Stage, "a"); log != "hello\n" {
			t.Errorf("log: %q", log)
		}
		if left := g.host.left(t); len(left) > 0 {
			t.Errorf("left on the host: %v", left)
		}
	})
}

// A call that fails for good neither spins nor holds up a stop, and what could not be said is said after a restart:
// the stage ends in exactly one report.
func TestStandingFault(t *testing.T) {
	eachFault(t, func(t *testing.T, call runtimetest.Call, fault runtimetest.Fault) {
		// A runner that waits for something when it is stopped does so each time; a busy machine does not.
		for range 10 {
			if took := standingFault(t, call, fault); took < time.Second {
				return
			}
		}
		t.Error("the runner never stopped within a second")
	})
}

// standingFault lets a call fail from the first one on, until the runner is stopped, and returns how long the stop took.
func standingFault(t *testing.T, call runtimetest.Call, fault runtimetest.Fault) time.Duration {
	t.Helper()
	g := newRig(t)
	// A stop that waited for an answer, or for its time, would never end.
	g.runner.timing.hold, g.runner.timing.stepsLimit, g.runner.timing.stopHold = time.Hour, time.Hour, time.Hour
	g.waitAnswers(time.Hour)
	g.srv.Script(call, fault)
	g.start()
	job := g.build(testStep{Name: "a", Sh: "echo hello"})
	g.srv.WaitRequests(call, 1)
	begun := time.Now()
	time.Sleep(time.Second)
	if n, took := len(g.srv.Requests()), time.Since(begun).Seconds(); float64(n) > goodStage+maxRate*took {
		t.Errorf("%d requests in %.1f s", n, took)
	}
	stop := g.halt()
	g.srv.Heal()
	g.open(g.state)
	if err := g.runner.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	g.start()
	g.settled(job.Stage)
	if ends := g.ends(job.Stage); ends != 1 {
		t.Errorf("%d final reports", ends)
	}
	if left := g.host.left(t); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
	return stop
}

// Details that cannot be had end the stage with that error, instead of leaving it open for two days (2.3 #8).
func TestDetailsFailForGood(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.srv.Script(runtimetest.Detail, runtimetest.StatusText(500, "the forge is down"))
	g.start()
	stage := g.settled(g.build(testStep{Name: "a", Sh: "true"}).Stage)
	if stage.Status != "error" || !strings.Contains(stage.Error, "the forge is down") {
		t.Errorf("the stage is %s: %q", stage.Status, stage.Error)
	}
}

// Reports of steps that the server does not take make no step fail, skip none, and do not keep the stage from its end
// (2.3 #10).
func TestStepReportsAreRefused(t *testing.T) {
	t.Parallel()
	for _, fault := range []runtimetest.Fault{
		runtimetest.Status(409), runtimetest.StatusText(500, "Optimistic Lock Error"), runtimetest.Status(500),
	} {
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			g.srv.Script(runtimetest.StepRunning, fault)
			g.srv.Script(runtimetest.StepFinal, fault)
			g.runner.timing.stepsLimit = time.Second
			g.start()
			job := g.build(testStep{Name: "a", Sh: "echo a"}, testStep{Name: "b", Sh: "echo b"})
			if stage := g.srv.WaitDone(job.Stage); stage.Status != "success" {
				t.Errorf("the stage is %s: %q", stage.Status, stage.Error)
			}
			if log := g.stored(job.Stage, "b"); log != "b\n" {
				t.Errorf("log of b: %q", log)
			}
		})
	}
}

// A runner that is refused outright asks no more than twice a second and slot (2.3 #6).
func TestRefusedPollsAreSlow(t *testing.T) {
	t.Parallel()
	g := newRig(t, func(c *Config) { c.Capacity = 2 })
	g.srv.Script(runtimetest.RequestStage, runtimetest.Status(401))
	g.start()
	g.srv.WaitRequests(runtimetest.RequestStage, 1)
	begun := time.Now()
	time.Sleep(time.Second)
	if n, most := len(g.srv.Requests()), 2*maxRate*time.Since(begun).Seconds(); float64(n) > most {
		t.Errorf("%d requests in a second of a clock that is %d times faster", n, scale)
	}
	if poll := g.runner.Status().Poll; poll.OK || poll.Err == nil {
		t.Errorf("the status does not say that polling fails: %+v", poll)
	}
}
