package swarm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTry leaves a node alone for a while when it does not answer, but not when a caller gave up: what one build's
// teardown had no time for says nothing to the next build.
func TestTry(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	away := errors.New("no route to host")
	for _, c := range []struct {
		name  string
		first func(*node) error
		again bool // whether the second look takes place
	}{
		{"the caller gave up", func(n *node) error { return n.try(over, func(ctx context.Context) error { return ctx.Err() }) }, true},
		{"no answer", func(n *node) error { return n.try(t.Context(), func(context.Context) error { return away }) }, false},
		{"too slow", func(n *node) error {
			n.timeout = time.Millisecond
			return n.try(t.Context(), func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			})
		}, false},
	} {
		n := &node{timeout: time.Minute}
		if err := c.first(n); err == nil {
			t.Errorf("%s: the first look has no error", c.name)
		}
		looked := false
		err := n.try(t.Context(), func(context.Context) error {
			looked = true
			return nil
		})
		if looked != c.again || (err == nil) != c.again {
			t.Errorf("%s: the next look: %v, %v", c.name, looked, err)
		}
	}
}

// TestCloseSSH closes a connection whose ssh has left a process behind that keeps its output open.
func TestCloseSSH(t *testing.T) {
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nsleep 600 &\necho $! >%[1]s/new && mv %[1]s/new %[1]s/pid\nexec cat\n", dir)
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	dial, err := sshDialer("ssh://node")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	for deadline := time.Now().Add(30 * time.Second); pid == 0; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		if err != nil && time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	})
	closed := make(chan error, 1)
	go func() { closed <- conn.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the connection does not close while another process has its output")
	}
}
