//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What a run of exec left that was killed is found by the daemon's configuration; one that runs is not touched.
func TestLeaksOfExec(t *testing.T) {
	root, shared := t.TempDir(), sharedDir(t)
	config := write(t, "DRONE_RPC_HOST=127.0.0.1:1\nDRONE_RUNNER_STATE="+t.TempDir()+"\nDRONE_RUNNER_ROOT="+root+
		"\nDRONE_HTTP_BIND="+freeAddress(t)+"\n")
	start := func(name string) (*exec.Cmd, string) {
		alive := filepath.Join(shared, name)
		cmd := program(t, "exec", root, write(t, fmt.Sprintf(oneStep, "default", "setsid -w sh -c 'echo begun; while :; do touch "+alive+"; sleep 0.05; done'")))
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		readUntil(t, out, "] begun")
		return cmd, alive
	}
	killed, left := start("killed")
	running, kept := start("running")
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait() // it was killed
	out, errs, code := call(t, "leaks", "--config", config)
	if code != 1 || !strings.Contains(out, "left     process") || !strings.Contains(out, "running  process") || !strings.Contains(errs, "1 left behind") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	if out, errs, code = call(t, "leaks", "--config", config, "--remove", "--yes"); code != 0 || !strings.Contains(out, "clean: nothing is left") {
		t.Errorf("removing: exit code %d\n%s%s", code, out, errs)
	}
	if comesBack(left) {
		t.Error("what the killed one left still runs")
	}
	if !comesBack(kept) {
		t.Error("what the running one started was ended")
	}
	if err := running.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = running.Wait() // its exit code is another test's
	if dirs := cgroups(t, execName+strconv.Itoa(killed.Process.Pid)); len(dirs) > 0 {
		t.Errorf("there is still %v", dirs)
	}
}

// comesBack removes a file that a living process makes every 50 ms, and waits for it.
func comesBack(path string) bool {
	_ = os.Remove(path) // it may not have been made yet
	for range 40 {
		if _, err := os.Stat(path); err == nil {
			return true
		}
		time.Sleep(50 * time.Millisecond)
	}
	return false
}
