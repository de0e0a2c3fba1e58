package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// running is a daemon in a process of its own, with a server to talk to.
type running struct {
	t      *testing.T
	server *runtimetest.Server
	cmd    *exec.Cmd
	bind   string
	root   string
	state  string

	mu   sync.Mutex
	log  strings.Builder
	done chan struct{}
}

// freeAddress is a loopback address that was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // it was only opened to learn its number
	return l.Addr().String()
}

// startDaemon starts a daemon that is configured by a file; vars are laid over what it needs. environ is added to the
// program's environment.
func startDaemon(t *testing.T, server *runtimetest.Server, vars map[string]string, environ ...string) *running {
	t.Helper()
	s := newDaemonProgram(t, server, vars)
	s.cmd.Env = append(s.cmd.Env, environ...)
	s.start()
	return s
}

// newDaemonProgram is a daemon that is not started yet.
func newDaemonProgram(t *testing.T, server *runtimetest.Server, vars map[string]string) *running {
	t.Helper()
	s := &running{t: t, server: server, bind: freeAddress(t), root: t.TempDir(), state: t.TempDir(), done: make(chan struct{})}
	all := map[string]string{
		"DRONE_RPC_PROTO": server.Proto, "DRONE_RPC_HOST": server.Host, "DRONE_RPC_SECRET": server.Secret,
		"DRONE_HTTP_BIND": s.bind, "DRONE_RUNNER_ROOT": s.root, "DRONE_RUNNER_STATE": s.state, "DRONE_RUNNER_GRACE": "1s",
	}
	for name, value := range vars {
		all[name] = value
	}
	s.cmd = program(t, "daemon", s.writeConfig(all))
	return s
}

// sharedDir is a directory that a step sees too: it has a /tmp of its own.
func sharedDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "cc-ci-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (s *running) writeConfig(vars map[string]string) string {
	s.t.Helper()
	var text strings.Builder
	for name, value := range vars {
		fmt.Fprintf(&text, "%s=%s\n", name, value)
	}
	file := filepath.Join(s.state, "config")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// Write collects the daemon's log.
func (s *running) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func (s *running) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// start begins to collect the daemon's log, unless it goes elsewhere.
func (s *running) start() {
	if s.cmd.Stderr == nil {
		s.cmd.Stdout, s.cmd.Stderr = s, s
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(s.done)
		_ = s.cmd.Wait() // the exit code is looked at by exit
	}()
	s.t.Cleanup(func() {
		s.end()
		if strings.Contains(s.text(), s.server.Secret) {
			s.t.Error("the daemon's log shows the RPC secret")
		}
		if s.t.Failed() {
			s.t.Logf("the daemon's log:\n%s", s.text())
		}
	})
}

// end stops the daemon, if it still runs, so that its builds are torn down: a killed one would leave them on the host.
func (s *running) end() {
	for range 300 { // the second signal cancels what runs; two that come together may count as one
		_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-s.done:
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
	s.t.Error("the daemon did not end within a minute of its signals")
	_ = s.cmd.Process.Signal(syscall.SIGKILL) // it may end just now
	<-s.done
}

func (s *running) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// exit waits for the end and returns the exit code.
func (s *running) exit() int {
	s.t.Helper()
	select {
	case <-s.done:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(time.Minute):
		s.t.Fatal("the daemon did not end within a minute")
		return 0
	}
}

// until waits for a condition.
func (s *running) until(what string, condition func() bool) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not within a minute: %s", what)
		}
	}
}

func (s *running) says(text string) {
	s.t.Helper()
	s.until("the log says "+text, func() bool { return strings.Contains(s.text(), text) })
}

// get asks the endpoint; a status of 0 means that nobody answers.
func (s *running) get(path string) (status int, body string) {
	response, err := http.Get("http://" + s.bind + path)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }() // it was read
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(data)
}

// begun says whether the stage's step has written the word.
func (s *running) begun(job runtimetest.Enqueued, word string) func() bool {
	return func() bool {
		for _, step := range s.server.Stage(job.Stage).Steps {
			if strings.Contains(runtimetest.Text(s.server.Logs(step.ID).Live), word) {
				return true
			}
		}
		return false
	}
}

func isOver(s drone.Stage) bool {
	return s.Status != drone.StatusPending && s.Status != drone.StatusRunning
}

