package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// stored is what the server has of the log of a step, once the stage is over.
func (s *running) stored(job runtimetest.Enqueued, step string) string {
	s.t.Helper()
	s.server.WaitStage(job.Stage, isOver)
	found, ok := s.server.Step(job.Stage, step)
	if !ok {
		s.t.Fatalf("there is no step %s", step)
	}
	return runtimetest.Text(s.server.Logs(found.ID).Stored)
}

// A step's log ends with what the step left running and what it used, and the metrics count the latter.
func TestUsageAndLeftoversAreShown(t *testing.T) {
	t.Parallel()
	server := runtimetest.NewServer(t)
	s := startDaemon(t, server, nil)
	job := server.Enqueue(runtimetest.Job{Config: yaml("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 1000 >/dev/null 2>&1 &")})
	log := s.stored(job, "only")
	if !regexp.MustCompile(`(?s)still running: \d+ sleep, running for .*\nused \d+\.\d s of CPU, [^\n]* of memory at the peak\n$`).MatchString(log) {
		t.Errorf("log: %q", log)
	}
	s.until("the metrics count the CPU's time", func() bool {
		_, body := s.get("/metrics")
		return regexp.MustCompile(`(?m)^cc_ci_runner_step_cpu_seconds_total 0*[.0-9]*[1-9]`).MatchString(body) &&
			strings.Contains(body, "cc_ci_runner_step_peak_memory_bytes_count")
	})
}

// Each limit ends the step that runs into it, and the step says which it was. SIGHUP brings limits into force.
func TestLimitsEndSteps(t *testing.T) {
	t.Parallel()
	server := runtimetest.NewServer(t)
	s := startDaemon(t, server, map[string]string{"DRONE_RUNNER_STEP_TIMEOUT": "1s"})
	run := func(command string) string {
		return s.stored(server.Enqueue(runtimetest.Job{Config: yaml(command)}), "only")
	}
	if log := run("sleep 1000"); !strings.Contains(log, "ended: timeout, exit code 143\n") {
		t.Errorf("log of a step that is out of time: %q", log)
	}
	s.writeConfig(map[string]string{
		"DRONE_RPC_PROTO": server.Proto, "DRONE_RPC_HOST": server.Host, "DRONE_RPC_SECRET": server.Secret,
		"DRONE_RUNNER_MEMORY": "64MiB", "DRONE_RUNNER_DISK": "1MiB",
	})
	s.signal(syscall.SIGHUP)
	s.says("SIGHUP: capacity")
	if log := run("head -c 3000000 /dev/zero >big; sleep 1000"); !strings.Contains(log, "ended: disk limit, exit code 143\n") {
		t.Errorf("log of a step that fills the disk: %q", log)
	}
	if strings.Contains(s.text(), "memory limit is set but cannot be enforced") {
		return
	}
	if log := run("head -c 500000000 /dev/zero | tail -c 400000000 >/dev/null"); !strings.Contains(log, "ended: out of memory, exit code 137\n") {
		t.Errorf("log of a step that is out of memory: %q", log)
	}
}

// What a repository's pipelines leave running is reported and stays, if a pattern of DRONE_RUNNER_KEEP names it.
func TestKeptRepositories(t *testing.T) {
	t.Parallel()
	server := runtimetest.NewServer(t)
	s := startDaemon(t, server, map[string]string{"DRONE_RUNNER_KEEP": "nobody/*, acme/deploy-*"})
	mark := filepath.Join(sharedDir(t), "pid")
	for repo, kept := range map[string]bool{"acme/deploy-web": true, "acme/web": false} {
		job := server.Enqueue(runtimetest.Job{
			Repo: drone.Repo{Slug: repo}, Config: yaml(fmt.Sprintf("setsid sleep 1000 >/dev/null 2>&1 & echo $! >%s", mark)),
		})
		log := s.stored(job, "teardown")
		text, err := os.ReadFile(mark)
		if err != nil {
			t.Fatal(err)
		}
		var pid int
		if _, err := fmt.Sscan(string(text), &pid); err != nil {
			t.Fatal(err)
		}
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		alive := err == nil && len(args) > 0 // a dead one that nobody has waited for has none
		if alive != kept || strings.Contains(log, fmt.Sprintf("kept (DRONE_RUNNER_KEEP): process %d", pid)) != kept {
			t.Errorf("%s: process %d is alive: %t, log: %q", repo, pid, alive, log)
		}
		if alive {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
	}
}
