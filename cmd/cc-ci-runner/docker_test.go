//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// swarmed is a daemon whose builds get a Docker socket each, on a real one-node Swarm.
type swarmed struct {
	*running
	docker *swarmtest.Daemon
	before map[string]bool // what the Swarm held
}

// TestDocker runs builds that leave objects of all kinds on a Swarm and end in every way that a build can.
func TestDocker(t *testing.T) {
	var lazy swarmtest.Lazy
	docker := lazy.Need(t)
	t.Cleanup(func() {
		if err := lazy.Stop(); err != nil {
			t.Error(err)
		}
	})
	direct(t, docker, "network", "create", "-d", "overlay", "--attachable", "proxy")
	t.Run("ends", func(t *testing.T) { testEnds(t, docker) })
	t.Run("survivors", func(t *testing.T) { testSurvivors(t, docker) })
	t.Run("policies", func(t *testing.T) { testPolicies(t, docker) })
	t.Run("killed", func(t *testing.T) { testKilled(t, docker) })
}

// direct runs the docker command past every build's socket.
func direct(t *testing.T, docker *swarmtest.Daemon, args ...string) string {
	t.Helper()
	cmd := exec.Command("docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+docker.Host, "DOCKER_CONFIG="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// startSwarmed starts a daemon on the Swarm.
func startSwarmed(t *testing.T, docker *swarmtest.Daemon, vars map[string]string) *swarmed {
	t.Helper()
	all := map[string]string{"DRONE_RUNNER_DOCKER": "proxy", "DRONE_RUNNER_DOCKER_ENDPOINT": docker.Host, "DRONE_RUNNER_CAPACITY": "4"}
	maps.Copy(all, vars)
	before, err := docker.Objects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &swarmed{startDaemon(t, runtimetest.NewServer(t, runtimetest.Poll(2*time.Second), runtimetest.Cards()), all), docker, before}
	s.says("capacity 4")
	return s
}

// in lets failures count for a subtest until that is over.
func (s *swarmed) in(t *testing.T) {
	parent := s.t
	s.t = t
	t.Cleanup(func() { s.t = parent })
}

// clean waits until the Swarm holds what it held before. The teardown has waited for all that the build made, so what
// there is to wait for is only what the test itself has removed.
func (s *swarmed) clean() {
	s.t.Helper()
	var added []string
	s.until("the Swarm is as it was", func() bool {
		now, err := s.docker.Objects(s.t.Context())
		added = slices.DeleteFunc(slices.Sorted(maps.Keys(now)), func(key string) bool { return s.before[key] })
		return err == nil && len(added) == 0
	})
}

// report is the stage's teardown report, as it lies beside the journal: the newest, for the start may have swept away what
// another server's stage of the same number had left on this host.
func (s *swarmed) report(job runtimetest.Enqueued) engine.Report {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.state, "*", "reports", fmt.Sprintf("*-%d.json", job.Stage)))
	if err != nil || len(files) == 0 {
		s.t.Fatalf("reports of stage %d: %v, %v", job.Stage, files, err)
	}
	newest := slices.MaxFunc(files, func(a, b string) int { return modified(a).Compare(modified(b)) })
	data, err := os.ReadFile(newest)
	if err != nil {
		s.t.Fatal(err)
	}
	var report engine.Report
	if err := json.Unmarshal(data, &report); err != nil {
		s.t.Fatal(err)
	}
	return report
}

// teardownLog is what the stage's last step wrote.
func (s *swarmed) teardownLog(job runtimetest.Enqueued) string {
	s.t.Helper()
	step, ok := s.server.Step(job.Stage, "teardown")
	if !ok {
		s.t.Fatal("the stage has no step teardown")
	}
	logs := s.server.Logs(step.ID)
	return runtimetest.Text(logs.Stored) + runtimetest.Text(logs.Live)
}

// leaving is a pipeline that makes objects of every kind whose names begin with name, and then goes on.
func leaving(name, then string) string {
	commands := []string{
		"docker volume create NAME-vol",
		"printf x | docker secret create NAME-secret -",
		"printf x | docker config create NAME-config -",
		"docker network create -d overlay NAME-net",
		"docker service create --quiet --detach --name NAME-app --network NAME-net --network proxy --secret NAME-secret" +
			" --mount source=NAME-svc,target=/d " + swarmtest.Image,
		"docker run -d --name NAME-run -v /anon " + swarmtest.Image,
		"docker commit NAME-run NAME-image",
		"echo begun",
		then,
	}
	return lines(strings.ReplaceAll(strings.Join(commands, "\n"), "NAME", name))
}

