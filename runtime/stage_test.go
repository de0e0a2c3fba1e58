package runtime

import (
	"context"
	"encoding/json"
	"errors"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

func goarch() string { return goruntime.GOARCH }

func TestGreenStage(t *testing.T) {
	t.Parallel()
	g := newRig(t).start()
	job := g.build(
		testStep{Name: "one", Sh: "echo hello from $DRONE_STEP_NAME $DRONE_STEP_NUMBER"},
		testStep{Name: "two", Sh: "echo $DRONE_BUILD_STATUS $DRONE_STAGE_MACHINE"},
	)
	stage := g.settled(job.Stage)
	expect(t, stage, "success", "one success, two success, teardown success")
	if log := g.stored(job.Stage, "one"); log != "hello from one 1\n" {
		t.Errorf("log of one: %q", log)
	}
	if log := g.stored(job.Stage, "two"); log != "success tester\n" {
		t.Errorf("log of two: %q", log)
	}
	if log := g.stored(job.Stage, "teardown"); !strings.Contains(log, "removed: directory ") {
		t.Errorf("log of teardown: %q", log)
	}
	if left := g.host.left(t); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
	if b := g.srv.Build(job.Build); b.Status != "success" {
		t.Errorf("the build is %s", b.Status)
	}
	if ends := g.ends(job.Stage); ends != 1 {
		t.Errorf("%d final reports", ends)
	}
	if end := g.srv.Requests(runtimetest.StageFinal)[0].Stage(); len(end.Steps) > 0 {
		t.Errorf("the final report has %d steps", len(end.Steps))
	}
}

// Nothing is reported final before the teardown is done.
func TestFinalAfterTeardown(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.host.onDestroy = func(string) {
		if n := len(g.srv.Requests(runtimetest.StageFinal)); n > 0 {
			t.Error("the stage was reported final before its teardown")
		}
	}
	g.start()
	g.settled(g.build(testStep{Name: "one", Sh: "true"}).Stage)
}

// How steps end, and what that makes of those after them and of the stage.
func TestSteps(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		steps  []testStep
		status string
		want   string
	}{
		{"failure", []testStep{{Name: "a", Sh: "exit 3"}, {Name: "b", Sh: "true"}},
			"failure", "a failure, b skipped, teardown success"},
		{"ignored failure", []testStep{{Name: "a", Sh: "exit 3", Ignore: true}, {Name: "b", Sh: `test "$DRONE_STAGE_STATUS" = success`}},
			"success", "a failure, b success, teardown success"},
		{"skip the rest", []testStep{{Name: "a", Sh: "exit 78"}, {Name: "b", Sh: "true"}, {Name: "c", Sh: "true", Run: engine.RunAlways}},
			"success", "a success, b skipped, c skipped, teardown success"},
		{"on failure", []testStep{{Name: "a", Sh: "exit 1"}, {Name: "b", Sh: `test "$DRONE_FAILED_STEPS" = a`, Run: engine.RunOnFailure},
			{Name: "c", Sh: "true", Run: engine.RunAlways}},
			"failure", "a failure, b success, c success, teardown success"},
		{"on failure without one", []testStep{{Name: "a", Sh: "true"}, {Name: "b", Sh: "true", Run: engine.RunOnFailure}},
			"success", "a success, b skipped, teardown success"},
		{"graph", []testStep{{Name: "a", Sh: "touch a"}, {Name: "b", Sh: "touch b", DependsOn: []string{}},
			{Name: "c", Sh: "ls a b", DependsOn: []string{"a", "b"}}},
			"success", "a success, b success, c success, teardown success"},
		{"killed by itself", []testStep{{Name: "a", Sh: "kill -9 $$"}}, "failure", "a failure, teardown success"},
		{"ignored start error", []testStep{{Name: "a", Ignore: true, Env: map[string]string{"FAULT": "error"}}, {Name: "b", Sh: "true"}},
			"success", "a failure, b success, teardown success"}, // 2.3 #32
		{"start error", []testStep{{Name: "a", Env: map[string]string{"FAULT": "error"}}, {Name: "b", Sh: "true"}},
			"error", "a error, b skipped, teardown success"},
		{"a background child holds the output", []testStep{{Name: "a", Sh: "sleep 1000 &"}, {Name: "b", Sh: "true"}},
			"success", "a success, b success, teardown success"},
		{"no steps", nil, "success", "teardown success"},
		{"a step named teardown", []testStep{{Name: "teardown", Sh: "true"}}, "success", "teardown success, teardown (host) success"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t).start()
			expect(t, g.settled(g.build(c.steps...).Stage), c.status, c.want)
		})
	}
}

