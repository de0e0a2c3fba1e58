package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/process"
)

// asProgram makes the test binary the program itself.
const asProgram = "CC_CI_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if handled, code := process.Main(os.Args); handled {
		os.Exit(code)
	}
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func sprint(verb string, value any) string { return fmt.Sprintf(verb, value) }

// program is a call of the program in a process of its own.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	// Not with the test's context: its end kills, and a killed daemon leaves its builds on the host.
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = []string{asProgram + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir()}
	cmd.Dir = t.TempDir()
	return cmd
}

// call runs the program and returns what it wrote and its exit code.
func call(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := program(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pipeline.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const oneStep = "kind: pipeline\ntype: exec\nname: %s\nsteps:\n- name: only\n  commands:\n  - %s\n"

func TestCommandLine(t *testing.T) {
	good := write(t, fmt.Sprintf(oneStep, "default", "echo hello from $DRONE_STEP_NAME"))
	failing := write(t, fmt.Sprintf(oneStep, "other", "exit 3"))
	faulty := write(t, "kind: pipeline\ntype: exec\nsteps:\n- name: a\n  image: alpine\n- name: a\n")
	tests := []struct {
		name string
		args []string
		code int
		out  string
		err  string
	}{
		{"version", []string{"--version"}, 0, "cc-ci-runner dev", ""},
		{"help", []string{"--help"}, 0, "Usage: cc-ci-runner", ""},
		{"help of a command", []string{"exec", "--help"}, 0, "--secret-file", ""},
		{"unknown flag", []string{"--what"}, 2, "", "unknown flag --what"},
		{"daemon without configuration", nil, 2, "", "DRONE_RPC_HOST: is empty"},
		{"daemon with a word for a file", []string{"deamon"}, 2, "", "--help lists the commands"},
		{"daemon with a missing file", []string{"daemon", "/nonexistent"}, 2, "", "/nonexistent"},
		{"exec", []string{"exec", good}, 0, "[only:1] hello from only", ""},
		{"exec with the old order of arguments", []string{"exec", t.TempDir(), good}, 0, "hello from only", ""},
		{"exec of the only pipeline", []string{"exec", failing}, 1, "exit 3", "ended with failure; step `only` has exit code 3"},
		{"a command that does not exist", []string{"exce", good}, 2, "", "there is no command \"exce\""},
		{"version as a word", []string{"version"}, 0, "cc-ci-runner dev", ""},
		{"help of a command as words", []string{"help", "exec"}, 0, "--secret-file", ""},
		{"lint goes on after a missing file", []string{"lint", "/nonexistent.yml", faulty}, 1, faulty + ":5:", "/nonexistent.yml does not exist"},
		{"lint of nothing", []string{"lint", write(t, "kind: pipeline\ntype: docker\n")}, 0, "", "there is nothing to check"},
		{"help as a word", []string{"help"}, 0, "Usage: cc-ci-runner", ""},
		{"a bool flag that is denied", []string{"exec", "--no-repo-private", "--no-pretty", good}, 0, "hello", ""},
		{"exec of an unknown pipeline", []string{"exec", "--pipeline", "nope", good}, 1, "", "no exec pipeline is named `nope`"},
		{"exec of a missing file", []string{"exec", "/nonexistent.yml"}, 1, "", "does not exist"},
		{"exec of a faulty file", []string{"exec", faulty}, 1, "", "(image)"},
		{"lint", []string{"lint", good, failing}, 0, "", ""},
		{"lint of a faulty file", []string{"lint", good, faulty}, 1, faulty + ":5:", ""},
		{"lint without a file", []string{"lint"}, 2, "", "expected \"<file> ...\""},
		{"service without a configuration", []string{"service", "install", "--config", "/nonexistent"}, 1, "", "cannot read the configuration"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, errs, code := call(t, test.args...)
			if code != test.code || !strings.Contains(out, test.out) || !strings.Contains(errs, test.err) {
				t.Errorf("exit code %d (want %d)\nstdout (want %q):\n%s\nstderr (want %q):\n%s", code, test.code, test.out, out, test.err, errs)
			}
		})
	}
}

func TestCompilePrintsASpecWithoutSecrets(t *testing.T) {
	file := write(t, "kind: pipeline\ntype: exec\nsteps:\n- name: a\n  environment:\n    TOKEN: {from_secret: token}\n  commands: [ 'true' ]\n")
	secrets := write(t, "token=canary-value\n")
	out, errs, code := call(t, "compile", "--secret-file", secrets, "--param", "COLOUR=blue", file)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	var spec engine.Spec
	if err := json.Unmarshal([]byte(out), &spec); err != nil {
		t.Fatal(err)
	}
	if len(spec.Steps) != 1 || spec.Steps[0].Env["COLOUR"] != "blue" || len(spec.Steps[0].Secrets) != 1 {
		t.Errorf("the spec is %s", out)
	}
	if strings.Contains(out, "canary") {
		t.Error("the spec shows a secret")
	}
	if out, errs, code = call(t, "compile", file); code != 0 || !strings.Contains(out, `"name": "token"`) {
		t.Errorf("without its secret: exit code %d\n%s%s", code, out, errs)
	}
}

func TestExecWithSecretsVariablesAndParameters(t *testing.T) {
	file := write(t, "kind: pipeline\ntype: exec\nsteps:\n- name: a\n  environment:\n    TOKEN: {from_secret: token}\n  commands:\n"+
		"  - echo token=$TOKEN file=$FROM_FILE param=$COLOUR event=$DRONE_BUILD_EVENT\n")
	out, errs, code := call(t, "exec", "--secret-file", write(t, "token=canary-value\n"), "--env-file", write(t, "FROM_FILE=yes\n"),
		"--param", "COLOUR=blue", "--build-event", "cron", file)
	if want := "token=****** file=yes param=blue event=cron"; code != 0 || !strings.Contains(out, want) || strings.Contains(out, "canary") {
		t.Errorf("exit code %d, want %q in:\n%s%s", code, want, out, errs)
	}
}

// The old runner's exec exited with 0 when it was killed, and left the children running.
func TestExecEndsWithItsSignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd := program(t, "exec", write(t, fmt.Sprintf(oneStep, "default", "echo begun; sleep 1000")))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		text := readUntil(t, out, "] begun")
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the exit code is looked at below
		if code := cmd.ProcessState.ExitCode(); code != 128+int(sig) {
			t.Errorf("%v: exit code %d", sig, code)
		}
		if !strings.Contains(string(rest), "clean: nothing is left") {
			t.Errorf("%v: no teardown in:\n%s%s", sig, text, rest)
		}
	}
}