func yaml(command string) string {
	return "clone: {disable: true}\n" + fmt.Sprintf(oneStep, "default", command)
}

func TestDaemonRunsABuildAndStops(t *testing.T) {
	server := runtimetest.NewServer(t, runtimetest.Poll(2*time.Second))
	s := startDaemon(t, server, map[string]string{"DRONE_UI_PASSWORD": "canary-ui", "DRONE_UI_USERNAME": "admin"})
	job := server.Enqueue(runtimetest.Job{Config: yaml("echo hello")})
	if stage := server.WaitStage(job.Stage, isOver); stage.Status != drone.StatusPassing {
		t.Errorf("the stage ended with %s: %s", stage.Status, stage.Error)
	}
	s.until("the runner is ready", func() bool { status, _ := s.get("/readyz"); return status == 200 })
	var ready readiness
	if _, body := s.get("/readyz"); json.Unmarshal([]byte(body), &ready) != nil || ready.Capacity != 2 || ready.Containment == "" {
		t.Errorf("/readyz says %+v", ready)
	}
	if status, _ := s.get("/healthz"); status != 200 {
		t.Errorf("/healthz answers %d", status)
	}
	s.until("the metrics count the stage", func() bool {
		_, body := s.get("/metrics")
		return strings.Contains(body, `cc_ci_runner_stages_total{status="success"} 1`)
	})
	if status, _ := s.get("/"); status != http.StatusUnauthorized {
		t.Errorf("the dashboard answers a stranger with %d", status)
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+s.bind+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth("admin", "canary-ui")
	request.Header.Set("Accept", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	var entries []struct{ Stage drone.Stage }
	if err := json.NewDecoder(response.Body).Decode(&entries); err != nil || len(entries) != 1 || entries[0].Stage.ID != job.Stage {
		t.Errorf("the dashboard lists %+v, %v", entries, err)
	}
	if err := response.Body.Close(); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 0 {
		t.Errorf("a clean stop ends with exit code %d", code)
	}
	left, err := filepath.Glob(filepath.Join(s.root, "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A runner that is told to stop while it starts leaves nothing that it has begun to make.
func TestSignalAtTheStart(t *testing.T) {
	t.Parallel()
	s := startDaemon(t, runtimetest.NewServer(t), nil)
	s.says("containment: ")
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 0 || !strings.Contains(s.text(), "stopped") {
		t.Errorf("exit code %d", code)
	}
}

func TestFirstSignalDrainsSecondCancels(t *testing.T) {
	server := runtimetest.NewServer(t, runtimetest.Poll(2*time.Second))
	s := startDaemon(t, server, nil)
	job := server.Enqueue(runtimetest.Job{Config: yaml("echo begun; sleep 1000")})
	s.until("the step runs", s.begun(job, "begun"))
	s.signal(syscall.SIGTERM)
	s.says("running builds have 1h0m0s to end")
	s.until("the runner says that it drains", func() bool {
		status, body := s.get("/readyz")
		return status == 503 && strings.Contains(body, "draining")
	})
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if stage := server.Stage(job.Stage); stage.Status != drone.StatusError || !strings.Contains(stage.Error, "stopped") {
		t.Errorf("the stage ended with %s: %s", stage.Status, stage.Error)
	}
}

func TestDrainBySIGUSR2LetsBuildsEnd(t *testing.T) {
	server := runtimetest.NewServer(t, runtimetest.Poll(2*time.Second))
	s := startDaemon(t, server, nil)
	gate := filepath.Join(sharedDir(t), "gate")
	job := server.Enqueue(runtimetest.Job{Config: yaml("echo begun; while test ! -e " + gate + "; do sleep 0.1; done")})
	s.until("the step runs", s.begun(job, "begun"))
	s.signal(syscall.SIGUSR2)
	s.says("draining")
	s.signal(syscall.SIGUSR2) // twice is harmless
	later := server.Enqueue(runtimetest.Job{Config: yaml("echo too late")})
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if stage := server.Stage(job.Stage); stage.Status != drone.StatusPassing {
		t.Errorf("the running stage ended with %s: %s", stage.Status, stage.Error)
	}
	if stage := server.Stage(later.Stage); stage.Status != drone.StatusPending || stage.Machine != "" {
		t.Errorf("a draining runner took a stage: %+v", stage)
	}
}

func TestSIGHUPChangesTheCapacity(t *testing.T) {
	server := runtimetest.NewServer(t, runtimetest.Poll(time.Second))
	s := startDaemon(t, server, map[string]string{"DRONE_RUNNER_CAPACITY": "1"})
	first := server.Enqueue(runtimetest.Job{Config: yaml("echo begun; sleep 1000")})
	s.until("the first step runs", s.begun(first, "begun"))
	second := server.Enqueue(runtimetest.Job{Config: yaml("echo second")})
	s.writeConfig(map[string]string{
		"DRONE_RPC_PROTO": server.Proto, "DRONE_RPC_HOST": server.Host, "DRONE_RPC_SECRET": server.Secret, "DRONE_RUNNER_CAPACITY": "2",
	})
	s.signal(syscall.SIGHUP)
	if stage := server.WaitStage(second.Stage, isOver); stage.Status != drone.StatusPassing {
		t.Errorf("the second stage ended with %s: %s", stage.Status, stage.Error)
	}
	s.writeConfig(map[string]string{"DRONE_RPC_HOST": ""})
	s.signal(syscall.SIGHUP)
	s.says("the old one stays")
	if server.Stage(first.Stage).Status != drone.StatusRunning {
		t.Error("a reload touched a running build")
	}
}

// Without a file there is nothing to read again, and the runner says so instead of that all is in force.
func TestSIGHUPWithoutAFile(t *testing.T) {
	t.Parallel()
	server := runtimetest.NewServer(t)
	s := &running{t: t, server: server, cmd: program(t, "daemon"), done: make(chan struct{})}
	s.cmd.Env = append(s.cmd.Env, "DRONE_RPC_PROTO=http", "DRONE_RPC_HOST="+server.Host, "DRONE_RPC_SECRET="+server.Secret,
		"DRONE_HTTP_BIND=127.0.0.1:0", "DRONE_RUNNER_ROOT="+t.TempDir(), "DRONE_RUNNER_STATE="+t.TempDir())
	s.cmd.Stdout, s.cmd.Stderr = s, s
	s.start()
	s.says("capacity 2")
	s.signal(syscall.SIGHUP)
	s.says("SIGHUP: there is no configuration file to read again")
}

func TestBusyAddresses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() }) // the test is over
	server := runtimetest.NewServer(t, runtimetest.Poll(2*time.Second))
	s := startDaemon(t, server, map[string]string{"DRONE_HTTP_BIND": taken.Addr().String()})
	if code := s.exit(); code != 1 || !strings.Contains(s.text(), "DRONE_HTTP_BIND: ") {
		t.Errorf("a configured address that is taken: exit code %d", code)
	}

	// The default may be free or taken here; taken, it is only a warning.
	if other, err := net.Listen("tcp", defaultBind); err == nil {
		t.Cleanup(func() { _ = other.Close() }) // the test is over
	}
	s = startDaemon(t, server, map[string]string{"DRONE_HTTP_BIND": defaultBind})
	s.says("is in use")
	job := server.Enqueue(runtimetest.Job{Config: yaml("echo hello")})
	server.WaitStage(job.Stage, isOver)
}

func TestTwoRunnersOnOneStateDirectory(t *testing.T) {
	server := runtimetest.NewServer(t, runtimetest.Poll(2*time.Second))
	first := startDaemon(t, server, nil)
	first.says("capacity 2")
	second := startDaemon(t, server, map[string]string{"DRONE_RUNNER_STATE": first.state, "DRONE_HTTP_BIND": first.bind})
	if code := second.exit(); code != 1 || !strings.Contains(second.text(), "another runner uses this state directory") {
		t.Errorf("exit code %d", code)
	}
	third := startDaemon(t, server, map[string]string{"DRONE_RUNNER_STATE": first.state})
	third.says("capacity 2")
}

// The list of leaks asks the server nothing, so it needs no secret; without a configuration it says where that comes from.
func TestLeaksWithoutASecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	text := "DRONE_RPC_HOST=drone.example.org\nDRONE_RUNNER_ROOT=" + t.TempDir() + "\nDRONE_RUNNER_STATE=" + t.TempDir() + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := call(t, "leaks", "--config", file, "--json"); code == 2 || !strings.HasPrefix(out, "[") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	logFile := filepath.Join(filepath.Dir(file), "log")
	if err := os.WriteFile(file, []byte(text+"DRONE_LOG_FILE="+logFile+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := call(t, "leaks", "--config", file, "--json"); code == 2 {
		t.Errorf("with a log file: exit code %d: %s", code, errs)
	}
	if _, err := os.Stat(logFile); !os.IsNotExist(err) {
		t.Errorf("the list made the daemon's log file: %v", err)
	}
	if _, errs, code := call(t, "leaks"); code != 2 || !strings.Contains(errs, "--config FILE") || strings.Contains(errs, "SECRET") {
		t.Errorf("without a configuration: exit code %d: %s", code, errs)
	}
}

// After SIGKILL, the next start ends what is left and reports the stage.
func TestRestartAfterACrash(t *testing.T) {
	server := runtimetest.NewServer(t, runtimetest.Poll(2*time.Second))
	s := startDaemon(t, server, nil)
	mark := filepath.Join(sharedDir(t), "alive")
	job := server.Enqueue(runtimetest.Job{Config: yaml("echo begun; while :; do date +%N > " + mark + "; sleep 0.05; done")})
	s.until("the step runs", s.begun(job, "begun"))
	s.signal(syscall.SIGKILL)
	<-s.done
	config := filepath.Join(s.state, "config")
	out, _, code := call(t, "leaks", "--config", config, "--json")
	var leaks []leak
	if err := json.Unmarshal([]byte(out), &leaks); err != nil || code != 1 || len(leaks) != 1 || leaks[0].Live || len(leaks[0].Items) < 2 {
		t.Errorf("leaks: exit code %d, %v\n%s", code, err, out)
	}
	again := startDaemon(t, server, map[string]string{"DRONE_RUNNER_ROOT": s.root, "DRONE_RUNNER_STATE": s.state, "DRONE_HTTP_BIND": s.bind})
	stage := server.WaitStage(job.Stage, isOver)
	if stage.Status != drone.StatusError || !strings.Contains(stage.Error, "the runner restarted while this stage ran") {
		t.Errorf("the stage ended with %s: %s", stage.Status, stage.Error)
	}
	left, err := filepath.Glob(filepath.Join(s.root, "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	before, err := os.ReadFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // a step that lives writes every 50 ms
	if after, err := os.ReadFile(mark); err != nil || string(after) != string(before) {
		t.Errorf("the step of the crashed runner still runs: %v", err)
	}
	next := server.Enqueue(runtimetest.Job{Config: yaml("echo hello")})
	if stage := server.WaitStage(next.Stage, isOver); stage.Status != drone.StatusPassing {
		t.Errorf("the next stage ended with %s: %s", stage.Status, stage.Error)
	}
	again.signal(syscall.SIGTERM)
	if code := again.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A runner that is told to stop while it removes what a crash left stops, and the next start does the rest.
func TestStopDuringRecovery(t *testing.T) {
	server := runtimetest.NewServer(t, runtimetest.Poll(2*time.Second))
	s := startDaemon(t, server, nil)
	job := server.Enqueue(runtimetest.Job{Config: yaml("trap '' TERM; echo begun; while :; do sleep 0.1; done")})
	s.until("the step runs", s.begun(job, "begun"))
	s.signal(syscall.SIGKILL)
	<-s.done
	same := map[string]string{"DRONE_RUNNER_ROOT": s.root, "DRONE_RUNNER_STATE": s.state, "DRONE_HTTP_BIND": s.bind}
	slow := maps.Clone(same)
	slow["DRONE_RUNNER_GRACE"] = "10m" // which the step makes use of
	between := startDaemon(t, server, slow)
	between.says("capacity 2")
	between.signal(syscall.SIGTERM)
	if code := between.exit(); code != 0 || !strings.Contains(between.text(), "the next start goes on with it") {
		t.Errorf("exit code %d", code)
	}
	if stage := server.Stage(job.Stage); isOver(stage) {
		t.Errorf("the stage ended with %s before its parts were known to be gone", stage.Status)
	}
	startDaemon(t, server, same)
	if stage := server.WaitStage(job.Stage, isOver); stage.Status != drone.StatusError || !strings.Contains(stage.Error, "the runner restarted") {
		t.Errorf("the stage ended with %s: %s", stage.Status, stage.Error)
	}
	if left, err := filepath.Glob(filepath.Join(s.root, "*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
