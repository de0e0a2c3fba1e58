package swarm_test

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// TestCLI goes through what people do with the docker command, through a build's socket under the policy own.
func TestCLI(t *testing.T) {
	h := newHost(t, nil)
	j := h.attach("cc-ci-test-cli", nil)
	j.do("run", "-d", "--name", "box", swarmtest.Image)
	checks := map[string]func(*testing.T, *job){
		"version": func(t *testing.T, j *job) { want(t, j, "20", "version", "--format", "{{.Server.Version}}") },
		"info":    func(t *testing.T, j *job) { want(t, j, "active", "info", "--format", "{{.Swarm.LocalNodeState}}") },
		"run":     func(t *testing.T, j *job) { want(t, j, "hello", "run", "--rm", swarmtest.Image, "echo", "hello") },
		"exit code of run": func(t *testing.T, j *job) {
			exitCode(t, j, 3, "run", "--rm", swarmtest.Image, "sh", "-c", "exit 3")
		},
		"run -i ends with its input": func(t *testing.T, j *job) {
			wantInput(t, j, "a line\n", "a line", "run", "-i", "--rm", swarmtest.Image, "cat")
		},
		"20 MB through run -i": func(t *testing.T, j *job) {
			wantInput(t, j, strings.Repeat("0123456789abcde\n", 20<<16), "20971520", "run", "-i", "--rm", swarmtest.Image, "wc", "-c")
		},
		"run -it":           func(t *testing.T, j *job) { wantTTY(t, j, "run", "-it", "--rm", swarmtest.Image, "tty") },
		"exec":              func(t *testing.T, j *job) { want(t, j, "in", "exec", "box", "echo", "in") },
		"exec -i":           func(t *testing.T, j *job) { wantInput(t, j, "piped", "piped", "exec", "-i", "box", "cat") },
		"exec -it":          func(t *testing.T, j *job) { wantTTY(t, j, "exec", "-it", "box", "tty") },
		"exit code of exec": func(t *testing.T, j *job) { exitCode(t, j, 4, "exec", "box", "sh", "-c", "exit 4") },
		"logs -f": func(t *testing.T, j *job) {
			id := j.do("run", "-d", swarmtest.Image, "sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.1; done")
			want(t, j, "line 3", "logs", "-f", id)
		},
		"attach": func(t *testing.T, j *job) {
			id := j.do("create", "-i", swarmtest.Image, "sh", "-c", "read x; echo got $x")
			wantInput(t, j, "word\n", "got word", "start", "-ai", id)
		},
		"events":    checkEvents,
		"stats":     func(t *testing.T, j *job) { want(t, j, "box", "stats", "--no-stream", "--format", "{{.Name}}", "box") },
		"top":       func(t *testing.T, j *job) { want(t, j, "sleep 1", "top", "box") },
		"wait":      checkWait,
		"cp":        checkCopy,
		"import":    checkImport,
		"commit":    checkCommit,
		"save load": checkSaveLoad,
		"build":     checkBuild,
		"BuildKit":  checkBuildKit,
		"compose":   checkCompose,
		"volume":    checkVolume,
		"network, secret, config": func(t *testing.T, j *job) {
			j.do("network", "create", "-d", "overlay", "--attachable", "clinet")
			wantInput(t, j, "s3cret", "", "secret", "create", "clisecret", "-")
			wantInput(t, j, "conf", "", "config", "create", "cliconfig", "-")
			want(t, j, "clisecret", "secret", "ls")
			want(t, j, "cliconfig", "config", "ls")
			want(t, j, "clinet", "network", "ls")
		},
		"service": checkService,
		"stack":   checkStack,
		"prune": func(t *testing.T, j *job) {
			j.do("create", "--name", "stale", swarmtest.Image)
			j.do("system", "prune", "-f", "--volumes")
			want(t, j, "box", "ps", "-a", "--format", "{{.Names}}")
			if strings.Contains(j.do("ps", "-a", "--format", "{{.Names}}"), "stale") {
				t.Error("prune left a stopped container of the build")
			}
		},
	}
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		t.Run(name, func(t *testing.T) { checks[name](t, j.in(t)) })
	}
	h.do(t, j)
}

// do ends the test with a teardown, which must find everything that the checks left.
func (h *host) do(t *testing.T, j *job) {
	t.Helper()
	if removed := j.teardown(); len(removed) < 10 {
		t.Errorf("the checks left only %v", removed)
	}
}