// A detached step lives until the stage ends; the steps after it start at once; how it ends is reported (2.3 #14).
func TestDetach(t *testing.T) {
	t.Parallel()
	g := newRig(t, func(c *Config) { c.MaxProcs = 1 }).start()
	job := g.build(
		testStep{Name: "server", Sh: "touch up; exec sleep 1000", Detach: true},
		testStep{Name: "client", Sh: "until test -e up; do sleep 0.01; done"},
	)
	stage := g.settled(job.Stage)
	expect(t, stage, "success", "server success, client success, teardown success")
	if code := stage.Steps[0].ExitCode; code != 143 {
		t.Errorf("exit code of the detached step: %d", code)
	}

	job = g.build(testStep{Name: "server", Sh: "touch gone; exit 7", Detach: true},
		testStep{Name: "client", Sh: "until test -e gone; do sleep 0.01; done; sleep 1"})
	stage = g.settled(job.Stage)
	if s := stage.Steps[0]; s.Status != "failure" || s.ExitCode != 7 || stage.Status != "failure" {
		t.Errorf("a detached step that failed is %s (%d), its stage %s", s.Status, s.ExitCode, stage.Status)
	}
}

// What cannot be prepared, a dependency that does not exist for one (3.1), is reported with its text.
func TestPrepareError(t *testing.T) {
	t.Parallel()
	g := newRig(t).start()
	job := g.srv.Enqueue(runtimetest.Job{Config: "{"})
	stage := g.settled(job.Stage)
	if stage.Status != "error" || !strings.HasPrefix(stage.Error, ".drone.yml:1:1: ") {
		t.Errorf("the stage is %s: %q", stage.Status, stage.Error)
	}
	job = g.build(testStep{Name: "a", DependsOn: []string{"nothing"}})
	if stage = g.settled(job.Stage); stage.Status != "error" || !strings.Contains(stage.Error, `"nothing"`) {
		t.Errorf("the stage is %s: %q", stage.Status, stage.Error)
	}
}

func TestDeniedStage(t *testing.T) {
	t.Parallel()
	g := newRig(t, func(c *Config) { c.Limits.Repos = []string{"octocat/h*"} }).start()
	g.settled(g.build(testStep{Name: "a", Sh: "true"}).Stage)
	job := g.srv.Enqueue(runtimetest.Job{Config: "[]", Repo: drone.Repo{Slug: "mallory/hello"}})
	stage := g.settled(job.Stage)
	if stage.Status != "error" || stage.Error != "insufficient permission to run the pipeline" {
		t.Errorf("the stage is %s: %q", stage.Status, stage.Error)
	}
}

// A setup that fails is the stage's error, and is torn down like any other.
func TestSetupError(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.host.onSetup = func(*engine.Spec) error { return errors.New("no space left") }
	g.start()
	stage := g.settled(g.build(testStep{Name: "a", Sh: "true"}).Stage)
	expect(t, stage, "error", "a skipped, teardown success")
	if stage.Error != "set the build up: no space left" {
		t.Errorf("error: %q", stage.Error)
	}
}

// A step that is out of time ends with the reason; what runs on failure still does.
func TestTimeout(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.runner.timing.minute = 3 * time.Second
	g.start()
	job := g.srv.Enqueue(runtimetest.Job{
		Repo: drone.Repo{Timeout: 1},
		Config: pipeline(t, testStep{Name: "slow", Sh: "sleep 1000"}, testStep{Name: "next", Sh: "true"},
			testStep{Name: "cleanup", Sh: "echo cleaning", Run: engine.RunOnFailure}),
	})
	stage := g.settled(job.Stage)
	expect(t, stage, "error", "slow error, next skipped, cleanup success, teardown success")
	if !strings.HasPrefix(stage.Error, "timeout: the stage ran longer than") || stage.Steps[0].Error != stage.Error {
		t.Errorf("errors: %q, %q", stage.Error, stage.Steps[0].Error)
	}
}

// No secret reaches the server or the disk, and one that cannot be masked, or not in every form, is named once.
func TestSecretsAreMasked(t *testing.T) {
	t.Parallel()
	g := newRig(t).start()
	job := g.build(testStep{Name: "a", Sh: `printf 'can'; sleep 0.1; echo 'ary-of-mine'; echo $TOKEN`,
		Secrets: map[string]string{"TOKEN": "canary-of-mine", "PIN": "7", "BUNDLE": strings.Repeat("0123456789", 10_000)}})
	g.settled(job.Stage)
	log := g.stored(job.Stage, "a")
	if strings.Contains(log, "canary") || !strings.Contains(log, "******") || strings.Contains(log, "secret TOKEN") {
		t.Errorf("log: %q", log)
	}
	for _, want := range []string{"secret PIN is too short", "secret BUNDLE is so long"} {
		if strings.Count(log, want) != 1 {
			t.Errorf("no %q in the log: %q", want, log)
		}
	}
	for _, r := range g.srv.Requests() {
		if r.Call != runtimetest.RequestStage && strings.Contains(string(r.Body), "canary-of-mine") {
			t.Errorf("%s holds the secret", r.Path)
		}
	}
	if strings.Contains(g.log.String(), "canary-of-mine") {
		t.Error("the runner's log holds the secret")
	}
}

