package bridge_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
)

// TestIdenticalCommandsShareARun shows that a run which exists is pointed at, not repeated.
func TestIdenticalCommandsShareARun(t *testing.T) {
	b := newBed(t, nil)
	first := b.say("wim", 1, "!testme", 202)
	b.built(1)
	for range 5 {
		b.reacted(b.say("olga", 1, "!testme", 202), "confused")
	}
	b.drone.Set(1, "success")
	b.reacted(first, "rocket")
	b.idle()
	b.built(1)
	replies := b.gitea.Replies(1)
	if len(replies) != 2 || !strings.Contains(replies[1].Body, fmt.Sprintf("was asked for already](%s/org/app/pulls/1#issuecomment-2)", b.gitea.URL)) {
		t.Errorf("replies %+v", replies)
	}
}

// TestNewCommandSupersedes shows that a command for another commit ends the older run.
func TestNewCommandSupersedes(t *testing.T) {
	b := newBed(t, nil)
	first := b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.gitea.Push(1, bridgetest.SHA("b"), "wim", time.Now())
	second := b.say("wim", 1, "!testme", 202)
	b.built(2)
	b.reacted(first, "-1")
	b.drone.Set(2, "success")
	b.reacted(second, "rocket")
	b.idle()
	if got := b.drone.Builds()[0].Status; got != "killed" {
		t.Errorf("older build is %s", got)
	}
	if text := b.gitea.Replies(1)[0].Body; !strings.Contains(text, "**killed**") || !strings.Contains(text, "Superseded by [a later command]") {
		t.Errorf("older reply: %s", text)
	}
	// The other pull request's run is none of their business.
	b.say("wim", 2, "!testme", 202)
	b.built(3)
}

// TestPushSupersedes shows that commits that come after a run has begun end it, by hook.
func TestPushSupersedes(t *testing.T) {
	b := newBed(t, nil)
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.drone.Set(1, "running")
	b.reply(1, "running")
	b.send(b.gitea.PullBody("synchronized", 1, "wim"), 202) // of the commit that runs: nothing changes
	b.gitea.Push(1, bridgetest.SHA("b"), "wim", time.Now())
	b.send(b.gitea.PullBody("synchronized", 1, "wim"), 202)
	b.reply(1, "Superseded by a push of `bbbbbbbbbb`.")
	b.idle()
}

// TestCloseCancels shows that closing a pull request ends its runs.
func TestCloseCancels(t *testing.T) {
	b := newBed(t, nil)
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.gitea.ClosePull(1)
	b.send(b.gitea.PullBody("closed", 1, "wim"), 202)
	b.reply(1, "The pull request was closed.")
	b.idle()
	b.say("wim", 1, "!testme", 200) // refused by the signed body
	b.built(1)
}

// TestChangesWithoutHooks shows that closing and pushing are noticed when their hooks are lost.
func TestChangesWithoutHooks(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.CatchUp = 20 * time.Millisecond })
	b.say("wim", 1, "!testme", 202)
	b.say("wim", 2, "!testme", 202)
	b.built(2)
	b.gitea.ClosePull(1)
	b.gitea.Push(2, bridgetest.SHA("b"), "wim", time.Now())
	b.reply(1, "The pull request was closed.")
	b.reply(2, "Superseded by a push of `bbbbbbbbbb`.")
}

// TestChangesBesideAFault looks at the second pull request though the first cannot be read.
func TestChangesBesideAFault(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.CatchUp = 20 * time.Millisecond })
	b.say("wim", 1, "!testme", 202)
	b.say("wim", 2, "!testme", 202)
	b.built(2)
	b.gitea.Script(func(r *http.Request) bridgetest.Fault {
		if strings.HasSuffix(r.URL.Path, "/pulls/1") {
			return bridgetest.Fault{Status: 500}
		}
		return bridgetest.Fault{}
	})
	b.gitea.ClosePull(2)
	b.reply(2, "The pull request was closed.")
}

// TestCancel ends waiting and running builds, and only for those who may.
func TestCancel(t *testing.T) {
	b := newBed(t, nil)
	b.reacted(b.say("wim", 1, "!cancel", 202), "+1")
	b.reply(1, "No run of this pull request is waiting or running")
	for pr, status := range []string{"pending", "running"} {
		n := int64(pr) + 2
		b.gitea.OpenPull(n, bridgetest.SHA("c"))
		run := b.say("wim", n, "!testme", 202)
		b.built(int(n) - 1)
		b.drone.Set(n-1, status)
		b.reacted(b.say("rita", n, "!cancel", 202), "confused") // reads only
		b.reacted(b.say("olga", n, "!cancel", 202), "+1")
		b.reacted(run, "-1")
		b.idle()
		if got := b.drone.Builds()[n-2].Status; got != "killed" {
			t.Errorf("%s build is %s after cancel", status, got)
		}
		if text := b.gitea.Replies(n)[0].Body; !strings.Contains(text, "Cancelled by `olga`.") {
			t.Errorf("reply: %s", text)
		}
	}
}