// in is the job for a subtest.
func (j *job) in(t *testing.T) *job {
	sub, h := *j, *j.host
	h.t, sub.host = t, &h
	return &sub
}

// want runs a command and looks for a text in its output.
func want(t testing.TB, j *job, text string, args ...string) {
	t.Helper()
	if out := j.do(args...); !strings.Contains(out, text) {
		t.Errorf("docker %s: %q, want %q in it", strings.Join(args, " "), out, text)
	}
}

// wantInput is want for a command that reads.
func wantInput(t testing.TB, j *job, input, text string, args ...string) {
	t.Helper()
	out, err := j.run(input, args...)
	if err != nil || !strings.Contains(out, text) {
		t.Errorf("docker %s: %v, %q, want %q in it", strings.Join(args, " "), err, out, text)
	}
}

// exitCode runs a command that fails in a way of its own.
func exitCode(t *testing.T, j *job, code int, args ...string) {
	t.Helper()
	_, err := j.try(args...)
	exit, ok := err.(*exec.ExitError)
	if !ok || exit.ExitCode() != code {
		t.Errorf("docker %s: %v, want exit code %d", strings.Join(args, " "), err, code)
	}
}

// wantTTY runs a command under a terminal.
func wantTTY(t *testing.T, j *job, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "script", "-qec", "docker "+strings.Join(args, " "), "/dev/null")
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+j.socket, "DOCKER_CONFIG="+t.TempDir(), "TERM=dumb")
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("/dev/pts/")) {
		t.Errorf("docker %s: %v, %q", strings.Join(args, " "), err, out)
	}
}

func checkEvents(t *testing.T, j *job) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", "events", "--format", "{{.Type}} {{.Action}} {{.Actor.ID}}")
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+j.socket, "DOCKER_CONFIG="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	made := make(chan string, 1)
	go func() {
		buf, seen := make([]byte, 4096), ""
		for !strings.Contains(seen, "last-volume") {
			n, err := out.Read(buf)
			seen += string(buf[:n])
			if err != nil {
				break
			}
		}
		made <- seen
	}()
	// Docker says nothing when it begins to listen, so both are made until they are seen.
	for i := 0; ; i++ {
		j.direct("volume", "create", "foreign-volume")
		j.direct("volume", "rm", "foreign-volume")
		j.do("volume", "create", "last-volume")
		j.do("volume", "rm", "last-volume")
		select {
		case seen := <-made:
			if strings.Contains(seen, "foreign-volume") || !strings.Contains(seen, "last-volume") {
				t.Errorf("the build saw %q", seen)
			}
			cancel()
			_ = cmd.Wait() // it was killed
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func checkWait(t *testing.T, j *job) {
	id := j.do("run", "-d", swarmtest.Image, "sh", "-c", "exit 5")
	want(t, j, "5", "wait", id)
}

func checkCopy(t *testing.T, j *job) {
	j.write("in.txt", "copied")
	j.do("cp", filepath.Join(j.workspace, "in.txt"), "box:/tmp/in.txt")
	want(t, j, "copied", "exec", "box", "cat", "/tmp/in.txt")
	j.do("cp", "box:/tmp/in.txt", filepath.Join(j.workspace, "out.txt"))
	if b, err := os.ReadFile(filepath.Join(j.workspace, "out.txt")); err != nil || string(b) != "copied" {
		t.Errorf("copied back %q, %v", b, err)
	}
}

func checkImport(t *testing.T, j *job) {
	data, err := swarmtest.RootFS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantInput(t, j, string(data), "sha256:", "import", "--change", "LABEL a=b", "-", "imported:1")
	want(t, j, j.name, "image", "inspect", "--format", "{{json .Config.Labels}}", "imported:1")
	want(t, j, `"a":"b"`, "image", "inspect", "--format", "{{json .Config.Labels}}", "imported:1")
}

func checkCommit(t *testing.T, j *job) {
	j.do("commit", "box", "committed:1")
	want(t, j, j.name, "image", "inspect", "--format", "{{json .Config.Labels}}", "committed:1")
}

func checkSaveLoad(t *testing.T, j *job) {
	j.do("commit", "box", "saved:1")
	path := filepath.Join(j.workspace, "image.tar")
	j.do("save", "-o", path, "saved:1")
	j.do("rmi", "saved:1")
	want(t, j, "saved:1", "load", "-i", path)
	j.do("run", "--rm", "saved:1", "true")
}

func checkBuild(t *testing.T, j *job) {
	j.write("Dockerfile", "FROM "+swarmtest.Image+"\nRUN echo built > /built\nLABEL x=y\n")
	j.do("build", "-t", "built:1", j.workspace)
	want(t, j, "built", "run", "--rm", "built:1", "cat", "/built")
	want(t, j, j.name, "image", "inspect", "--format", "{{json .Config.Labels}}", "built:1")
}

// checkBuildKit needs a docker command that has BuildKit built in; newer ones speak to it by a plugin, over a call that
// the socket refuses.
func checkBuildKit(t *testing.T, j *job) {
	const debian = "/usr/bin/docker"
	if out, err := exec.Command(debian, "--version").Output(); err != nil || !bytes.Contains(out, []byte("version 20.")) {
		t.Skip("needs docker 20.10 as ", debian)
	}
	j.write("Dockerfile", "FROM "+swarmtest.Image+"\nRUN echo kit > /kit\nCOPY Dockerfile /d\n")
	cmd := exec.Command(debian, "build", "-t", "kit:1", j.workspace)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+j.socket, "DOCKER_CONFIG="+t.TempDir(), "DOCKER_BUILDKIT=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v, %s", err, out)
	}
	want(t, j, j.name, "image", "inspect", "--format", "{{json .Config.Labels}}", "kit:1")
}

