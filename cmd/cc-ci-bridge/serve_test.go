package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
)

// mainEnv makes the test binary the program.
const mainEnv = "CC_CI_TEST_BRIDGE_MAIN"

const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) == "" {
		os.Exit(m.Run())
	}
	if os.Getenv("LISTEN_PID") == "self" { // who starts the program cannot know its number
		_ = os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid())) // a number is a valid value
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(map[bool]int{true: 2, false: 1}[errors.As(err, new(errConfig))])
	}
	os.Exit(0)
}

// output collects what a process writes.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// daemon is the program as a process, between a small Gitea and a small Drone.
type daemon struct {
	testing.TB
	gitea  *bridgetest.Gitea
	drone  *bridgetest.Drone
	state  string
	env    []string
	cmd    *exec.Cmd
	out    *output
	hook   string
	status string
}

func newDaemon(t testing.TB, env ...string) *daemon {
	d := &daemon{TB: t, gitea: bridgetest.NewGitea(t), drone: bridgetest.NewDrone(t, "ci/tests"), state: t.TempDir()}
	for _, pair := range append([]string{
		"LISTEN=127.0.0.1:0", "STATUS_LISTEN=127.0.0.1:0", "STATE_DIR=" + d.state, "GITEA_URL=" + d.gitea.URL, "DRONE_URL=" + d.drone.URL,
		"GITEA_TOKEN=" + d.gitea.Token, "DRONE_TOKEN=" + d.drone.Token, "HOOK_SECRETS=" + bridgetest.Secret,
		"CI_REPO=ci/tests", "REPOS=" + bridgetest.Owner + "/" + bridgetest.Name, "POLL=10ms", "QUIET=0s",
	}, env...) {
		d.env = append(d.env, prefix+pair)
	}
	return d
}

// tool runs a command to its end and returns what it wrote and its exit code.
func (d *daemon) tool(args ...string) (string, int) {
	d.Helper()
	cmd := d.command(args...)
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		d.Fatal(err)
	}
	return d.out.String(), cmd.ProcessState.ExitCode()
}

func (d *daemon) command(args ...string) *exec.Cmd {
	d.Helper()
	self, err := os.Executable()
	if err != nil {
		d.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	d.out = &output{}
	cmd.Env, cmd.Stdout, cmd.Stderr = append([]string{mainEnv + "=1"}, d.env...), d.out, d.out
	return cmd
}

var upPattern = regexp.MustCompile(`msg="the bridge is up" listen="([^"]+)"(?: status="([^"]+)")?`)

// start runs the daemon until it is ready; sockets are passed as systemd does.
func (d *daemon) start(sockets ...*os.File) {
	d.Helper()
	d.cmd = d.command()
	if len(sockets) > 0 {
		d.cmd.ExtraFiles = sockets
		d.cmd.Env = append(d.cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_PID=self")
	}
	if err := d.cmd.Start(); err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			_ = d.cmd.Process.Kill() // the test has failed
			_ = d.cmd.Wait()
		}
		if d.Failed() {
			d.Logf("the bridge wrote:\n%s", d.out)
		}
	})
	d.until("the bridge is ready", func() bool {
		up := upPattern.FindStringSubmatch(d.out.String())
		if up == nil {
			return false
		}
		d.hook, d.status = "http://"+up[1], "http://"+up[2]
		code, _ := d.get(d.status + "/readyz")
		return code == 200
	})
}

// stop sends SIGTERM; the exit code must be 0.
func (d *daemon) stop() {
	d.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		d.Fatalf("after SIGTERM: %v", err)
	}
}

func (d *daemon) get(url string) (int, string) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, ""
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(body)
}

func (d *daemon) until(what string, ok func() bool) {
	d.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			d.Fatalf("waited in vain until %s\n%s", what, d.out)
		}
	}
}

// TestServe walks through a day of the daemon: a run, a stop in the middle of one, and its end after the next start.
func TestServe(t *testing.T) {
	d := newDaemon(t)
	d.start()
	_, body := d.gitea.Comment("wim", 1, "!testme")
	if code, err := bridgetest.Send(d.hook+"/hook", body); code != 202 || err != nil {
		t.Fatalf("hook answered %d: %v", code, err)
	}
	d.until("the build is there", func() bool { return len(d.drone.Builds()) == 1 })
	d.drone.Set(1, "running")
	d.until("the reply says running", func() bool {
		replies := d.gitea.Replies(1)
		return len(replies) == 1 && strings.Contains(replies[0].Body, "running")
	})
	if code, text := d.get(d.status + "/metrics"); code != 200 || !strings.Contains(text, "cc_ci_bridge_requests_live 1") || !strings.Contains(text, "process_resident_memory_bytes") {
		t.Errorf("metrics answered %d:\n%s", code, text)
	}
	if code, text := d.get(d.status + "/healthz"); code != 200 || text != "ok\n" {
		t.Errorf("healthz answered %d %q", code, text)
	}
	if code, _ := d.get(d.hook + "/metrics"); code != 404 {
		t.Errorf("the hooks' address shows metrics: %d", code)
	}
	d.stop()
	d.drone.Set(1, "success")
	d.start()
	d.until("the reply says success", func() bool { return strings.Contains(d.gitea.Replies(1)[0].Body, "**success**") })
	d.until("the request is finished", func() bool {
		_, text := d.get(d.status + "/metrics")
		return strings.Contains(text, "cc_ci_bridge_requests_live 0")
	})
	d.stop()
	audit, err := os.ReadFile(filepath.Join(d.state, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(audit), "\n"); n != 3 || len(d.drone.Builds()) != 1 || len(d.gitea.Replies(1)) != 1 {
		t.Errorf("%d audit lines, %d builds, %d replies", n, len(d.drone.Builds()), len(d.gitea.Replies(1)))
	}
	if strings.Contains(string(audit)+d.out.String(), "canary") {
		t.Error("a secret was shown")
	}
}

// TestStopDuringASlowCall stops the bridge while Drone does not answer: it exits with 0 and finds the build afterwards.
func TestStopDuringASlowCall(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "SETTLE=100ms")
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d.drone.Script(func(r *http.Request) bridgetest.Fault {
		if r.Method == http.MethodPost {
			once.Do(func() { close(held) })
			<-release
			return bridgetest.Fault{After: true, Drop: true}
		}
		return bridgetest.Fault{}
	})
	d.start()
	_, body := d.gitea.Comment("wim", 1, "!testme")
	if code, err := bridgetest.Send(d.hook+"/hook", body); code != 202 || err != nil {
		t.Fatalf("hook answered %d: %v", code, err)
	}
	<-held
	d.stop()
	close(release)
	d.until("the build is there", func() bool { return len(d.drone.Builds()) == 1 })
	d.drone.Script(nil)
	d.drone.Set(1, "success")
	d.start()
	d.until("the reply says success", func() bool { return strings.Contains(d.gitea.Replies(1)[0].Body, "**success**") })
	d.stop()
	if n := len(d.drone.Builds()); n != 1 {
		t.Errorf("%d builds, want 1", n)
	}
}

