package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

// local runs the steps without a server and returns the stage.
func local(t *testing.T, ctx context.Context, out io.Writer, steps ...testStep) *drone.Stage {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	// Tests of another run, such as the one with the race detector, must not have builds of the same name.
	h, err := newHost(t.TempDir(), fmt.Sprint(t.Name(), os.Getpid()), logrus.NewEntry(log))
	if err != nil {
		t.Fatal(err)
	}
	stage := &drone.Stage{ID: 1, Name: "default"}
	detail := &runner.Context{
		Config: &runner.File{Data: json.RawMessage(pipeline(t, steps...))}, Stage: stage, Repo: &drone.Repo{Slug: "octocat/hello"},
	}
	spec, err := h.prepare(ctx, detail)
	if err != nil {
		t.Fatal(err)
	}
	ended, err := Local{
		Engine: h, Spec: spec, Build: &drone.Build{Event: "push"}, Stage: stage, Out: out, Log: logrus.NewEntry(log),
	}.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if left := h.left(t); len(left) > 0 {
		t.Errorf("left on the host: %v", left)
	}
	return ended
}

func TestLocal(t *testing.T) {
	t.Parallel()
	printed := &safeBuffer{}
	stage := local(t, t.Context(), printed,
		testStep{Name: "a", Sh: "echo $TOKEN; echo $DRONE_STEP_NAME", Secrets: map[string]string{"TOKEN": "canary-of-mine"}},
		testStep{Name: "b", Sh: "exit 4"}, testStep{Name: "c", Sh: "true"})
	expect(t, *stage, "failure", "a success, b failure, c skipped, teardown success")
	if stage.ExitCode != 4 {
		t.Errorf("exit code %d", stage.ExitCode)
	}
	if out := printed.String(); strings.Contains(out, "canary") || !strings.Contains(out, "[a:0] ******\n[a:1] a\n") || !strings.Contains(out, "nothing is left") {
		t.Errorf("output:\n%s", out)
	}
}

func TestLocalIsCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	stage := local(t, ctx, writerFunc(func([]byte) { cancel(engine.ErrCancelled) }),
		testStep{Name: "a", Sh: "echo up; sleep 1000"}, testStep{Name: "b", Sh: "true"})
	expect(t, *stage, "killed", "a killed, b skipped, teardown success")
}

// writerFunc is told what is written.
type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }
