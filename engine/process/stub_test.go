//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A step inherits its three standard files and nothing of the machinery that started it.
func TestStepInheritsNothing(t *testing.T) {
	t.Setenv("CC_CI_TEST_CANARY", "canary-of-the-daemon")
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		b := newBuild(t, h, Build{})
		c := shell(b, "")
		c.Args = []string{"/bin/ls", "-l", "/proc/self/fd"}
		_, out := mustRun(t, h, c)
		if n := strings.Count(out, " -> "); n != 4 || !strings.Contains(out, " 0 -> /dev/null\n") || !strings.Contains(out, " 3 -> /proc/") {
			t.Errorf("open files of a step, and the directory that it reads:\n%s", out)
		}
		// Not of a shell: that blocks signals while it forks.
		c.Args = []string{"/bin/grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"}
		if _, out := mustRun(t, h, c); out != "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n" {
			t.Errorf("signals of a step:\n%s", out)
		}
		_, out = mustRun(t, h, shell(b, "cut -d' ' -f7 /proc/$$/stat; tr '\\0' '\\n' </proc/$$/environ"))
		if !strings.HasPrefix(out, "0\n") {
			t.Errorf("the step has a terminal: %s", out)
		}
		for _, word := range []string{"canary", "GOMAXPROCS"} {
			if strings.Contains(out, word) {
				t.Errorf("%s in the step's environment:\n%s", word, out)
			}
		}
	})
}

// What a step is given arrives whole, whatever is in it and however much it is.
func TestEnvironmentArrivesWhole(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		b := newBuild(t, h, Build{})
		c := shell(b, "")
		c.Args = []string{"/usr/bin/env", "-0"}
		c.Env = []string{"LINES=a\nb\r\n", "QUOTES='\"\\`$(x)", "EMPTY=", "EQUALS=a=b", "LATIN=\xe9\xff", "LD_PRELOAD=/no/such/library", "GODEBUG=x=1"}
		for i := range 300 {
			c.Env = append(c.Env, fmt.Sprintf("BIG_%d=%s", i, strings.Repeat("v", 1024)))
		}
		_, out := mustRun(t, h, c)
		want := strings.Join(append([]string{h.marker(&build{Build: b})}, c.Env...), "\x00") + "\x00"
		// The loader complains about LD_PRELOAD in the command itself, and only there.
		if i := strings.Index(out, MarkerEnv); i < 0 || out[i:] != want {
			t.Errorf("%d bytes, want %d:\n%.2000q", len(out), len(want), out)
		}
		if n := strings.Count(out, "/no/such/library"); n > 2 {
			t.Errorf("the stub was steered by the step's environment: %.2000q", out)
		}
	})
}

// Called by hand, the hidden parts say what they are, and do nothing.
func TestStubByHand(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{stubRole, launchRole} {
		cmd := exec.CommandContext(t.Context(), self, role)
		cmd.Env = []string{}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 125 || !strings.Contains(string(out), "only the runner itself can start") {
			t.Errorf("%s: %v\n%s", role, err, out)
		}
	}
	if handled, _ := Main([]string{"cc-ci-runner", "exec"}); handled {
		t.Error("an ordinary command was taken for a stub's")
	}
	if handled, _ := Main([]string{"cc-ci-runner"}); handled {
		t.Error("no command was taken for a stub's")
	}
}

// Why a step did not start is told however long it is; a PATH, which it quotes, has no limit.
func TestLongErrorArrives(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		b := newBuild(t, h, Build{})
		c := shell(b, "")
		c.Args, c.Env = []string{"no-such-program"}, []string{"PATH=" + strings.Repeat("/no/such/directory:", 10_000)}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		exit, err := h.Run(ctx, c)
		if err == nil || !strings.Contains(err.Error(), "no-such-program: not found in the step's PATH") {
			t.Errorf("%+v, %v", exit, err)
		}
	})
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	err := errors.Join(
		os.MkdirAll(first+"/tool", 0o755), // a directory is no program
		os.Mkdir(second, 0o755),
		os.WriteFile(second+"/tool", nil, 0o755),
		os.WriteFile(first+"/data", nil, 0o644),
	)
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=/nowhere", "OTHER=x", "PATH=" + first + ":" + second}
	for program, want := range map[string]string{
		"tool":     second + "/tool",
		"./tool":   "./tool",
		"/bin/any": "/bin/any",
		"data":     "",
		"missing":  "",
	} {
		if got, err := lookPath(program, env); got != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v; want %q", program, got, err, want)
		}
	}
	if got, err := lookPath("sh", nil); err != nil || !strings.HasSuffix(got, "/sh") {
		t.Errorf("without PATH: %q, %v", got, err)
	}
}

// Runs leave neither open files nor goroutines' pipes behind in the runner.
func TestRunsLeakNoFiles(t *testing.T) {
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		before := openFiles(t)
		b := newBuild(t, h, Build{})
		for range 5 {
			mustRun(t, h, shell(b, "true"))
		}
		c := shell(b, "true")
		c.Args[0] = "/no/such/program"
		for range 5 {
			if _, err := h.Run(t.Context(), c); err == nil {
				t.Error("it ran")
			}
		}
		// Nor does a build collect them until its end: a pipeline may have any number of commands.
		await(t, "the files of ended commands to be closed", func() bool { return openFiles(t) <= before })
		tearDown(t, h, b.Name)
		if after := openFiles(t); after > before {
			t.Errorf("%d open files before, %d after", before, after)
		}
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
