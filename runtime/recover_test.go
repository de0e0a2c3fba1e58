package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// crashed is a rig whose runner ended without a word while step `b` of a stage ran: the host holds its parts and the
// journal its entry, as a kill leaves them.
func crashed(t *testing.T) (*rig, runtimetest.Enqueued) {
	t.Helper()
	g := newRig(t).start()
	job := g.build(testStep{Name: "a", Sh: "echo first"}, testStep{Name: "b", Sh: "echo second; sleep 1000"}, testStep{Name: "c", Sh: "true"})
	g.running(job.Stage, 2)
	eventually(t, "the step's output is on disk", func() bool {
		step, ok := g.srv.Step(job.Stage, "b")
		return ok && strings.Contains(runtimetest.Text(g.srv.Logs(step.ID).Live), "second")
	})
	eventually(t, "step a is reported", func() bool { return g.srv.Stage(job.Stage).Steps[0].Status == "success" })
	var copied string
	eventually(t, "the state directory can be copied", func() bool {
		copied = t.TempDir()
		err := os.CopyFS(copied, os.DirFS(g.state))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a file that is being replaced goes away meanwhile
			t.Fatal(err)
		}
		return err == nil
	})
	g.srv.Down() // the end of the process that cannot be killed here is not heard
	g.halt()
	g.srv.Heal()
	g.state = copied
	return g, job
}

// recovered opens the rig's state anew and recovers.
func (g *rig) recovered(options ...func(*timing)) *rig {
	g.t.Helper()
	g.open(g.state)
	for _, option := range options {
		option(g.runner.timing)
	}
	if err := g.runner.Recover(g.t.Context()); err != nil {
		g.t.Errorf("recover: %v", err)
	}
	return g
}

// What a crash left is reported before the runner polls: what ran has an error, what had ended keeps its end, what was
// spooled is stored.
func TestRecover(t *testing.T) {
	t.Parallel()
	g, job := crashed(t)
	g.recovered()
	stage := g.srv.Stage(job.Stage)
	expect(t, stage, "error", "a success, b error, c skipped, teardown success")
	if stage.Error != restartedText || stage.Steps[1].Error != restartedText {
		t.Errorf("errors: %q, %q", stage.Error, stage.Steps[1].Error)
	}
	if log := g.stored(job.Stage, "b"); !strings.Contains(log, "second\n") {
		t.Errorf("log of b: %q", log)
	}
	if log := g.stored(job.Stage, "teardown"); !strings.Contains(log, restartedText) {
		t.Errorf("log of the teardown: %q", log)
	}
	if n := len(g.journalled()); n > 0 {
		t.Errorf("%d entries are left", n)
	}
	g.start()
	g.settled(g.build(testStep{Name: "a", Sh: "true"}).Stage)
}

// While the server is away, what has to be reported is kept, and polling goes on.
func TestRecoverWhileServerIsAway(t *testing.T) {
	t.Parallel()
	g, job := crashed(t)
	g.srv.Script(runtimetest.StageFinal, runtimetest.Reset())
	g.recovered(func(t *timing) { t.recover = 500 * time.Millisecond }).start()
	if n := g.runner.Status().Undelivered; n != 1 {
		t.Errorf("%d stages are undelivered", n)
	}
	g.srv.WaitRequests(runtimetest.RequestStage, len(g.srv.Requests(runtimetest.RequestStage))+1)
	g.srv.Heal()
	expect(t, g.settled(job.Stage), "error", "a success, b error, c skipped, teardown success")
}

// A recovery that is cut short tells nobody anything of what it has not torn down, and the next one finds it all.
func TestRecoveryIsCutShort(t *testing.T) {
	t.Parallel()
	g, job := crashed(t)
	g.open(g.state)
	cut, stop := context.WithCancel(t.Context())
	stop()
	if err := g.runner.Recover(cut); err == nil {
		t.Error("a recovery that was cut short says that all is well")
	}
	g.start()
	g.runner.Drain() // as the daemon does
	g.wait()
	if n := len(g.journalled()); n != 1 {
		t.Fatalf("%d entries are left", n)
	}
	if stage := g.srv.Stage(job.Stage); stage.Status != "running" {
		t.Errorf("the stage is %s", stage.Status)
	}
	g.recovered()
	expect(t, g.srv.Stage(job.Stage), "error", "a success, b error, c skipped, teardown success")
}

// A build that was cancelled while the runner was away stays killed.
func TestRecoverCancelled(t *testing.T) {
	t.Parallel()
	g, job := crashed(t)
	g.srv.Cancel(job.Build)
	g.recovered()
	if stage, build := g.srv.Stage(job.Stage), g.srv.Build(job.Build); stage.Status != "killed" || build.Status != "killed" {
		t.Errorf("the stage is %s, the build %s", stage.Status, build.Status)
	}
	if n := len(g.journalled()); n > 0 {
		t.Errorf("%d entries are left", n)
	}
}

