package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// lateDocker is a healthy Docker daemon that has nothing but these secrets, and keeps them; it listens from the moment it is
// started.
func lateDocker(t *testing.T, socket string, secrets ...any) {
	t.Helper()
	answers := map[string]any{
		"/info":           map[string]any{"Swarm": map[string]any{"LocalNodeState": "active", "ControlAvailable": true}},
		"/_ping":          "OK",
		"/volumes":        map[string]any{"Volumes": []any{}},
		"/networks/proxy": map[string]any{"Name": "proxy"},
	}
	for _, list := range []string{"services", "tasks", "secrets", "configs", "networks", "nodes", "containers/json", "images/json"} {
		answers["/"+list] = []any{}
	}
	if len(secrets) > 0 {
		answers["/secrets"] = secrets
	}
	version := regexp.MustCompile(`^/v[0-9.]+`)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		answer, ok := answers[version.ReplaceAllString(r.URL.Path, "")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = map[string]string{"message": "no such thing: " + r.URL.Path}
		}
		_ = json.NewEncoder(w).Encode(answer) // the daemon sees what it gets
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
}

// A runner that was told to use Docker waits for it, says so, and then removes what an earlier run left there.
func TestWaitsForDocker(t *testing.T) {
	dir := sharedDir(t)
	socket := filepath.Join(dir, "docker.sock")
	server := runtimetest.NewServer(t, runtimetest.Poll(time.Second))
	state := t.TempDir()
	s := startDaemon(t, server, map[string]string{"DRONE_RUNNER_DOCKER": "proxy", "DRONE_RUNNER_DOCKER_ENDPOINT": "unix://" + socket,
		"DRONE_RUNNER_STATE": state})
	job := server.Enqueue(runtimetest.Job{Config: yaml("echo socket $DOCKER_HOST")})
	s.until("the runner says what it waits for", func() bool {
		status, body := s.get("/readyz")
		return status == 503 && strings.Contains(body, "Docker does not answer at unix://"+socket)
	})
	s.says("no stage is taken for now: Docker does not answer")
	if status := server.Stage(job.Stage).Status; status != drone.StatusPending {
		t.Errorf("the stage is %s", status)
	}
	places, err := filepath.Glob(filepath.Join(state, "*", "docker"))
	if err != nil || len(places) > 1 {
		t.Fatal(places, err)
	}
	if len(places) == 0 {
		made, err := filepath.Glob(filepath.Join(state, "*"))
		if err != nil || len(made) == 0 {
			t.Fatal(made, err)
		}
		places = []string{filepath.Join(made[0], "docker")}
		if err := os.Mkdir(places[0], 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ledger := filepath.Join(places[0], "cc-ci-0123abcd-7.jsonl")
	if err := os.WriteFile(ledger, []byte(`{"build":"cc-ci-0123abcd-7","started":"2020-01-01T00:00:00Z"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lateDocker(t, socket)
	if stage := server.WaitStage(job.Stage, isOver); stage.Status != drone.StatusPassing {
		t.Errorf("the stage ended with %s: %s", stage.Status, stage.Error)
	}
	s.until("the earlier build's ledger is gone", func() bool { _, err := os.Stat(ledger); return os.IsNotExist(err) })
	if status, body := s.get("/readyz"); status != 200 {
		t.Errorf("/readyz: %d %s", status, body)
	}
}

// A runner that is told to stop while it removes what an app left does not wait for Docker to let go of it.
func TestStopDuringTheSweepOfApps(t *testing.T) {
	if err := syscall.Access(appLockDir, 2); err != nil { // W_OK: an app whose lock cannot be had counts as live
		t.Skipf("%s: %v", appLockDir, err)
	}
	socket := filepath.Join(sharedDir(t), "docker.sock")
	app := fmt.Sprintf("stop-%06x", os.Getpid()&0xffffff)
	lateDocker(t, socket, map[string]any{"ID": "1", "Spec": map[string]any{"Name": app + "_ci_example_org_pw_v1"}})
	t.Cleanup(func() { _ = os.Remove(appLockDir + "/cc-ci-app-" + app + ".ci.example.org.lock") }) // made when the app is removed
	server := runtimetest.NewServer(t, runtimetest.Poll(time.Second))
	s := startDaemon(t, server, map[string]string{"DRONE_RUNNER_DOCKER": "proxy", "DRONE_RUNNER_DOCKER_ENDPOINT": "unix://" + socket,
		"DRONE_RUNNER_APP_PATTERN": `^stop-[0-9a-f]{6}\.ci\.example\.org$`, "DRONE_RUNNER_TEARDOWN_TIMEOUT": "10m"})
	s.says("capacity 2")
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 0 || !strings.Contains(s.text(), "the next start goes on with it") {
		t.Errorf("exit code %d", code)
	}
}
