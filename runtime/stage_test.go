package runtime

import (
	goruntime "runtime"
	"strings"
	"testing"

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
	if n := len(g.srv.Requests(runtimetest.StageFinal)); n != 1 {
		t.Errorf("%d final reports", n)
	}
}