// lines is a pipeline of one step with these commands.
func lines(commands string) string {
	text := "clone: {disable: true}\nkind: pipeline\ntype: exec\nname: default\nsteps:\n- name: only\n  commands:\n"
	for line := range strings.Lines(commands) {
		text += "  - " + strings.TrimSpace(line) + "\n"
	}
	return text
}

// testEnds lets builds end by success, failure, cancel and timeout, and beside a restart of Docker: nothing is left.
func testEnds(t *testing.T, docker *swarmtest.Daemon) {
	t.Run("timeout", func(t *testing.T) {
		// Long enough for a busy machine to make the objects in.
		s := startSwarmed(t, docker, map[string]string{"DRONE_RUNNER_STEP_TIMEOUT": "30s"})
		job := s.server.Enqueue(runtimetest.Job{Config: leaving("timeout", "sleep 1000")})
		s.ends(job, "timeout", drone.StatusError)
	})
	s := startSwarmed(t, docker, nil)
	gate := filepath.Join(sharedDir(t), "gate")
	for _, c := range []struct {
		name, then, status string
		meanwhile          func(runtimetest.Enqueued)
	}{
		{"success", "true", drone.StatusPassing, nil},
		{"failure", "exit 3", drone.StatusFailing, nil},
		{"cancel", "sleep 1000", drone.StatusKilled, func(job runtimetest.Enqueued) { s.server.Cancel(job.Build) }},
		{"dockerd-restart", "while test ! -e " + gate + "; do sleep 0.1; done", drone.StatusPassing, func(runtimetest.Enqueued) {
			if err := docker.Restart(t.Context()); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.in(t)
			job := s.server.Enqueue(runtimetest.Job{Config: leaving(c.name, c.then)})
			if c.meanwhile != nil {
				s.until("the step has made its objects", s.begun(job, "begun"))
				c.meanwhile(job)
			}
			s.ends(job, c.name, c.status)
		})
	}
	direct(t, docker, "volume", "create", "stray")
	job := s.server.Enqueue(runtimetest.Job{Config: lines("true")})
	s.server.WaitStage(job.Stage, isOver)
	s.says("volume stray is no build's")
	direct(t, docker, "volume", "rm", "stray")
}

// ends waits for the end of a build that left objects whose names begin with name: it has the status, what the build
// left was named, and nothing remains.
func (s *swarmed) ends(job runtimetest.Enqueued, name, status string) {
	s.t.Helper()
	stage := s.server.WaitStage(job.Stage, func(stage drone.Stage) bool { return isOver(stage) && stage.Stopped > 0 })
	if stage.Status != status {
		s.t.Errorf("the stage ended with %s, want %s: %s", stage.Status, status, stage.Error)
	}
	s.until("the teardown has a log", func() bool { return strings.Contains(s.teardownLog(job), "clean: nothing is left") })
	s.clean()
	report := s.report(job)
	for _, want := range []string{"vol", "secret", "config", "net", "app", "run", "image"} {
		named := func(item leftover.Item) bool { return strings.HasPrefix(item.Name, name+"-"+want) }
		if !slices.ContainsFunc(report.Leftovers, named) {
			s.t.Errorf("the report does not name %s-%s: %v", name, want, report.Leftovers)
		}
	}
	if log := s.teardownLog(job); !strings.Contains(log, "warning: the pipeline left ") {
		s.t.Errorf("the teardown's log has no warning:\n%s", log)
	}
	if len(report.Survivors) > 0 {
		s.t.Errorf("survivors: %v", report.Survivors)
	}
}

