//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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

// program is the program in namespaces of its own, when it is ready.
type program struct {
	ready
	*exec.Cmd
	in io.Closer
}

// serve starts the program.
func serve(t *testing.T) *program {
	t.Helper()
	if os.Getenv(swarmtest.Variable) != "1" {
		t.Skip("needs a Docker daemon: set " + swarmtest.Variable + "=1 (as root) to run it")
	}
	// The directory must have a short name, for it holds sockets.
	dir, err := os.MkdirTemp("", "")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	p := &program{Cmd: exec.Command(os.Args[0])}
	p.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+dir)
	p.Stderr = os.Stderr
	p.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS}
	p.in, err = p.StdinPipe()
	check(t, err)
	out, err := p.StdoutPipe()
	check(t, err)
	check(t, p.Start())
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(errors.Join(err, p.in.Close(), p.Wait()))
	}
	check(t, json.Unmarshal(line, &p.ready))
	return p
}

// TestServesUntilInputEnds uses the program's Swarm, and sees it go with the input.
func TestServesUntilInputEnds(t *testing.T) {
	p := serve(t)
	docker, err := client.New(client.WithHost(p.Host))
	check(t, err)
	if _, err := docker.ImageInspect(t.Context(), p.Image); err != nil {
		t.Error(err)
	}
	if _, err := docker.SwarmInspect(t.Context(), client.SwarmInspectOptions{}); err != nil {
		t.Error(err)
	}
	check(t, errors.Join(docker.Close(), p.in.Close(), p.Wait()))
	if _, err := os.Stat(filepath.Dir(p.Socket)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the daemon's directory is still there: %v", err)
	}
}

// TestDaemonEndsWithAKilledProgram kills the program, which then can end nothing itself.
func TestDaemonEndsWithAKilledProgram(t *testing.T) {
	p := serve(t)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(p.Socket), "docker.pid"))
	check(t, err)
	check(t, errors.Join(p.Process.Kill(), p.in.Close()))
	_ = p.Wait() // it was killed
	pid := strings.TrimSpace(string(text))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		line, err := os.ReadFile("/proc/" + pid + "/cmdline")
		if err != nil || !strings.Contains(string(line), p.Socket) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon lives on: ", pid)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
