package swarm_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

var docker swarmtest.Lazy

func TestMain(m *testing.M) {
	code := m.Run()
	if err := docker.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop Docker:", err)
		code = 1
	}
	os.Exit(code)
}

// host is one runner on the test daemon.
type host struct {
	t      testing.TB
	d      *swarmtest.Daemon
	swarm  *swarm.Swarm
	config swarm.Config
}

// newHost opens a Swarm with the usual settings; change may alter them.
func newHost(t testing.TB, change func(*swarm.Config)) *host {
	t.Helper()
	d := docker.Need(t)
	dir := openDir(t)
	cfg := swarm.Config{SocketDir: filepath.Join(dir, "run"), LedgerDir: filepath.Join(dir, "ledger")}
	if change != nil {
		change(&cfg)
	}
	return openHost(t, d, cfg)
}

// openHost opens a Swarm on a daemon and fills in what the configuration leaves out.
func openHost(t testing.TB, d *swarmtest.Daemon, cfg swarm.Config) *host {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	cfg.Mode, cfg.Log = swarm.ModeProxy, logrus.NewEntry(log)
	if cfg.Endpoint == "" {
		cfg.Endpoint = d.Host
	}
	cfg.Networks, cfg.Mounts = []string{"proxy"}, []string{"/etc/localtime", "/etc/timezone"}
	if cfg.Policy == "" {
		cfg.Policy = proxy.Own
	}
	if cfg.TeardownTimeout == 0 {
		cfg.TeardownTimeout = time.Minute
	}
	s, err := swarm.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &host{t, d, s, cfg}
}

// job is one attached build.
type job struct {
	*host
	name, socket, workspace string
	uid                     int // who runs the docker command
}

// attach starts a build; at the test's end it is torn down and must leave nothing.
func (h *host) attach(name string, change func(*swarm.Build)) *job {
	h.t.Helper()
	root := openDir(h.t)
	b := swarm.Build{Name: name, Labels: map[string]string{"repo": "octo/recipe", "number": "7"},
		Root: root, Workspace: filepath.Join(root, "workspace"), Tmp: filepath.Join(root, "tmp")}
	for _, dir := range []string{b.Workspace, b.Tmp} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	if change != nil {
		change(&b)
	}
	check(h.t, os.Chown(b.Workspace, b.UID, b.GID))
	socket, err := h.swarm.Attach(h.t.Context(), b)
	if err != nil {
		h.t.Fatal(err)
	}
	j := &job{h, name, socket, b.Workspace, b.UID}
	h.t.Cleanup(func() {
		ctx := context.Background()
		if _, err := h.swarm.Teardown(ctx, name); err != nil {
			h.t.Error(err)
		}
		if err := h.swarm.Detach(ctx, name); err != nil {
			h.t.Error(err)
		}
	})
	return j
}

// try runs the docker command through the build's socket.
func (j *job) try(args ...string) (string, error) { return j.run("", args...) }

// run is try with something on the command's standard input.
func (j *job) run(stdin string, args ...string) (string, error) {
	return runAs(j.t, j.uid, "unix://"+j.socket, stdin, args...)
}

// openDir is a directory to which other users than root can get. Its path is short, whatever the test is called: those
// of sockets are bounded.
func openDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "swarm-")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	check(t, os.Chmod(dir, 0o755))
	return dir
}

// do is try for what must work.
func (j *job) do(args ...string) string {
	j.t.Helper()
	out, err := j.try(args...)
	if err != nil {
		j.t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// deploy deploys a stack from a compose file.
func (j *job) deploy(stack, compose string) {
	j.t.Helper()
	path := filepath.Join(j.workspace, stack+".yml")
	if err := os.WriteFile(path, []byte(compose), 0o600); err != nil {
		j.t.Fatal(err)
	}
	j.do("stack", "deploy", "--detach=true", "--resolve-image=never", "-c", path, stack)
}

// host runs the docker command past every build's socket.
func (h *host) direct(args ...string) string {
	h.t.Helper()
	out, err := run(h.t, h.d.Host, "", args...)
	if err != nil {
		h.t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// run runs the docker command.
func run(t testing.TB, endpoint, stdin string, args ...string) (string, error) {
	t.Helper()
	return runAs(t, 0, endpoint, stdin, args...)
}

// runAs runs the docker command as another user, in no other group than the user's own.
func runAs(t testing.TB, uid int, endpoint, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("docker", args...)
	if uid != 0 {
		id := uint32(uid)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	}
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+endpoint, "DOCKER_CONFIG="+openDir(t), "DOCKER_BUILDKIT=0")
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never happened: ", what)
		}
	}
}

// running waits until a service has this many running tasks.
func (h *host) running(service string, n int) {
	h.t.Helper()
	eventually(h.t, service+" runs", func() bool {
		r, err := h.d.Client.TaskList(h.t.Context(), client.TaskListOptions{Filters: client.Filters{}.Add("service", service)})
		if err != nil {
			return false
		}
		up := 0
		for _, task := range r.Items {
			if task.Status.State == "running" {
				up++
			}
		}
		return up == n
	})
}

// teardown tears a build down and fails the test unless it is clean afterwards.
func (j *job) teardown() []leftover.Item {
	j.t.Helper()
	removed, err := j.swarm.Teardown(j.t.Context(), j.name)
	if err != nil {
		j.t.Fatal("teardown: ", err)
	}
	left, err := j.swarm.Remaining(j.t.Context(), j.name)
	if err != nil || len(left) > 0 {
		j.t.Fatal("after teardown: ", left, err)
	}
	return removed
}

// quiet waits until services that were removed past the sockets are gone with their tasks and containers.
func (h *host) quiet() {
	h.t.Helper()
	eventually(h.t, "no task of a removed service is left", func() bool {
		services := h.direct("service", "ls", "-q")
		tasks, err := h.d.Client.TaskList(h.t.Context(), client.TaskListOptions{})
		return err == nil && (services != "" || len(tasks.Items) == 0 &&
			h.direct("ps", "-aq", "--filter", "label=com.docker.swarm.task") == "")
	})
}

// objects lists every object of the daemon as "kind name", except for what each Swarm has.
func (h *host) objects() map[string]bool {
	h.t.Helper()
	out, err := h.d.Objects(h.t.Context())
	if err != nil {
		h.t.Fatal("list: ", err)
	}
	return out
}

// census counts every object of the daemon by kind, once nothing is going on any more.
func (h *host) census() map[string]int {
	h.t.Helper()
	h.quiet()
	out := map[string]int{}
	for key := range h.objects() {
		out[kindOf(key)]++
	}
	return out
}

// kindOf is the kind of one of objects' keys. Anonymous volumes are a kind of their own: no label can mark them.
func kindOf(key string) string {
	kind, name, _ := strings.Cut(key, " ")
	if kind == "volume" && proxy.Anonymous(name) {
		return "anonymous volume"
	}
	return kind
}

// write writes a file into the workspace.
func (j *job) write(name, text string) {
	j.t.Helper()
	if err := os.WriteFile(filepath.Join(j.workspace, name), []byte(text), 0o644); err != nil {
		j.t.Fatal(err)
	}
}