// testSurvivors puts what builds made into the use of others. Each survivor is named, with Docker's own reason, and the
// build failed; a cancelled one stays killed.
func testSurvivors(t *testing.T, docker *swarmtest.Daemon) {
	s := startSwarmed(t, docker, map[string]string{"DRONE_RUNNER_TEARDOWN_TIMEOUT": "15s"})
	gates := sharedDir(t)
	wait := func(name string) string {
		return "while test ! -e " + filepath.Join(gates, name) + "; do sleep 0.1; done"
	}
	cases := []struct {
		name   string
		use    []string
		status string
		reason string
	}{
		{"volume", []string{"run", "-d", "--name", "uses-volume", "-v", "volume-vol:/x", swarmtest.Image},
			drone.StatusFailing, "volume volume-vol (remove volume-vol: volume is in use - ["},
		{"secret", []string{"service", "create", "--detach", "--name", "uses-secret", "--secret", "secret-secret", swarmtest.Image},
			drone.StatusFailing, "secret secret-secret (secret 'secret-secret' is in use by the following service: uses-secret)"},
		{"network", []string{"service", "create", "--detach", "--name", "uses-network", "--network", "network-net", swarmtest.Image},
			drone.StatusFailing, "network network-net (network "},
		{"cancelled", []string{"run", "-d", "--name", "uses-cancelled", "-v", "cancelled-vol:/x", swarmtest.Image},
			drone.StatusKilled, "volume cancelled-vol (remove cancelled-vol: volume is in use - ["},
	}
	jobs := map[string]runtimetest.Enqueued{}
	for _, c := range cases {
		jobs[c.name] = s.server.Enqueue(runtimetest.Job{Config: leaving(c.name, wait(c.name))})
	}
	for _, c := range cases {
		s.until("the step has made its objects", s.begun(jobs[c.name], "begun"))
		direct(t, docker, c.use...)
		if c.status == drone.StatusKilled {
			s.server.Cancel(jobs[c.name].Build)
		}
		if err := os.WriteFile(filepath.Join(gates, c.name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s.in(t)
			job := jobs[c.name]
			stage := s.server.WaitStage(job.Stage, func(stage drone.Stage) bool { return isOver(stage) && stage.Stopped > 0 })
			if stage.Status != c.status {
				t.Errorf("the stage ended with %s, want %s: %s", stage.Status, c.status, stage.Error)
			}
			if name, _, _ := strings.Cut(c.reason, " ("); c.status == drone.StatusFailing && !strings.Contains(stage.Error, name) {
				t.Errorf("the stage's error does not name %s: %q", name, stage.Error)
			}
			s.until("the teardown says what is left", func() bool { return strings.Contains(s.teardownLog(job), "leak: 1 left on the host") })
			if log := s.teardownLog(job); !strings.Contains(log, "STILL THERE: "+c.reason) {
				t.Errorf("the teardown's log does not say %q:\n%s", c.reason, log)
			}
			if left := s.report(job).Survivors; len(left) != 1 {
				t.Errorf("survivors: %v", left)
			}
		})
	}
	if left, err := filepath.Glob(filepath.Join(s.root, "*")); err != nil || len(left) != 0 {
		t.Errorf("what Docker keeps has kept directories from being removed: %v, %v", left, err)
	}
	direct(t, docker, "rm", "-f", "uses-volume", "uses-cancelled")
	direct(t, docker, "service", "rm", "uses-secret", "uses-network")
	s.until("nothing uses them any more", func() bool { return direct(t, docker, "ps", "-aq", "--filter", "name=uses-") == "" })
	if out, _, code := call(t, "leaks", "--config", filepath.Join(s.state, "config"), "--remove", "--yes"); code != 0 {
		t.Errorf("leaks --remove: exit code %d\n%s", code, out)
	}
	s.clean()
}

// testPolicies turns both policies round: survivors only warn, and leftovers fail.
func testPolicies(t *testing.T, docker *swarmtest.Daemon) {
	s := startSwarmed(t, docker, map[string]string{
		"DRONE_RUNNER_TEARDOWN_TIMEOUT": "5s", "DRONE_RUNNER_LEAKS": "warn", "DRONE_RUNNER_LEFTOVERS": "fail",
	})
	gate := filepath.Join(sharedDir(t), "gate")
	survivor := s.server.Enqueue(runtimetest.Job{Config: lines(
		"docker volume create kept-vol\necho begun\nwhile test ! -e " + gate + "; do sleep 0.1; done")})
	s.until("the step has made its volume", s.begun(survivor, "begun"))
	direct(t, docker, "run", "-d", "--name", "uses-kept", "-v", "kept-vol:/x", swarmtest.Image)
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	leftover := s.server.Enqueue(runtimetest.Job{Config: lines("docker volume create left-vol")})
	tidy := s.server.Enqueue(runtimetest.Job{Config: lines("docker volume create tidy-vol\ndocker volume rm tidy-vol")})
	if stage := s.server.WaitStage(survivor.Stage, isOver); stage.Status != drone.StatusPassing {
		t.Errorf("with LEAKS=warn a survivor ends the stage with %s: %s", stage.Status, stage.Error)
	}
	if stage := s.server.WaitStage(leftover.Stage, isOver); stage.Status != drone.StatusFailing || !strings.Contains(stage.Error, "left-vol") {
		t.Errorf("with LEFTOVERS=fail a leftover ends the stage with %s: %s", stage.Status, stage.Error)
	}
	if stage := s.server.WaitStage(tidy.Stage, isOver); stage.Status != drone.StatusPassing {
		t.Errorf("with LEFTOVERS=fail a tidy pipeline ends with %s: %s", stage.Status, stage.Error)
	}
	direct(t, docker, "rm", "-f", "uses-kept")
	direct(t, docker, "volume", "rm", "kept-vol")
	s.clean()
}

