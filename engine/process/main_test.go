//go:build linux

package process

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary play the stub, the launcher and the misbehaving children.
func TestMain(m *testing.M) {
	// Not os.Exit: the race detector lets that take a second.
	if handled, exit := Main(os.Args); handled {
		syscall.Exit(exit)
	}
	if role := os.Getenv("CC_CI_TEST_CHILD"); role != "" {
		syscall.Exit(playChild(role))
	}
	flag.Parse()
	// Most tests wait for others most of the time.
	if err := flag.Set("test.parallel", "6"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// buffer is an output that may be written to and looked at at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// testName is a folder's name of this test's own, so that tests of several packages do not sweep each other.
func testName(t testing.TB) string {
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' || r == '=' {
			return '_'
		}
		return r
	}, t.Name())
	return "cc-ci-test-" + itoa(os.Getpid()) + "-" + name
}

// openHost opens a Host whose builds and cgroups are gone when the test is over.
func openHost(t testing.TB, cfg Config) *Host {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = testName(t)
	}
	if cfg.Grace == 0 {
		cfg.Grace = 300 * time.Millisecond
	}
	if cfg.outputGrace == 0 {
		cfg.outputGrace = 50 * time.Millisecond
	}
	h, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cleanHost(t, h) })
	return h
}

func cleanHost(t testing.TB, h *Host) {
	ctx := context.Background()
	builds, err := h.Builds(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, name := range builds {
		if _, err := h.Teardown(ctx, name); err != nil {
			t.Error(err)
		}
	}
	var folders []cgroup
	if h.tree != nil {
		folders = slices.Collect(maps.Keys(h.tree.locks)) // those that are not another Host's
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	for _, folder := range folders {
		if folder.exists() {
			t.Errorf("%s is left", folder)
		}
	}
}

// newBuild makes a build's directories and creates it.
func newBuild(t testing.TB, h *Host, b Build) Build {
	t.Helper()
	if b.Name == "" {
		b.Name = "build"
	}
	b.Root = t.TempDir()
	if err := os.Chmod(filepath.Dir(b.Root), 0o755); err != nil {
		t.Fatal(err)
	}
	b.Home, b.Workspace, b.Tmp = b.Root+"/home", b.Root+"/src", b.Root+"/tmp"
	for _, dir := range []string{b.Home, b.Workspace, b.Tmp} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Create(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return b
}

// shell is a command that a shell runs in the build's workspace.
func shell(b Build, script string) Command {
	return Command{
		Build: b.Name, Step: "step", Args: []string{"/bin/sh", "-c", script}, Dir: b.Workspace,
		Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + b.Home},
	}
}

// mustRun runs to the end and returns what was printed.
func mustRun(t testing.TB, h *Host, c Command) (Exit, string) {
	t.Helper()
	var out buffer
	c.Output = &out
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	exit, err := h.Run(ctx, c)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return exit, out.String()
}

// await waits for a condition; it fails the test if that does not come true.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}
