package bridge_test

import (
	"bytes"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// TestNamedCommitIsNotSuperseded names a commit that is not the head: reading the pull request again must not take that
// for a push, and a push that does come ends the run like any other.
func TestNamedCommitIsNotSuperseded(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.CatchUp = 5 * time.Millisecond })
	b.gitea.Push(1, bridgetest.SHA("b"), "wim", time.Now())
	b.say("wim", 1, "!testme 1111111", 202)
	b.built(1)
	looks := func() int {
		return strings.Count(strings.Join(b.gitea.Asked(), "\n")+"\n", "/repos/org/app/pulls/1\n")
	}
	before := looks()
	b.until("the pull request was read again", func() bool { return looks() > before+2 })
	b.drone.Set(1, "running")
	if text := b.reply(1, "running").Body; strings.Contains(text, "moved") {
		t.Errorf("who named the commit is told of the head: %s", text)
	}
	b.gitea.Push(1, bridgetest.SHA("c"), "wim", time.Now())
	b.reply(1, "Superseded by a push of `cccccccccc`.")
}

// TestBuildThatCannotBeWrittenDown lets the audit log fail after Drone has made the build: it is not made again.
func TestBuildThatCannotBeWrittenDown(t *testing.T) {
	b := newBed(t, nil)
	left := 5
	b.audit.fail = func(line []byte) error {
		if left == 0 || !bytes.Contains(line, []byte(`"triggered"`)) {
			return nil
		}
		left--
		return errors.New("no space left on device")
	}
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.drone.Set(1, "success")
	b.reply(1, "**success**")
	b.idle()
	b.built(1)
}

// TestBuildIsMissedForAWhile answers 404 like a proxy without a server: only where that lasts the
// build is gone.
func TestBuildIsMissedForAWhile(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.Settle = time.Hour })
	b.drone.Script(func(r *http.Request) bridgetest.Fault {
		if r.Method == http.MethodGet {
			return bridgetest.Fault{Status: 404}
		}
		return bridgetest.Fault{}
	})
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.until("some looks failed", func() bool { return strings.Count(b.log.String(), "HTTP status 404") > 6 })
	b.drone.Script(nil)
	b.drone.Set(1, "success")
	b.reply(1, "**success**")
}

// TestRestartAfterLongTime starts the bridge again after more than GiveUp: the servers are asked as patiently as ever, for a
// build and for a result that waits to be told.
func TestRestartAfterLongTime(t *testing.T) {
	b := newBed(t, nil)
	refuse := func(times int) func(*http.Request) bridgetest.Fault {
		return func(r *http.Request) bridgetest.Fault {
			if r.Method != http.MethodPost || times == 0 || strings.HasSuffix(r.URL.Path, "/issues/1/comments") {
				return bridgetest.Fault{}
			}
			times--
			return bridgetest.Fault{Status: 502}
		}
	}
	b.drone.Script(refuse(-1))
	comment := b.say("wim", 1, "!testme", 202)
	b.until("Drone was asked", func() bool { return strings.Contains(b.log.String(), "create build") })
	b.restartAfter(2 * b.cfg.GiveUp)
	b.drone.Script(refuse(3))
	b.built(1)

	b.gitea.Script(refuse(-1))
	b.drone.Set(1, "success")
	b.until("the result waits", func() bool { return strings.Contains(b.log.String(), "status of 1111111111") })
	b.restartAfter(2 * b.cfg.GiveUp)
	b.gitea.Script(refuse(3))
	b.reacted(comment, "rocket")
	b.reply(1, "**success**")
}

// TestEyesBesideSlowCalls lets Gitea hang in whatever is asked of it after the eyes, for more commands than a client has
// connections: the next author sees the eyes all the same.
func TestEyesBesideSlowCalls(t *testing.T) {
	b := newBed(t, nil)
	slow := make(chan struct{})
	release := sync.OnceFunc(func() { close(slow) })
	b.Cleanup(release) // before the bridge is stopped
	b.gitea.Script(func(r *http.Request) bridgetest.Fault {
		if strings.HasSuffix(r.URL.Path, "/reactions") {
			return bridgetest.Fault{}
		}
		return bridgetest.Fault{Hold: slow}
	})
	for range 20 {
		b.say("wim", 1, "!testme ?", 202)
	}
	b.reacted(b.say("olga", 2, "!testme ?", 202), "eyes")
	if strings.Contains(b.log.String(), "a step failed") {
		t.Error("the eyes came only after a slow call was cut off")
	}
	release()
	b.idle()
}

// TestProxyWithoutAServer lets a proxy say 404 for Gitea at each moment of a run, as while Gitea is started again: the
// command does not count as gone, and the result is told.
func TestProxyWithoutAServer(t *testing.T) {
	b := newBed(t, nil)
	away := func() {
		b.Helper()
		seen := strings.Count(b.log.String(), "a step failed")
		b.until("calls fail", func() bool { return strings.Count(b.log.String(), "a step failed") > seen+3 })
		b.gitea.Script(nil)
	}
	gone := func(*http.Request) bridgetest.Fault { return bridgetest.Fault{Status: 404, Proxy: true} }
	b.gitea.Script(gone)
	comment := b.say("wim", 1, "!testme", 202)
	away()
	b.built(1)
	b.gitea.Script(gone)
	b.drone.Set(1, "success")
	away()
	b.reply(1, "**success**")
	b.reacted(comment, "rocket")
}

// restartAfter stops the bridge and starts it as if that had been some time later.
func (b *bed) restartAfter(off time.Duration) {
	b.Helper()
	b.stop()
	store, err := journal.Open(filepath.Join(b.dir, "journal"))
	check(b.T, err)
	live, err := store.Live()
	check(b.T, err)
	for _, r := range live {
		r.Received = r.Received.Add(-off)
		if r.Outcome != nil {
			r.Outcome.At = r.Outcome.At.Add(-off)
		}
		check(b.T, store.Save(r))
	}
	check(b.T, store.Close())
	b.start()
}
