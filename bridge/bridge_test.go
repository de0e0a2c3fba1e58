package bridge_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/drone"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// patience is how long a test waits for something that must happen.
const patience = 60 * time.Second

// bed is a bridge between a small Gitea and a small Drone.
type bed struct {
	*testing.T
	gitea    *bridgetest.Gitea
	drone    *bridgetest.Drone
	cfg      bridge.Config
	dir      string
	hook     string
	log      *syncBuffer
	audit    *syncBuffer
	registry *prometheus.Registry
	stop     func()
}

// syncBuffer collects what several goroutines write.
type syncBuffer struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	fail func(line []byte) error // says which writes fail; set before there are any
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		if err := b.fail(p); err != nil {
			return 0, err
		}
	}
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// config is a bridge's configuration with waits that suit tests.
func config() bridge.Config {
	return bridge.Config{
		Secrets: [][]byte{[]byte(bridgetest.Secret)}, DroneSecret: "drone-hook-canary",
		Repos: []string{bridgetest.Owner}, Access: bridge.AccessWrite, Policy: bridge.PolicyPinned,
		MaxAge: time.Hour, Quiet: 0, Deadline: time.Hour, GiveUp: time.Hour,
		Record: 50 * time.Millisecond, Settle: 100 * time.Millisecond, Poll: 5 * time.Millisecond, PollMax: 20 * time.Millisecond,
		CatchUp: time.Hour, Grace: time.Minute, Keep: time.Hour, Queue: 100,
		UserBurst: 100, UserEvery: time.Hour, PullBurst: 100, PullEvery: time.Hour, RepoBurst: 100, RepoEvery: time.Hour,
		RetryFirst: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond,
	}
}

// newBed makes the servers; start runs the bridge.
func newBed(t *testing.T, change func(*bridge.Config)) *bed {
	t.Helper()
	b := &bed{T: t, gitea: bridgetest.NewGitea(t), drone: bridgetest.NewDrone(t, "ci/tests"), cfg: config(),
		dir: t.TempDir(), log: &syncBuffer{}, audit: &syncBuffer{}}
	if change != nil {
		change(&b.cfg)
	}
	b.start()
	return b
}

// start runs a bridge on the bed's journal; b.stop ends it.
func (b *bed) start() {
	b.Helper()
	cfg := b.cfg
	var err error
	cfg.Gitea, err = gitea.New(parse(b.T, b.gitea.URL), b.gitea.Token, 30*time.Second)
	check(b.T, err)
	cfg.Drone = drone.New(parse(b.T, b.drone.URL), b.drone.Token, "ci/tests", "main")
	cfg.Journal, err = journal.Open(filepath.Join(b.dir, "journal"))
	check(b.T, err)
	logger := logrus.New()
	logger.SetOutput(b.log)
	logger.SetLevel(logrus.DebugLevel)
	b.registry = prometheus.NewRegistry()
	cfg.Log, cfg.Audit, cfg.Registry = logrus.NewEntry(logger), io.Writer(b.audit), b.registry
	made, err := bridge.New(cfg)
	check(b.T, err)
	server := httptest.NewServer(made.Handler())
	b.hook = server.URL + "/hook"
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- made.Run(ctx) }()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			server.Close()
			cancel()
			check(b.T, <-ended)
			check(b.T, cfg.Journal.Close())
		})
	}
	b.Cleanup(func() {
		b.stop()
		if b.Failed() {
			b.Logf("log:\n%s\naudit:\n%s", tail(b.log), tail(b.audit))
		}
	})
	b.until("the bridge is ready", func() bool { return made.Ready() == nil })
}

// say comments and sends the hook; the answer must be the given status.
func (b *bed) say(login string, pr int64, text string, want int) int64 {
	b.Helper()
	id, body := b.gitea.Comment(login, pr, text)
	b.send(body, want)
	return id
}

func (b *bed) send(body []byte, want int) {
	b.Helper()
	code, err := bridgetest.Send(b.hook, body)
	check(b.T, err)
	if code != want {
		b.Fatalf("hook answered %d, want %d", code, want)
	}
}

// until waits for a condition.
func (b *bed) until(what string, ok func() bool) {
	b.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("waited in vain until %s", what)
		}
	}
}

// reply waits until the pull request has exactly one reply and it contains the text.
func (b *bed) reply(pr int64, text string) bridgetest.Comment {
	b.Helper()
	b.until("the reply says "+text, func() bool {
		replies := b.gitea.Replies(pr)
		return len(replies) > 0 && strings.Contains(replies[len(replies)-1].Body, text)
	})
	replies := b.gitea.Replies(pr)
	if len(replies) != 1 {
		b.Fatalf("%d replies, want 1: %+v", len(replies), replies)
	}
	return replies[0]
}

// reacted waits until a comment's last reaction is the given one.
func (b *bed) reacted(comment int64, reaction string) {
	b.Helper()
	b.until("the reaction is "+reaction, func() bool {
		r := b.gitea.Reactions(comment)
		return len(r) > 0 && r[len(r)-1] == reaction
	})
}

// built waits until there are n builds.
func (b *bed) built(n int) {
	b.Helper()
	b.until("there are builds", func() bool { return len(b.drone.Builds()) >= n })
	if got := len(b.drone.Builds()); got != n {
		b.Fatalf("%d builds, want %d", got, n)
	}
}

// idle waits until every request is finished.
func (b *bed) idle() {
	b.Helper()
	b.alive(0)
}

// alive waits until so many requests are not finished.
func (b *bed) alive(n int) {
	b.Helper()
	b.until(fmt.Sprintf("%d requests are alive", n), func() bool {
		return strings.Contains(b.scrape(), fmt.Sprintf("\ncc_ci_bridge_requests_live %d\n", n))
	})
}

// scrape is what /metrics shows.
func (b *bed) scrape() string {
	b.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(b.registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// tail is the end of what was written.
func tail(b *syncBuffer) string {
	s := b.String()
	return s[max(0, len(s)-3000):]
}

func parse(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	check(t, err)
	return u
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
