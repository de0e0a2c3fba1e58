package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// The end of who reads the log does not end the daemon, and its steps see broken pipes as ever.
func TestLogIsReadNoMore(t *testing.T) {
	server := runtimetest.NewServer(t)
	s := newDaemonProgram(t, server, nil)
	read, written, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = written
	s.start()
	if line, err := bufio.NewReader(read).ReadString('\n'); err != nil || line == "" {
		t.Errorf("the daemon says %q, %v", line, err)
	}
	if err := errors.Join(read.Close(), written.Close()); err != nil {
		t.Error(err)
	}
	job := server.Enqueue(runtimetest.Job{Config: yaml("yes | head -n 1; echo end")}) // yes would complain of its pipe
	if stage := server.WaitStage(job.Stage, isOver); stage.Status != drone.StatusPassing {
		t.Errorf("the stage ended with %s: %s", stage.Status, stage.Error)
	}
	if log := runtimetest.Text(server.Logs(server.Stage(job.Stage).Steps[0].ID).Stored); strings.Contains(log, "roken pipe") {
		t.Errorf("the step's log: %s", log)
	}
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// The end of who reads the output of exec ends the build as a signal does: with a teardown.
func TestExecIsReadNoMore(t *testing.T) {
	file := write(t, fmt.Sprintf(oneStep, "default", "while echo line; do sleep 0.05; done"))
	root := t.TempDir()
	cmd := program(t, "exec", "--root", root, file)
	read, written, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = written
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(read).ReadString('\n'); err != nil {
		t.Error(err)
	}
	if err := errors.Join(read.Close(), written.Close()); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // the exit code says more
	if code := cmd.ProcessState.ExitCode(); code != 128+int(syscall.SIGPIPE) {
		t.Errorf("exit code %d", code)
	}
	if left, err := filepath.Glob(filepath.Join(root, "*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