// A teardown that leaves something behind fails the stage, and both say what is left.
func TestLeak(t *testing.T) {
	t.Parallel()
	g := newRig(t, func(c *Config) {
		c.Leaks = func(*engine.Report, error) (string, error) { return "a hint", errors.New("left behind: process 4711") }
	}).start()
	stage := g.settled(g.build(testStep{Name: "a", Sh: "true"}).Stage)
	expect(t, stage, "failure", "a success, teardown failure")
	if log := g.stored(stage.ID, "teardown"); !strings.Contains(log, "warning: a hint") {
		t.Errorf("log of the teardown: %q", log)
	}
	if stage.Error != "left behind: process 4711" || stage.Steps[1].Error != stage.Error {
		t.Errorf("errors: %q, %q", stage.Error, stage.Steps[1].Error)
	}
}

// stuckTeardown is a host on which a teardown can neither remove something nor say why but by its error.
type stuckTeardown struct{ *host }

func (s stuckTeardown) Destroy(ctx context.Context, build string) (*engine.Report, error) {
	report, err := s.host.Destroy(ctx, build)
	leak := &engine.LeakError{Build: build, Items: []leftover.Item{{Kind: "network", Name: "web"}}}
	return report, errors.Join(err, errors.New(reason), leak)
}

// reason is why stuckTeardown cannot remove something.
const reason = "remove network web: it has active endpoints"

// stuck puts a stuckTeardown where leaks are allowed.
func stuck(c *Config) {
	c.Engine = stuckTeardown{c.Engine.(*host)}
	c.Leaks = func(*engine.Report, error) (string, error) { return "what is left does not fail the stage", nil }
}

// Where what is left is allowed to be, it is still said why it could not be removed.
func TestReasonOfAllowedLeak(t *testing.T) {
	t.Parallel()
	g := newRig(t, stuck).start()
	stage := g.settled(g.build(testStep{Name: "a", Sh: "true"}).Stage)
	expect(t, stage, "success", "a success, teardown success")
	if log := g.stored(stage.ID, "teardown"); !strings.Contains(log, "error: "+reason+"\n") {
		t.Errorf("log of the teardown: %q", log)
	}
	if !strings.Contains(g.log.String(), reason) {
		t.Error("the runner's log does not say it")
	}
}

// So it is where a restart tears down what a crash left.
func TestReasonOfAllowedLeakAfterCrash(t *testing.T) {
	t.Parallel()
	g, job := crashed(t)
	err := g.open(g.state, stuck).runner.Recover(t.Context())
	if err == nil || !strings.Contains(err.Error(), reason) || strings.Contains(err.Error(), "left behind") {
		t.Errorf("recover: %v", err)
	}
	expect(t, g.srv.Stage(job.Stage), "error", "a success, b error, c skipped, teardown success")
}

// The compiled environment is what a step gets, with what is only known at its start laid over it.
func TestStepEnvironment(t *testing.T) {
	t.Parallel()
	g := newRig(t).start()
	job := g.srv.Enqueue(runtimetest.Job{
		Build: drone.Build{Ref: "refs/tags/v1.2.3"},
		Config: pipeline(t, testStep{Name: "a", Sh: "exit 1", Ignore: true}, testStep{Name: "b", Sh: "env | sort; exit 1"},
			testStep{Name: "c", Sh: `echo "$DRONE_STAGE_STATUS $DRONE_FAILED_STEPS"`, Run: engine.RunAlways,
				Env: map[string]string{"DRONE_STAGE_STATUS": "forged", "X": "forged"}, Secrets: map[string]string{"X": "secret wins"}}),
	})
	g.settled(job.Stage)
	lines := strings.Split(g.stored(job.Stage, "b"), "\n")
	for _, want := range []string{"DRONE_TAG=v1.2.3", "DRONE_SEMVER_SHORT=1.2.3", "DRONE_STEP_NAME=b", "DRONE_STEP_NUMBER=2",
		"DRONE_STAGE_STATUS=success", "DRONE_STAGE_MACHINE=tester"} {
		if !slices.Contains(lines, want) {
			t.Errorf("the step has no %s", want)
		}
	}
	for _, line := range lines {
		if strings.HasPrefix(line, "DRONE_CARD_PATH=") {
			t.Errorf("a card's path that nobody named: %s", line)
		}
	}
	if log := g.stored(job.Stage, "c"); log != "failure b\n" {
		t.Errorf("log of c: %q", log)
	}
}