// Journal files that a full or failing disk left are set aside and named; their stages end all the same.
func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func([]byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"torn":      func(b []byte) []byte { return b[:len(b)/2] },
		"zeros":     func(b []byte) []byte { return make([]byte, len(b)) },
		"foreign":   func([]byte) []byte { return []byte(`{"stage":{"id":1},"build":"x","phase":"running"}`) },
		"null step": func(b []byte) []byte { return []byte(strings.Replace(string(b), `"steps":[`, `"steps":[null,`, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, job := crashed(t)
			path := filepath.Join(g.state, "stages", fmt.Sprint(job.Stage, ".json"))
			data := lastLine(t, path)
			if err := errors.Join(os.WriteFile(path, damage(data), 0o600), os.WriteFile(path+".tmp", data[:3], 0o600)); err != nil {
				t.Fatal(err)
			}
			g.recovered().start()
			if stage := g.settled(job.Stage); stage.Status != "error" || stage.Error != restartedText {
				t.Errorf("the stage is %s: %q", stage.Status, stage.Error)
			}
			if !strings.Contains(g.log.String(), filepath.Join(g.state, "damaged", filepath.Base(path))) {
				t.Error("the damaged file is not named")
			}
			if left := g.host.left(t); len(left) > 0 {
				t.Errorf("left on the host: %v", left)
			}
		})
	}
}

// What is left on the host of a stage whose journal file was damaged is said in the stage's error, also by a process that
// tells the server later.
func TestLeakOfADamagedJournal(t *testing.T) {
	t.Parallel()
	g, job := crashed(t)
	if err := os.WriteFile(filepath.Join(g.state, "stages", fmt.Sprint(job.Stage, ".json")), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	leaky := func(c *Config) { c.Engine = stuckTeardown{c.Engine.(*host)} }
	g.srv.Down()
	g.open(g.state, leaky)
	g.runner.timing.recover = 500 * time.Millisecond
	if err := errors.Join(g.runner.Recover(t.Context()), g.runner.Close()); err == nil {
		t.Error("the leak is no error")
	}
	g.srv.Heal()
	g.open(g.state, leaky)
	if err := g.runner.Recover(t.Context()); err == nil {
		t.Error("the leak is no error")
	}
	if stage := g.srv.Stage(job.Stage); stage.Status != "error" || !strings.Contains(stage.Error, restartedText+"; ") || !strings.Contains(stage.Error, "network web") {
		t.Errorf("the stage is %s: %q", stage.Status, stage.Error)
	}
}

// A stage whose journal file was damaged is remembered until the server has been told, also by a process that ends before
// that; so are its logs.
func TestDamagedJournalWhileServerIsAway(t *testing.T) {
	t.Parallel()
	g, job := crashed(t)
	if err := os.WriteFile(filepath.Join(g.state, "stages", fmt.Sprint(job.Stage, ".json")), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g.srv.Down()
	g.recovered(func(t *timing) { t.recover = 500 * time.Millisecond })
	if err := g.runner.Close(); err != nil {
		t.Fatal(err)
	}
	g.srv.Heal()
	g.recovered()
	if stage := g.srv.Stage(job.Stage); stage.Status != "error" || stage.Error != restartedText {
		t.Errorf("the stage is %s: %q", stage.Status, stage.Error)
	}
	if log := g.stored(job.Stage, "b"); !strings.Contains(log, "second\n") {
		t.Errorf("log of b: %q", log)
	}
	if n := len(g.journalled()); n > 0 {
		t.Errorf("%d entries are left", n)
	}
}

// A last line that was cut while it was written does not count; the one before it does, and the next is not written
// behind the rest of it.
func TestTornLine(t *testing.T) {
	t.Parallel()
	g, job := crashed(t)
	path := filepath.Join(g.state, "stages", fmt.Sprint(job.Stage, ".json"))
	last := lastLine(t, path)
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = file.Write(append(last[:len(last)/2:len(last)/2], 0, 0, 0))
	}
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	g.recovered()
	if e, err := readEntry(path, job.Stage); err == nil && e.Phase != phaseEnded {
		t.Errorf("the entry stands at %s", e.Phase)
	}
	g.start()
	if stage := g.settled(job.Stage); stage.Status != "error" || stage.Error != restartedText {
		t.Errorf("the stage is %s: %q", stage.Status, stage.Error)
	}
	if strings.Contains(g.log.String(), "damaged") {
		t.Errorf("the file was taken for damaged: %s", g.log)
	}
}

// lastLine is the newest state of a journal file.
func lastLine(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return lines[len(lines)-1]
}

// journal writes an entry as the start of a stage does.
func (g *rig) journal(e *entry) error {
	return (&record{journal: g.runner.journal, entry: e}).change(func(*entry) {})
}

// A process that was killed may leave a registration behind that the server still works on. If that meets the report of
// the stage's end, the server forgets to end the build; it is told again.
func TestBuildEndsBesideALateRegistration(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	job := g.build(testStep{Name: "a", Sh: "true"})
	g.srv.Bump(job.Stage, func(s *drone.Stage) { s.Machine = "tester" })
	stage := g.srv.Stage(job.Stage)
	err := g.journal(&entry{Phase: phaseAccepted, Build: engine.BuildName(g.host.address, stage.ID), Stage: &stage, Since: time.Now().Unix()})
	if err != nil {
		t.Fatal(err)
	}
	g.srv.LoseBuildEnd()
	if err := g.runner.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	if build := g.srv.Build(job.Build); build.Status != "error" || build.Stages[0].Status != "error" {
		t.Errorf("the build is %s, its stage %s", build.Status, build.Stages[0].Status)
	}
	if n := len(g.journalled()); n > 0 {
		t.Errorf("%d entries are left", n)
	}
}

// So may a stop that cuts the registration.
func TestBuildEndsBesideARegistrationThatWasCut(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.srv.Script(runtimetest.StageRunning, runtimetest.Hang())
	g.start()
	job := g.build(testStep{Name: "a", Sh: "true"})
	g.srv.WaitRequests(runtimetest.StageRunning, 1)
	g.srv.LoseBuildEnd()
	g.halt()
	g.srv.Heal()
	g.recovered() // says what the stop had no time for
	if build := g.srv.Build(job.Build); build.Status != "error" || build.Stages[0].Status != "error" {
		t.Errorf("the build is %s, its stage %s", build.Status, build.Stages[0].Status)
	}
}

// intend writes the journal of a process that was about to accept the stage when it ended.
func (g *rig) intend(stage int64) {
	g.t.Helper()
	offer := g.srv.Stage(stage)
	offer.Machine = "tester"
	err := g.journal(&entry{
		Phase: phaseIntent, Build: engine.BuildName(g.host.address, offer.ID), Offered: offer.Version, Stage: &offer, Since: time.Now().Unix(),
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

// Whether a stage was accepted when the process ended between the intent and the answer, only the server knows.
func TestRecoverIntent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*drone.Stage) // of the stage on the server
		status string
	}{
		{"never accepted", nil, "success"},
		{"accepted", func(s *drone.Stage) { s.Machine = "tester" }, "error"},
		{"another runner's", func(s *drone.Stage) { s.Machine = "other" }, "pending"},
		{"a namesake's", func(s *drone.Stage) { s.Machine, s.Status = "tester", "running" }, "running"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			job := g.build(testStep{Name: "a", Sh: "true"})
			g.intend(job.Stage)
			if c.change != nil {
				g.srv.Bump(job.Stage, c.change)
			}
			if err := g.runner.Recover(t.Context()); err != nil {
				t.Error(err)
			}
			if n := len(g.journalled()); n > 0 {
				t.Errorf("%d entries are left", n)
			}
			g.start()
			g.srv.WaitStage(job.Stage, func(s drone.Stage) bool { return s.Status == c.status })
		})
	}
}

