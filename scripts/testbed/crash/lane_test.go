package crash

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// lane is a runner with a wire to the server, a branch of its own, and a directory that its builds write to: each
// build has a /tmp of its own.
type lane struct {
	t      *testing.T
	ctx    context.Context
	name   string
	repo   testbed.Repo
	wire   *wire
	runner *testbed.Runner
	hall   string
}

// laneSpec says what a lane is made of; steps and name are needed.
type laneSpec struct {
	name     string
	steps    string            // in them, HALL stands for the lane's directory
	repo     testbed.Repo      // the world's when empty
	files    map[string]string // beside the pipeline
	settings map[string]string // of the runner
}

// newLane starts a runner and pushes its pipeline.
func newLane(t *testing.T, spec laneSpec) *lane {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(the.ctx, 15*time.Minute, fmt.Errorf("%s took more than 15 minutes", t.Name()))
	t.Cleanup(cancel)
	l := &lane{t: t, ctx: ctx, name: spec.name, repo: spec.repo, wire: newWire(t, the.bed.Drone.URL()), hall: openDir(t)}
	if l.repo.Name == "" {
		l.repo = the.repo
	}
	pipeline := fmt.Sprintf("kind: pipeline\ntype: exec\nname: default\nplatform: {os: linux, arch: %s}\nnode: {lane: %s}\n"+
		"trigger: {event: [custom]}\n%s", runtime.GOARCH, l.name, strings.ReplaceAll(strings.TrimLeft(spec.steps, "\n"), "HALL", l.hall))
	files := map[string]string{".drone.yml": pipeline}
	maps.Copy(files, spec.files)
	_, err := the.user.Push(ctx, l.repo, testbed.Commit{Branch: l.name, Message: "a pipeline", Files: files})
	l.ok(err)

	env := map[string]string{
		"DRONE_RUNNER_LABELS":  "lane:" + l.name,
		"DRONE_RUNNER_ENVIRON": "CC_CI_CRASH_MARK:" + l.mark(),
	}
	maps.Copy(env, spec.settings)
	options := testbed.RunnerOptions{Program: the.program, Name: l.name, RPCHost: l.wire.host(), Env: env}
	l.runner, err = the.bed.StartRunner(ctx, options)
	l.ok(err)
	if root := env["DRONE_RUNNER_ROOT"]; root != "" {
		l.runner.Root = root
	}
	t.Cleanup(l.stop)
	return l
}

// asUsers lets a runner that is root run each build as a user of its own: ten of them, from the first on.
func asUsers(t *testing.T, settings map[string]string, first int) {
	t.Helper()
	if os.Getuid() == 0 {
		settings["DRONE_RUNNER_USER"] = fmt.Sprintf("%d-%d", first, first+9)
		settings["DRONE_RUNNER_ROOT"] = openDir(t)
	}
}

// openDir makes a directory that steps of any user can write to; it lies where builds see the host's files.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "cc-ci-crash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// mark is what every process of the lane's builds has in its environment, and nothing else on this host.
func (l *lane) mark() string { return fmt.Sprintf("%s-%d", l.name, os.Getpid()) }

func (l *lane) ok(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// stop ends the runner; after a failure it does not wait for running builds, and shows the runner's log.
func (l *lane) stop() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), time.Minute)
	defer cancel()
	if l.t.Failed() && l.runner.PID() != 0 {
		// The first signal lets running builds end, the second cancels them.
		if err := l.runner.Signal(syscall.SIGTERM); err != nil {
			l.t.Error(err)
		}
	}
	if err := l.runner.Stop(ctx); err != nil {
		l.t.Error(err)
	}
	if left := l.ownCgroups(); len(left) > 0 {
		l.t.Errorf("the runner that ended left %v", left)
	}
	if data, err := os.ReadFile(l.runner.LogPath()); err == nil && l.t.Failed() {
		l.t.Logf("log of runner %s:\n...%s", l.name, data[max(0, len(data)-8000):])
	}
}

// ownCgroups are those of the runner itself, wherever this host has its cgroups; their names hold the server's address.
func (l *lane) ownCgroups() []string {
	l.t.Helper()
	var found []string
	for _, place := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		paths, err := filepath.Glob(place + "cc-ci-" + strings.ReplaceAll(l.wire.host(), ":", "_") + "_*")
		l.ok(err)
		found = append(found, paths...)
	}
	return found
}

// build asks for a build of the lane's branch.
func (l *lane) build(params map[string]string) *drone.Build {
	l.t.Helper()
	build, err := the.bed.Drone.NewBuild(l.ctx, l.repo, l.name, params)
	l.ok(err)
	return build
}

// look reads a build from the server.
func (l *lane) look(number int64) *drone.Build {
	l.t.Helper()
	build, err := the.bed.Drone.Build(l.ctx, l.repo, number)
	l.ok(err)
	return build
}

// settled waits until the builds have ended on the server and nothing of any build of this runner is left anywhere,
// and returns how long that took.
func (l *lane) settled(limit time.Duration, numbers ...int64) time.Duration {
	l.t.Helper()
	start := time.Now()
	for {
		left := l.left(numbers)
		took := time.Since(start)
		if len(left) == 0 {
			return took
		}
		if took > limit {
			l.t.Fatalf("still there after %s:\n%s", limit, strings.Join(left, "\n"))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// left names what is not settled. What is costly to look for is looked for last.
func (l *lane) left(numbers []int64) []string {
	l.t.Helper()
	var left []string
	for _, number := range numbers {
		build := l.look(number)
		if !settledOnServer(build) {
			left = append(left, fmt.Sprintf("build %d: %s", number, testbed.Describe(build)))
		}
	}
	for _, pattern := range []string{"stages/*", "spool/*"} {
		files, err := filepath.Glob(filepath.Join(l.runner.State, "*", pattern))
		l.ok(err)
		left = append(left, files...)
	}
	workspaces, err := l.runner.Leftovers()
	l.ok(err)
	left = append(left, workspaces...)
	if len(left) > 0 {
		return left
	}
	processes, err := testbed.Processes("CC_CI_CRASH_MARK=" + l.mark())
	l.ok(err)
	return append(processes, l.traces()...)
}

// settledOnServer says whether a build and all its stages are final.
func settledOnServer(build *drone.Build) bool {
	for _, stage := range build.Stages {
		if stage.Status == drone.StatusPending || stage.Status == drone.StatusRunning {
			return false
		}
	}
	return testbed.Done(build)
}

// traces are the builds' cgroups, mounts and locks: all carry the builds' name, which opens with the server's address.
func (l *lane) traces() []string {
	l.t.Helper()
	sum := sha256.Sum256([]byte(l.wire.server.URL))
	prefix := "cc-ci-" + hex.EncodeToString(sum[:4]) + "-"
	var found []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	l.ok(err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, prefix) {
			found = append(found, "mount "+line)
		}
	}
	for _, dir := range []string{"/sys/fs/cgroup", "/run/lock/cc-ci"} {
		// Directories of others come and go while we look: that is no error of ours.
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
			if strings.HasPrefix(filepath.Base(path), prefix) {
				found = append(found, path)
			}
			return nil
		})
	}
	return found
}
