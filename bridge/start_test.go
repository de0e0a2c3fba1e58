package bridge_test

import (
	"context"
	"net/http/httptest"
	"path/filepath"
	"strings"
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

// TestHookBeforeRun accepts a hook before Run has read the journal, in which the request then is: it is started once.
func TestHookBeforeRun(t *testing.T) {
	cfg, out := config(), &syncBuffer{}
	forge, ci := bridgetest.NewGitea(t), bridgetest.NewDrone(t, "ci/tests")
	var err error
	cfg.Gitea, err = gitea.New(parse(t, forge.URL), forge.Token, time.Minute)
	check(t, err)
	cfg.Drone = drone.New(parse(t, ci.URL), ci.Token, "ci/tests", "main")
	cfg.Journal, err = journal.Open(filepath.Join(t.TempDir(), "journal"))
	check(t, err)
	logger := logrus.New()
	logger.SetOutput(out)
	cfg.Log, cfg.Audit, cfg.Registry = logrus.NewEntry(logger), out, prometheus.NewRegistry()
	b, err := bridge.New(cfg)
	check(t, err)
	server := httptest.NewServer(b.Handler())
	defer server.Close()

	ci.Begin("success")
	comment, body := forge.Comment("wim", 1, "!testme")
	answered := make(chan int, 1)
	go func() {
		code, _ := bridgetest.Send(server.URL+"/hook", body) // 0 when it fails
		answered <- code
	}()
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("waited in vain until %s\n%s", what, out)
			}
		}
	}
	wait("the request is in the journal", func() bool {
		seen, err := cfg.Journal.Seen(journal.Key{Repo: bridgetest.RepoID, Comment: comment})
		check(t, err)
		return seen
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	if code := <-answered; code != 202 {
		t.Errorf("the hook was answered %d", code)
	}
	wait("the run is over", func() bool {
		return strings.Contains(strings.Join(forge.Reactions(comment), " "), "rocket")
	})
	cancel()
	check(t, <-ended)
	check(t, cfg.Journal.Close())
	if n := strings.Count(out.String(), `"decision":"authorised"`); n != 1 || len(ci.Builds()) != 1 {
		t.Errorf("authorised %d times, %d builds, want 1 of each", n, len(ci.Builds()))
	}
}