// TestSocketActivation passes two sockets; a hook that is sent while the bridge is away waits in the first.
func TestSocketActivation(t *testing.T) {
	var files []*os.File
	var addresses []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, l.Addr().String())
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() }) // the test is over
		files = append(files, f)
	}
	d := newDaemon(t, "LISTEN=127.0.0.1:1")
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = told.Close() }) // the test is over
	d.env = append(d.env, "NOTIFY_SOCKET="+told.LocalAddr().String())
	_, body := d.gitea.Comment("wim", 1, "!testme")
	answered := make(chan int, 1)
	go func() {
		code, _ := bridgetest.Send("http://"+addresses[0]+"/hook", body) // 0 when it fails
		answered <- code
	}()
	d.start(files...)
	if code := <-answered; code != 202 {
		t.Errorf("the waiting hook was answered %d", code)
	}
	if d.hook != "http://"+addresses[0] || d.status != "http://"+addresses[1] {
		t.Errorf("the bridge listens on %s and %s, want %v", d.hook, d.status, addresses)
	}
	if err := told.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	message := make([]byte, 100)
	if n, err := told.Read(message); err != nil || string(message[:n]) != "READY=1" {
		t.Errorf("systemd is told %q, %v", message[:n], err)
	}
	d.stop()
}

// TestSlowClients is the second half of attack 9: clients that send nothing, or too slowly, hold a connection only for
// seconds, and more than may be are not served at the same time.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "MAX_CONNECTIONS=2")
	d.start()
	start := time.Now()
	for _, text := range []string{"POST /hook HT", "POST /hook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(d.hook, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }() // the bridge has closed it
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
	}
	_, body := d.gitea.Comment("wim", 1, "!testme")
	code, err := bridgetest.Send(d.hook+"/hook", body) // waits for one of the two slots
	if code != 202 || err != nil {
		t.Fatalf("hook answered %d: %v", code, err)
	}
	if waited := time.Since(start); waited < 4*time.Second {
		t.Errorf("served after %s: the cap did not hold", waited)
	}
	d.stop()
}

func TestExitCodes(t *testing.T) {
	d := newDaemon(t, "HOOK_SECRETS=short-canary", "QUEUE=none")
	for _, command := range []string{"serve", "register", "doctor", "replay"} {
		args := []string{command}
		if command == "replay" {
			args = append(args, "file")
		}
		if out, code := d.tool(args...); code != 2 || strings.Contains(out, "canary") {
			t.Errorf("%s exits with %d: %s", command, code, out)
		}
	}
	d = newDaemon(t)
	if out, code := d.tool("--version"); code != 0 || strings.TrimSpace(out) == "" {
		t.Errorf("--version exits with %d: %s", code, out)
	}
	if out, code := d.tool("bogus"); code != 2 || !strings.Contains(out, "bogus") {
		t.Errorf("bogus exits with %d: %s", code, out)
	}
	if out, code := d.tool("replay"); code != 2 || !strings.Contains(out, "--help") {
		t.Errorf("replay of nothing exits with %d: %s", code, out)
	}
	if out, code := d.tool("replay", "file", "--url", "bridge/hook"); code != 2 || !strings.Contains(out, "no http or https address") {
		t.Errorf("replay to a word exits with %d: %s", code, out)
	}
	if out, code := d.tool("replay", "/nowhere", "--url", "http://127.0.0.1:1"); code != 1 || !strings.Contains(out, "/nowhere: no such file") {
		t.Errorf("replay of a file that is not there exits with %d: %s", code, out)
	}
	if out, code := d.tool("register"); code != 2 || !strings.Contains(out, prefix+"ADMIN_TOKEN") {
		t.Errorf("register without a token exits with %d: %s", code, out)
	}
	d.env = append(d.env, prefix+"LISTEN=256.0.0.1:1")
	if out, code := d.tool(); code != 1 || !strings.Contains(out, prefix+"LISTEN") {
		t.Errorf("an impossible address exits with %d: %s", code, out)
	}
}