// What is shown of a build has its repository without the key that encrypts its secrets and signs its configuration,
// which the server sends along, and without the parameters of a promotion.
func TestShownWithoutKeys(t *testing.T) {
	t.Parallel()
	ended := make(chan StageEnd, 1)
	g := newRig(t, func(c *Config) { c.Hooks.StageEnded = func(e StageEnd) { ended <- e } }).start()
	job := g.srv.Enqueue(runtimetest.Job{
		Repo:   drone.Repo{Secret: "canary-key", Signer: "canary-signer"},
		Build:  drone.Build{Event: "promote", Params: map[string]string{"PASSWORD": "canary-parameter"}},
		Config: pipeline(t, testStep{Name: "a", Sh: "sleep 1000"}),
	})
	g.running(job.Stage, 1)
	running, err := json.Marshal(g.runner.Status().Running)
	if err != nil {
		t.Fatal(err)
	}
	g.srv.Cancel(job.Build)
	g.settled(job.Stage)
	end, err := json.Marshal(<-ended) // told before the journal's entry goes
	if err != nil {
		t.Fatal(err)
	}
	for where, shown := range map[string][]byte{"the status": running, "the end": end} {
		if text := string(shown); strings.Contains(text, "canary") || !strings.Contains(text, "octocat/hello") {
			t.Errorf("%s: %s", where, text)
		}
	}
}

// A card is taken from the file that the pipeline names.
func TestCard(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.runner.timing.beatShort = time.Minute
	g.start()
	job := g.build(testStep{Name: "a", Sh: `echo '{"schema":"https://example.com/card","data":{"x":1}}' >card.json`,
		Env: map[string]string{"DRONE_CARD_PATH": "card.json"}})
	g.settled(job.Stage)
	step, _ := g.srv.Step(job.Stage, "a")
	if card := string(g.srv.Card(step.ID)); !strings.Contains(card, `{"x":1}`) {
		t.Errorf("card: %q", card)
	}
	if step, _ := g.srv.Step(job.Stage, "teardown"); len(g.srv.Card(step.ID)) > 0 {
		t.Errorf("a clean teardown has the card %q", g.srv.Card(step.ID))
	}
}

// What a pipeline leaves behind is shown as the card of the teardown, without its secrets.
func TestTeardownCard(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.runner.timing.beatShort = time.Minute
	g.start()
	job := g.build(testStep{Name: "a", Sh: `setsid sh -c 'sleep 1000; echo canary-in-a-card' >/dev/null 2>&1 &`,
		Secrets: map[string]string{"TOKEN": "canary-in-a-card"}})
	g.settled(job.Stage)
	step, _ := g.srv.Step(job.Stage, "teardown")
	if strings.Contains(string(g.srv.Card(step.ID)), "canary-in-a-card") {
		t.Error("the card shows a secret")
	}
	var card struct {
		Schema string
		Data   engine.Report
	}
	if err := json.Unmarshal(g.srv.Card(step.ID), &card); err != nil || card.Schema == "" || len(card.Data.Leftovers) == 0 {
		t.Errorf("card: %v, %q", err, g.srv.Card(step.ID))
	}
}

// A card that is no card, or that the server does not take, is a line in the step's log and nothing more (2.3 #12).
func TestCardIsRefused(t *testing.T) {
	t.Parallel()
	card := `echo '{"schema":"https://example.com/card","data":{}}' >card.json`
	for name, c := range map[string]struct {
		sh    string
		fault runtimetest.Fault
	}{
		"unknown to the server": {card, runtimetest.Status(404)},
		"refused":               {card, runtimetest.Status(400)},
		"no answer":             {card, runtimetest.Hang()},
		"no card":               {"echo nonsense >card.json", runtimetest.Status(404)},
		"outside":               {"ln -s /etc/passwd card.json", runtimetest.Status(404)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, func(c *Config) { c.MaxProcs = 1 })
			g.srv.Script(runtimetest.Card, c.fault)
			g.start()
			stage := g.settled(g.build(testStep{Name: "a", Sh: c.sh, Env: map[string]string{"DRONE_CARD_PATH": "card.json"}}, testStep{Name: "b", Sh: "true"}).Stage)
			expect(t, stage, "success", "a success, b success, teardown success")
			if log := g.stored(stage.ID, "a"); !strings.Contains(log, "card: ") || strings.Contains(log, "root:") {
				t.Errorf("log: %q", log)
			}
		})
	}
}
