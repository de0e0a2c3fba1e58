package bridge_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/drone"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// childEnv makes the test binary a bridge: it holds Gitea's address, Drone's address and the directory.
const childEnv = "CC_CI_BRIDGE_TEST_CHILD"

func TestMain(m *testing.M) {
	if args := strings.Fields(os.Getenv(childEnv)); len(args) == 3 {
		fmt.Fprintln(os.Stderr, child(args[0], args[1], args[2]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// child runs a bridge until it is killed; its first line is its address.
func child(giteaURL, droneURL, dir string) error {
	cfg := config()
	cfg.CatchUp, cfg.Grace = 30*time.Millisecond, 0
	forge, err := url.Parse(giteaURL)
	if err != nil {
		return err
	}
	ci, err := url.Parse(droneURL)
	if err != nil {
		return err
	}
	if cfg.Gitea, err = gitea.New(forge, "gitea-token-canary", 5*time.Second); err != nil {
		return err
	}
	cfg.Drone = drone.New(ci, "drone-token-canary", "ci/tests", "main")
	if cfg.Journal, err = journal.Open(filepath.Join(dir, "journal")); err != nil {
		return err
	}
	audit, err := os.OpenFile(filepath.Join(dir, "audit"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cfg.Audit, cfg.Log, cfg.Registry = audit, logrus.NewEntry(logrus.New()), prometheus.NewRegistry()
	b, err := bridge.New(cfg)
	if err != nil {
		return err
	}
	server := httptest.NewServer(b.Handler())
	fmt.Println(server.URL)
	return b.Run(context.Background())
}

// crashBed is a bridge in a process of its own that is killed and started again.
type crashBed struct {
	*testing.T
	gitea *bridgetest.Gitea
	drone *bridgetest.Drone
	dir   string

	mu     sync.Mutex
	cmd    *exec.Cmd
	hook   string
	calls  int
	killAt map[int]bool // after this many calls; true: the call is handled first
	kills  int
}

func newCrashBed(t *testing.T, killAt map[int]bool) *crashBed {
	b := &crashBed{T: t, gitea: bridgetest.NewGitea(t), drone: bridgetest.NewDrone(t, "ci/tests"), dir: t.TempDir(), killAt: killAt}
	b.gitea.Script(b.fault)
	b.drone.Script(b.fault)
	b.start()
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.kill()
	})
	return b
}

// fault kills the bridge when its time has come.
func (b *crashBed) fault(*http.Request) bridgetest.Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	after, now := b.killAt[b.calls]
	if !now || b.cmd == nil {
		return bridgetest.Fault{}
	}
	b.kill()
	b.kills++
	return bridgetest.Fault{Drop: true, After: after}
}

// kill ends the bridge as a crash does; the caller holds the lock.
func (b *crashBed) kill() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Kill() // it may be dead already
	_ = b.cmd.Wait()         // reports the kill
	b.cmd = nil
}

// start runs a bridge unless one runs.
func (b *crashBed) start() {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cmd != nil {
		return
	}
	self, err := os.Executable()
	check(b, err)
	cmd := exec.Command(self)
	cmd.Env = []string{childEnv + "=" + b.gitea.URL + " " + b.drone.URL + " " + b.dir}
	out, err := cmd.StdoutPipe()
	check(b, err)
	check(b, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	check(b, err)
	b.cmd, b.hook = cmd, strings.TrimSpace(line)+"/hook"
}

// dead reports whether the bridge was killed.
func (b *crashBed) dead() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cmd == nil
}

// run comments on n pull requests, lets builds go on, and starts the bridge whenever it is dead, until every comment
// has its final reaction.
func (b *crashBed) run(n int) {
	b.Helper()
	var comments []int64
	for i := range n {
		pr := int64(i + 1)
		b.gitea.OpenPull(pr, fmt.Sprintf("%040x", pr))
		id, body := b.gitea.Comment("wim", pr, "!testme")
		comments = append(comments, id)
		b.mu.Lock()
		hook := b.hook
		b.mu.Unlock()
		_, _ = bridgetest.Send(hook, body) // a hook that finds nobody is lost, as Gitea's are
	}
	for end := time.Now().Add(patience); ; time.Sleep(3 * time.Millisecond) {
		if b.dead() {
			b.start()
		}
		for i, build := range b.drone.Builds() {
			if next := map[string]string{"pending": "running", "running": "success"}[build.Status]; next != "" {
				b.drone.Set(int64(i+1), next)
			}
		}
		open := 0
		for _, id := range comments {
			if !strings.Contains(strings.Join(b.gitea.Reactions(id), " "), "rocket") {
				open++
			}
		}
		if open == 0 {
			return
		}
		if time.Now().After(end) {
			b.Fatalf("%d of %d comments are not answered", open, n)
		}
	}
}

// verify checks the promise: one build and one answer for each comment, and the right ones.
func (b *crashBed) verify(n int) {
	b.Helper()
	builds := map[string]int{}
	for _, build := range b.drone.Builds() {
		builds[build.Params["TESTME_ID"]]++
	}
	for i := range n {
		pr := int64(i + 1)
		replies := b.gitea.Replies(pr)
		if len(replies) != 1 || !strings.Contains(replies[0].Body, "**success**") {
			b.Errorf("pull request %d has the replies %+v, want one success", pr, replies)
		}
		if got := builds[fmt.Sprintf("7-%d", comment(b.gitea, pr))]; got != 1 {
			b.Errorf("pull request %d has %d builds, want 1", pr, got)
		}
		statuses := b.gitea.Statuses(fmt.Sprintf("%040x", pr))
		if len(statuses) == 0 || statuses[len(statuses)-1].State != "success" {
			b.Errorf("pull request %d has the statuses %v", pr, statuses)
		}
	}
	if len(builds) != n {
		b.Errorf("builds %v, want %d", builds, n)
	}
}

// comment is the id of the command on a pull request: its marker is in the reply.
func comment(g *bridgetest.Gitea, pr int64) int64 {
	var id int64
	for _, reply := range g.Replies(pr) {
		_, mark, _ := strings.Cut(reply.Body, "<!-- cc-ci:7-")
		_, _ = fmt.Sscanf(mark, "%d", &id) // 0 when there is no marker
	}
	return id
}

// TestKillAtEveryCall kills the bridge before and after each call that one comment needs: every state of a request is
// left and entered again that way.
func TestKillAtEveryCall(t *testing.T) {
	first := newCrashBed(t, nil)
	first.run(1)
	first.verify(1)
	first.mu.Lock()
	calls := min(first.calls, 40)
	first.mu.Unlock()
	for at := 1; at <= calls; at++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/%t", at, after), func(t *testing.T) {
				t.Parallel()
				b := newCrashBed(t, map[int]bool{at: after})
				b.run(1)
				b.verify(1)
			})
		}
	}
}

// TestKillAtRandomPoints kills the bridge again and again while 20 comments are on their way.
func TestKillAtRandomPoints(t *testing.T) {
	points := 10
	if os.Getenv("CC_CI_TEST_FULL") != "" {
		points = 100
	}
	const perRun, comments = 5, 20
	for seed := range points / perRun {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(seed), 1))
			killAt := map[int]bool{}
			for at := 0; len(killAt) < perRun; {
				at += 1 + random.IntN(25)
				killAt[at] = random.IntN(2) == 0
			}
			b := newCrashBed(t, killAt)
			b.run(comments)
			b.verify(comments)
			if b.kills < perRun/2 { // a point that falls into the time between death and restart is lost
				t.Errorf("killed %d times of %d", b.kills, perRun)
			}
		})
	}
}