// The call of a process that was killed may come to the server after the next one has asked whose the stage is.
func TestRecoverLateAccept(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	job := g.build(testStep{Name: "a", Sh: "true"})
	g.intend(job.Stage)
	if err := g.runner.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	// The stage is offered as nobody's, and becomes the dead process's before it is accepted anew.
	g.srv.Script(runtimetest.Accept, runtimetest.Slow(time.Second), 1)
	g.start()
	g.srv.WaitRequests(runtimetest.Accept, 1)
	g.srv.Bump(job.Stage, func(s *drone.Stage) { s.Machine = "tester" })
	stage := g.settled(job.Stage)
	if stage.Status != "error" || stage.Error != restartedText {
		t.Errorf("the stage is %s (%q)", stage.Status, stage.Error)
	}
}

// A stage of which nobody knows yet whether it was accepted is taken by no slot until the server has told.
func TestUnclearStageIsNotTaken(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	job := g.build(testStep{Name: "a", Sh: "true"})
	g.intend(job.Stage)
	g.srv.Script(runtimetest.Detail, runtimetest.Status(500))
	g.runner.timing.recover = 500 * time.Millisecond
	if err := g.runner.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	g.start()
	g.srv.WaitRequests(runtimetest.RequestStage, 3)
	if n := len(g.srv.Requests(runtimetest.Accept)); n > 0 {
		t.Error("the stage was accepted")
	}
	g.srv.Heal()
	expect(t, g.settled(job.Stage), "success", "a success, teardown success")
}

// A step's environment and the journal hold no secret, and nothing of a stage stays in the state directory.
func TestStateDirectoryIsEmptyAfterwards(t *testing.T) {
	t.Parallel()
	g := newRig(t).start()
	g.settled(g.build(testStep{Name: "a", Sh: "echo $TOKEN", Secrets: map[string]string{"TOKEN": "canary-of-mine"}}).Stage)
	g.halt()
	err := filepath.WalkDir(g.state, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "lock" {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
