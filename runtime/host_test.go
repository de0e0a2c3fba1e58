package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	runner "github.com/drone/runner-go/client"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/process"
)

// testStep is a step in the little language that the tests use for pipelines: JSON, one object a step.
type testStep struct {
	Name      string
	Sh        string
	DependsOn []string
	Detach    bool
	Ignore    bool
	Run       engine.RunPolicy
	Env       map[string]string
	Secrets   map[string]string
}

// pipeline is the configuration of a build for the server. Steps without dependencies run one after the other.
func pipeline(t testing.TB, steps ...testStep) string {
	t.Helper()
	for i := range steps {
		if i > 0 && steps[i].DependsOn == nil {
			steps[i].DependsOn = []string{steps[i-1].Name}
		}
	}
	data, err := json.Marshal(steps)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// host is the real engine on directories of its own, with places where a test can make it fail.
type host struct {
	*engine.Engine
	dir     string
	address string // the server's, and dir: ports are used again, and the names of builds derive from it

	onSetup   func(*engine.Spec) error
	onDestroy func(build string)

	setups sync.Map // builds that were set up

	// cut gets the moment at which a step's context ended.
	cut chan time.Time
}

// processes contains the builds of all tests of this process.
var processes = sync.OnceValues(func() (*process.Host, error) {
	return process.Open(context.Background(), process.Config{
		Name: "cc-ci-runtime-test", Grace: 200 * time.Millisecond, KeepLeftovers: true, ShareMounts: true,
	})
})

func newHost(dir, address string, log *logrus.Entry) (*host, error) {
	contained, err := processes()
	if err != nil {
		return nil, err
	}
	e, err := engine.New(engine.Config{
		Workspaces: &engine.Workspaces{Parent: filepath.Join(dir, "builds")}, Processes: contained,
		LockDir: filepath.Join(dir, "locks"), Log: log,
	})
	return &host{Engine: e, dir: dir, address: address}, err
}

// prepare is Config.Prepare: it reads the little language.
func (h *host) prepare(_ context.Context, detail *runner.Context) (*engine.Spec, error) {
	var steps []testStep
	if err := json.Unmarshal(detail.Config.Data, &steps); err != nil {
		return nil, fmt.Errorf(".drone.yml:1:1: %w", err)
	}
	name := engine.BuildName(h.address, detail.Stage.ID)
	root := filepath.Join(h.dir, "builds", name)
	spec := &engine.Spec{
		Build: name, Repo: detail.Repo.Slug, Root: root, Home: filepath.Join(root, "home"),
		Workspace: filepath.Join(root, "src"), Scripts: filepath.Join(root, "opt"), Tmp: filepath.Join(root, "tmp"),
	}
	for _, s := range steps {
		if s.Run == "" {
			s.Run = engine.RunOnSuccess
		}
		if s.Env == nil {
			s.Env = map[string]string{}
		}
		s.Env["PATH"] = os.Getenv("PATH")
		step := &engine.Step{
			Name: s.Name, DependsOn: s.DependsOn, Detach: s.Detach, IgnoreFailure: s.Ignore, Run: s.Run,
			Dir: spec.Workspace, Env: s.Env, Commands: []engine.Command{{Args: []string{"/bin/sh", "-ec", s.Sh}}},
		}
		for name, value := range s.Secrets {
			step.Secrets = append(step.Secrets, engine.Secret{Env: name, Name: name, Value: value})
		}
		spec.Steps = append(spec.Steps, step)
	}
	return spec, nil
}

func (h *host) Setup(ctx context.Context, spec *engine.Spec) error {
	if h.onSetup != nil {
		if err := h.onSetup(spec); err != nil {
			return err
		}
	}
	h.setups.Store(spec.Build, true)
	return h.Engine.Setup(ctx, spec)
}

func (h *host) Run(ctx context.Context, spec *engine.Spec, step *engine.Step, out io.Writer) (*engine.State, error) {
	stop := context.AfterFunc(ctx, func() {
		select {
		case h.cut <- time.Now():
		default:
		}
	})
	defer stop()
	switch step.Env["FAULT"] {
	case "panic":
		panic(step.Env["FAULT_TEXT"])
	case "error":
		return nil, fmt.Errorf("start it: %s", step.Env["FAULT_TEXT"])
	}
	return h.Engine.Run(ctx, spec, step, out)
}

func (h *host) Destroy(ctx context.Context, build string) (*engine.Report, error) {
	if h.onDestroy != nil {
		h.onDestroy(build)
	}
	return h.Engine.Destroy(ctx, build)
}

// left names what any build still has on the host.
func (h *host) left(t testing.TB) []string {
	t.Helper()
	var names []string
	for _, dir := range []string{"builds", "locks"} {
		entries, err := os.ReadDir(filepath.Join(h.dir, dir))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, dir+"/"+e.Name())
		}
	}
	return names
}
