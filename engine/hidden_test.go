package engine

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHiddenSockets: where builds have no Docker, nothing answers on the host's socket, and the host keeps it. One that is
// not there does not matter.
func TestHiddenSockets(t *testing.T) {
	t.Parallel()
	// Steps have a /tmp of their own, so the socket must not lie below it.
	dir, err := os.MkdirTemp("/var/tmp", "cc-ci-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	socket := filepath.Join(dir, "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	e := newEngineAs(t, "", func(c *Config) { c.HiddenSockets = []string{filepath.Join(dir, "none.sock"), socket} })
	if !e.config.Processes.Report().PrivateMounts {
		t.Skip("builds have no mounts of their own here")
	}
	spec := newSpec(e, 1, `
		if [ -S `+socket+` ]; then echo "the socket is there"; fi
		stat -c %F `+socket)
	setUp(t, e, spec)
	var out buffer
	state, err := e.Run(t.Context(), spec, spec.Steps[0], &out)
	if err != nil || state.ExitCode != 0 || strings.TrimSpace(out.String()) != "character special file" {
		t.Errorf("the step ended with %+v, %v:\n%s", state, err, out.String())
	}
	if _, err := e.Destroy(t.Context(), spec.Build); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Type() != os.ModeSocket {
		t.Errorf("the host's socket is %v, %v", info, err)
	}
}
