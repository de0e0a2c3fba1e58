//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// asProgram makes this test binary the program.
const asProgram = "CC_CI_SWARMTEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestServesUntilInputEnds starts the program in namespaces of its own, uses the Swarm, and sees it go with the input.
func TestServesUntilInputEnds(t *testing.T) {
	if os.Getenv(swarmtest.Variable) != "1" {
		t.Skip("needs a Docker daemon: set " + swarmtest.Variable + "=1 (as root) to run it")
	}
	// In namespaces of its own it need not wait for others' daemons, whose lock is in the common directory. Its own
	// must have a short name, for it holds sockets.
	dir, err := os.MkdirTemp("", "")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS}
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(errors.Join(err, in.Close(), cmd.Wait()))
	}
	var got ready
	check(t, json.Unmarshal(line, &got))
	docker, err := client.New(client.WithHost(got.Host))
	check(t, err)
	if _, err := docker.ImageInspect(t.Context(), got.Image); err != nil {
		t.Error(err)
	}
	if _, err := docker.SwarmInspect(t.Context(), client.SwarmInspectOptions{}); err != nil {
		t.Error(err)
	}
	check(t, errors.Join(docker.Close(), in.Close(), cmd.Wait()))
	if _, err := os.Stat(filepath.Dir(got.Socket)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the daemon's directory is still there: %v", err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
