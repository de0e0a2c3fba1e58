package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// BuildProduct compiles one of the repository's commands (cc-ci-runner, cc-ci-bridge) and returns the program's path
// below Dir. Building it again is cheap: Go's own cache decides what is to do.
func (b *Bed) BuildProduct(ctx context.Context, command string) (string, error) {
	return BuildProduct(ctx, b.log, filepath.Join(b.Dir, "bin"), command)
}

// BuildProduct compiles one of the repository's commands into dir, as it is released: without cgo.
func BuildProduct(ctx context.Context, log io.Writer, dir, command string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, command)
	err = phase(ctx, log, "build "+command, func() error {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/"+command)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		return run(cmd)
	})
	return program, err
}

// RunnerOptions says how a runner is started. Only Program is needed, and it need not be ours: whatever takes
// drone-runner-exec's variables will do.
type RunnerOptions struct {
	Program string            // the runner's program, see BuildProduct
	Name    string            // the name it shows to the server; also its directory in the Bed's
	RPCHost string            // the server's address, e.g. a Proxy's Host; the Bed's Drone when empty
	Env     map[string]string // more settings, which win over the defaults
}

// Runner is a running cc-ci-runner, connected to the bed's Drone. Kill and Start, of Server, are a crash and what
// comes after it: directories and address stay.
type Runner struct {
	*Server
	Root  string // where it makes the builds' workspaces
	State string // where it keeps its journal
	URL   string // its HTTP endpoint
}

// StartRunner starts a runner with directories of its own and waits until it answers on its HTTP endpoint, which is
// before it takes builds. Of the caller's environment it gets PATH alone. It logs at the level debug: a failing test
// shows the log's end.
func (b *Bed) StartRunner(ctx context.Context, options RunnerOptions) (*Runner, error) {
	if options.Name == "" {
		options.Name = "runner"
	}
	if options.RPCHost == "" {
		options.RPCHost = b.Drone.RPCHost()
	}
	// Chosen here and not by the runner: it must be the same after a restart.
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	home := filepath.Join(b.Dir, options.Name)
	runner := &Runner{
		Root: filepath.Join(home, "root"), State: filepath.Join(home, "state"),
		URL: fmt.Sprintf("http://127.0.0.1:%d", port),
	}
	for _, dir := range []string{runner.Root, runner.State} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	settings := map[string]string{
		"DRONE_RPC_PROTO":    "http",
		"DRONE_RPC_HOST":     options.RPCHost,
		"DRONE_RPC_SECRET":   b.Drone.RPCSecret,
		"DRONE_RUNNER_NAME":  options.Name,
		"DRONE_RUNNER_ROOT":  runner.Root,
		"DRONE_RUNNER_STATE": runner.State,
		"DRONE_HTTP_BIND":    strings.TrimPrefix(runner.URL, "http://"),
		"DRONE_DEBUG":        "true",
	}
	for name, value := range options.Env {
		settings[name] = value
	}
	env := baseEnv(home)
	for name, value := range settings {
		env = append(env, name+"="+value)
	}
	runner.Server = &Server{
		name: options.Name, program: options.Program, args: []string{"daemon"}, env: env, dir: home,
		logPath: filepath.Join(home, "runner.log"), health: runner.URL + "/healthz",
	}
	return runner, runner.Start(ctx)
}

// Stop asks the runner to end. Builds that still run are cancelled and torn down: to the runner, the first signal
// means to let them end, the second to end them. It is killed only if that takes more than a minute. A runner that has
// ended already is no error.
func (r *Runner) Stop(ctx context.Context) error {
	if r.PID() == 0 {
		return nil
	}
	if err := r.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop %s: %w", r.name, err)
	}
	// A second for a runner without builds, to end with one signal as it would on a host.
	soon, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := r.Exited(soon); soon.Err() == nil {
		return err
	}
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	defer cancel()
	// stop sends the second signal.
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stop(ctx.Done())
}

// Leftovers lists what the runner's builds have left in its root directory. While one runs, its directory is among it.
func (r *Runner) Leftovers() ([]string, error) {
	entries, err := os.ReadDir(r.Root)
	var names []string
	for _, entry := range entries {
		names = append(names, filepath.Join(r.Root, entry.Name()))
	}
	return names, err
}