func checkCompose(t *testing.T, j *job) {
	if _, err := exec.LookPath("docker-compose"); err != nil {
		t.Skip("needs docker-compose")
	}
	j.write("docker-compose.yml", `
version: "3"
services:
  web:
    image: `+swarmtest.Image+`
    volumes: [".:/w", "data:/data"]
    networks: [default]
volumes: {data: {}}
`)
	for _, args := range [][]string{{"up", "-d"}, {"exec", "-T", "web", "ls", "/w/docker-compose.yml"}, {"up", "-d"},
		{"run", "--rm", "web", "true"}, {"down", "-t", "1"}} {
		cmd := exec.Command("docker-compose", args...)
		cmd.Dir = j.workspace
		cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+j.socket, "DOCKER_CONFIG="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("docker-compose %v: %v, %s", args, err, out)
		}
	}
}

func checkVolume(t *testing.T, j *job) {
	j.do("volume", "create", "clivol")
	j.do("run", "--rm", "-v", "clivol:/v", "-v", "adhoc:/w", "--mount", "type=volume,source=third,target=/y", swarmtest.Image, "true")
	for _, name := range []string{"clivol", "adhoc", "third"} {
		want(t, j, j.name, "volume", "inspect", "--format", "{{json .Labels}}", name)
	}
	j.write("seen", "from the host")
	want(t, j, "from the host", "run", "--rm", "-v", j.workspace+":/w", swarmtest.Image, "cat", "/w/seen")
	want(t, j, "from the host", "run", "--rm", "--mount", "type=bind,source="+j.workspace+"/seen,target=/s", swarmtest.Image, "cat", "/s")
}

func checkService(t *testing.T, j *job) {
	j.do("service", "create", "--detach", "--name", "svc", swarmtest.Image, "sh", "-c", "echo up; sleep 1000")
	j.running("svc", 1)
	eventually(t, "service logs", func() bool { return strings.Contains(j.do("service", "logs", "svc"), "up") })
	j.do("service", "scale", "--detach", "svc=2")
	j.running("svc", 2)
	j.do("service", "update", "--detach", "--label-add", "extra=1", "svc")
	want(t, j, j.name, "service", "inspect", "--format", "{{json .Spec.Labels}}", "svc")
	want(t, j, "svc.1", "service", "ps", "svc")
	want(t, j, "svc", "service", "ls")
	j.do("service", "rm", "svc")
}

func checkStack(t *testing.T, j *job) {
	j.write("key", "k")
	j.deploy("cli", compose)
	j.running("cli_app", 1)
	before := j.do("stack", "ps", "-q", "cli")
	j.deploy("cli", compose)
	j.do("stack", "deploy", "--detach=true", "--resolve-image=always", "-c", filepath.Join(j.workspace, "cli.yml"), "cli")
	if after := j.do("stack", "ps", "-q", "cli"); after != before {
		t.Errorf("a second deploy restarted tasks: %q, then %q", before, after)
	}
	j.do("stack", "rm", "cli")
}
