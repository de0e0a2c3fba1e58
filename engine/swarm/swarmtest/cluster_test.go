//go:build linux

package swarmtest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// asVictim makes this test binary a process that is killed while it holds a guard.
const asVictim = "CC_CI_SWARMTEST_GUARDED"

func TestMain(m *testing.M) {
	if file := os.Getenv(asVictim); file != "" {
		_, err := startGuard([]string{"false", "rm " + file})
		fmt.Println("ready", err)
		_, _ = io.Copy(io.Discard, os.Stdin) // it never ends
		return
	}
	os.Exit(m.Run())
}

// TestGuardOutlivesItsTests kills the process that a guard cleans up for.
func TestGuardOutlivesItsTests(t *testing.T) {
	file := filepath.Join(t.TempDir(), "left")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asVictim+"="+file)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready <nil>\n" {
		t.Fatal(line, err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error("the guard did not wait: ", err)
	}
	if err := errors.Join(cmd.Process.Kill(), in.Close()); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the guard did not clean up")
		}
	}
}