// testKilled kills the runner in the middle of builds. What is left is listed, removed on demand, and else by the next
// start; so is an app that was deployed past the builds' sockets.
func testKilled(t *testing.T, docker *swarmtest.Daemon) {
	vars := map[string]string{"DRONE_RUNNER_APP_PATTERN": `^dead-[0-9a-f]{6}\.ci\.example\.org$`}
	s := startSwarmed(t, docker, vars)
	config := filepath.Join(s.state, "config")
	first := s.server.Enqueue(runtimetest.Job{Config: leaving("first", "sleep 1000")})
	second := s.server.Enqueue(runtimetest.Job{Config: leaving("second", "sleep 1000")})
	s.until("the steps have made their objects", func() bool { return s.begun(first, "begun")() && s.begun(second, "begun")() })
	if out, _, code := call(t, "leaks", "--config", config, "--remove", "--yes"); code != 0 || !strings.Contains(out, "running") {
		t.Errorf("leaks beside running builds: exit code %d\n%s", code, out)
	}
	s.signal(syscall.SIGKILL)
	<-s.done
	const app = "dead-0a1b2c_ci_example_org"
	direct(t, docker, "service", "create", "--quiet", "--detach", "--name", app+"_app", "--label", "com.docker.stack.namespace="+app,
		"--container-label", "com.docker.stack.namespace="+app, swarmtest.Image)

	out, errs, code := call(t, "leaks", "--config", config)
	for _, want := range []string{"BUILD", "REPOSITORY", "AGE", "octocat/hello", "service first-app", "volume second-vol", "secret first-secret",
		"app " + app, "service " + app + "_app", "left"} {
		if !strings.Contains(out, want) {
			t.Errorf("the table does not say %q:\n%s", want, out)
		}
	}
	if code != 1 || !strings.Contains(errs, "leaks --remove") {
		t.Errorf("exit code %d, %q", code, errs)
	}
	if out, _, code := call(t, "leaks", "--config", config, "--remove"); code != 1 || !strings.Contains(out, "[y/N]") {
		t.Errorf("leaks --remove that nobody answers: exit code %d\n%s", code, out)
	}
	out, _, _ = call(t, "leaks", "--config", config, "--json")
	var leaks []leak
	if err := json.Unmarshal([]byte(out), &leaks); err != nil || len(leaks) != 3 {
		t.Fatalf("leaks --json: %v\n%s", err, out)
	}
	for _, l := range leaks {
		build := l.About["repo"] == "octocat/hello" && len(l.Items) >= 8
		if l.Live || l.Since.IsZero() || !build && l.Name != "app "+app {
			t.Errorf("leaks --json: %+v", l)
		}
	}

	maps.Copy(vars, map[string]string{
		"DRONE_RUNNER_ROOT": s.root, "DRONE_RUNNER_STATE": s.state, "DRONE_HTTP_BIND": s.bind,
		"DRONE_RUNNER_DOCKER": "proxy", "DRONE_RUNNER_DOCKER_ENDPOINT": docker.Host,
	})
	again := startDaemon(t, s.server, vars)
	for _, job := range []runtimetest.Enqueued{first, second} {
		stage := s.server.WaitStage(job.Stage, isOver)
		if stage.Status != drone.StatusError || !strings.Contains(stage.Error, "the runner restarted while this stage ran") {
			t.Errorf("the stage ended with %s: %s", stage.Status, stage.Error)
		}
	}
	again.says("the app " + app + ": removed: service " + app + "_app")
	s.clean()
	if out, _, code := call(t, "leaks", "--config", config); code != 0 || !strings.Contains(out, "nothing is left of any build") {
		t.Errorf("leaks after the next start: exit code %d\n%s", code, out)
	}
}