// TestCancelIsRepeated lets the decision fail until the run has ended, as a crash would: what was cancelled is told.
func TestCancelIsRepeated(t *testing.T) {
	for _, login := range []string{"olga", "wim"} { // as one who may, and as one who may end their own run only
		b := newBed(t, nil)
		var ended atomic.Bool
		b.audit.fail = func(line []byte) error {
			if ended.Load() || !bytes.Contains(line, []byte(`"text":"!cancel"`)) {
				return nil
			}
			return errors.New("no space left on device")
		}
		run := b.say("wim", 1, "!testme", 202)
		b.built(1)
		b.gitea.Grant("wim", "read")
		cancel := b.say(login, 1, "!cancel", 202)
		b.reacted(run, "-1")
		b.alive(1)
		b.stop()
		ended.Store(true)
		b.start()
		b.reacted(cancel, "+1")
		if replies := b.gitea.Replies(1); len(replies) != 2 || !strings.Contains(replies[1].Body, "Cancelling 1 run(s)") {
			t.Errorf("%s is told %+v", login, replies)
		}
	}
}

// TestStarterMayCancel shows that who started a run can end it, even without the right to start another.
func TestStarterMayCancel(t *testing.T) {
	b := newBed(t, nil)
	run := b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.gitea.Grant("wim", "read")
	b.reacted(b.say("wim", 1, "!cancel", 202), "+1")
	b.reacted(run, "-1")
	b.idle()
}

// TestHooksOutOfOrder delivers newer hooks first: what counts is the order of the comments.
func TestHooksOutOfOrder(t *testing.T) {
	b := newBed(t, nil)
	run, runBody := b.gitea.Comment("wim", 1, "!testme")
	_, cancelBody := b.gitea.Comment("wim", 1, "!cancel")
	b.send(cancelBody, 202)
	b.idle()
	b.send(runBody, 202)
	b.reacted(run, "confused")
	b.idle()
	b.built(0)

	old, oldBody := b.gitea.Comment("wim", 2, "!testme")
	b.gitea.Push(2, bridgetest.SHA("b"), "wim", time.Now())
	_, newBody := b.gitea.Comment("wim", 2, "!testme")
	b.send(newBody, 202)
	b.built(1)
	b.send(oldBody, 202)
	b.reacted(old, "confused")
	b.built(1)
	if got := b.drone.Builds()[0].Params["REF"]; got != bridgetest.SHA("b") {
		t.Errorf("built %s, want the newer commit", got)
	}
}

// TestBurst sends 60 comments at once: no more builds than the bucket holds, and one notice for the rest.
func TestBurst(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.UserBurst, c.PullBurst = 10, 3 })
	for i := range 60 {
		sha := fmt.Sprintf("%040x", i+1)
		b.gitea.Push(1, sha, "wim", time.Now().Add(-time.Hour))
		b.say("wim", 1, "!testme", 202)
	}
	b.alive(1)          // every other command is decided: no further build can come
	var pending []int64 // not always the newest build: of two that start at once the older command may come second
	b.until("one build is left", func() bool {
		pending = nil
		for _, build := range b.drone.Builds() {
			if build.Status == "pending" {
				pending = append(pending, build.Number)
			}
		}
		return len(pending) == 1
	})
	b.drone.Set(pending[0], "success")
	b.idle()
	if n := len(b.drone.Builds()); n < 1 || n > 3 {
		t.Errorf("%d builds, want at most 3", n)
	}
	notices := 0
	for _, reply := range b.gitea.Replies(1) {
		if strings.Contains(reply.Body, "cc-ci:notice:") {
			notices++
		}
	}
	if notices != 1 {
		t.Errorf("%d notices, want 1", notices)
	}
}

// TestFullQueueAnswers shows what people see when too much is waiting.
func TestFullQueueAnswers(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.Queue = 1 })
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.say("wim", 2, "!testme", 202)
	b.reply(2, "Too many requests are waiting")
	b.drone.Set(1, "success")
	b.idle()
	b.built(1)
}

// TestHintIsFollowed shows that Drone's webhook makes the bridge look at once, and that it believes Drone, not the hook.
func TestHintIsFollowed(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.Poll, c.PollMax = time.Hour, time.Hour })
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.until("the build was looked at", func() bool {
		return strings.Contains(strings.Join(b.drone.Asked(), "\n"), "GET /api/repos/ci/tests/builds/1")
	})
	header, body := bridgetest.Hint("drone-hook-canary", "7-1", time.Now())
	url := strings.TrimSuffix(b.hook, "/hook") + "/drone"
	for range 3 { // the build is still pending, whatever the hook says
		if code, err := bridgetest.Post(url, body, header); code != 204 || err != nil {
			t.Fatalf("hint answered %d: %v", code, err)
		}
	}
	b.drone.Set(1, "success")
	b.until("the hint was followed", func() bool {
		if code, err := bridgetest.Post(url, body, header); code != 204 || err != nil {
			t.Fatalf("hint answered %d: %v", code, err)
		}
		return strings.Contains(b.gitea.Replies(1)[0].Body, "**success**")
	})
}