// A signal that was ignored when exec began, as SIGHUP is under nohup, does not end it.
func TestExecLeavesIgnoredSignals(t *testing.T) {
	file := filepath.Join(sharedDir(t), "go on")
	cmd := program(t, "exec", write(t, fmt.Sprintf(oneStep, "default", "echo begun; until test -e '"+file+"'; do sleep 0.05; done; echo over")))
	cmd.Args = append([]string{"sh", "-c", `trap "" HUP; exec "$0" "$@"`}, cmd.Args...)
	cmd.Path = "/bin/sh"
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	readUntil(t, out, "] begun")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(string(rest), "] over") {
		t.Errorf("%v\n%s", err, rest)
	}
}

// readUntil reads until the text has come.
func readUntil(t *testing.T, r io.Reader, want string) string {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		var b strings.Builder
		buf := make([]byte, 1024)
		for !strings.Contains(b.String(), want) {
			n, err := r.Read(buf)
			b.Write(buf[:n])
			if err != nil {
				break
			}
		}
		got <- b.String()
	}()
	select {
	case text := <-got:
		if !strings.Contains(text, want) {
			t.Fatalf("the output ended without %q:\n%s", want, text)
		}
		return text
	case <-time.After(time.Minute):
		t.Fatalf("no %q within a minute", want)
		return ""
	}
}
