package bridge_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// running comments and waits until the only build runs.
func (b *bridge) running(pr int64) *gitea.Comment {
	b.Helper()
	c := b.comment(the.wim, pr, "!testme")
	b.reply(pr, "running")
	return c
}

// ended waits until a pull request's builds are in the given states, newest first.
func (b *bridge) ended(pr int64, want ...string) {
	b.Helper()
	got := ""
	b.until(fmt.Sprintf("the builds are %v", want), func() bool {
		var states []string
		for _, build := range b.builds(pr) {
			states = append(states, build.Status)
		}
		got = fmt.Sprint(states)
		return got == fmt.Sprint(want)
	})
}

// TestCancel ends a running build, and one that no runner has taken.
func TestCancel(t *testing.T) {
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "cancel"}, nil)
	pr, _ := b.pull("work")
	run := b.running(pr)
	b.comment(the.wim, pr, "!cancel")
	b.ended(pr, "killed")
	b.until("the run has its reaction", func() bool { return strings.Contains(fmt.Sprint(b.reactions(run)), "-1") })
	if text := b.replies(pr)[0].Body; !strings.Contains(text, "**killed**") || !strings.Contains(text, "Cancelled by `wim`.") {
		t.Errorf("reply: %s", text)
	}
	the.hand.sleep(true)
	defer the.hand.sleep(false)
	time.Sleep(time.Second) // the hand's last poll may still take one stage
	b.comment(the.wim, pr, "!testme")
	b.until("the build is there", func() bool { return len(b.builds(pr)) == 2 })
	b.comment(the.wim, pr, "!cancel")
	b.ended(pr, "killed", "killed")
}

// TestDeadline ends a build that nobody takes.
func TestDeadline(t *testing.T) {
	the.hand.sleep(true)
	defer the.hand.sleep(false)
	time.Sleep(time.Second) // the hand's last poll may still take one stage
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "deadline"}, map[string]string{"DEADLINE": "2s"})
	pr, sha := b.pull("work")
	b.comment(the.wim, pr, "!testme")
	b.reply(pr, "did not end within 2s and was cancelled")
	b.ended(pr, "killed")
	b.until("the status says error", func() bool { return b.status(sha) == "error" })
}

// TestKilledElsewhere reports a build that somebody ended in Drone.
func TestKilledElsewhere(t *testing.T) {
	t.Parallel()
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "elsewhere"}, nil)
	pr, sha := b.pull("work")
	b.running(pr)
	b.check(the.bed.Drone.Cancel(b.ctx, the.ci, b.builds(pr)[0].Number))
	b.reply(pr, "**killed**")
	b.until("the status says error", func() bool { return b.status(sha) == "error" })
}

// TestSupersede pushes during a run, comments again, and closes the pull request during the next.
func TestSupersede(t *testing.T) {
	t.Parallel()
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "supersede"}, nil)
	fork, err := the.fred.Fork(b.ctx, b.repo)
	b.check(err)
	pr, _ := b.pullFrom(fork, "work")
	b.running(pr)
	sha, err := the.fred.Push(b.ctx, fork, testbed.Commit{Branch: "work", Message: "more", Files: map[string]string{"more": "more"}})
	b.check(err)
	b.reply(pr, "Superseded by a push of `"+sha[:10]+"`.")
	b.ended(pr, "killed")
	b.comment(the.wim, pr, "!testme")
	b.ended(pr, "running", "killed")
	client, err := the.maint.Client(b.ctx)
	b.check(err)
	closed := gitea.StateClosed
	_, _, err = client.EditPullRequest(b.repo.Owner, b.repo.Name, pr, gitea.EditPullRequestOption{State: &closed})
	b.check(err)
	b.ended(pr, "killed", "killed")
	b.until("the second reply says so", func() bool {
		replies := b.replies(pr)
		return len(replies) == 2 && strings.Contains(replies[1].Body, "The pull request was closed.")
	})
}

// TestLatePush holds the hook back while commits come: what runs is the commit that the comment was about, which the
// base repository serves even after the branch was rewritten.
func TestLatePush(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"pinned", "refuse"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "late-" + policy}, map[string]string{"PUSH_POLICY": policy})
			fork, err := the.fred.Fork(b.ctx, b.repo)
			b.check(err)
			pr, old := b.pullFrom(fork, "work")
			b.tap.hold(true)
			b.comment(the.wim, pr, "!testme")
			var held hook
			b.until("the hook is held", func() (ok bool) {
				held, ok = b.tap.find(`"body": "!testme"`)
				return ok
			})
			fresh, err := the.fred.Push(b.ctx, fork, testbed.Commit{Branch: "work", Message: "evil", Files: map[string]string{"evil": "evil"}})
			b.check(err)
			b.until("gitea knows the push", func() bool {
				client, err := the.maint.Client(b.ctx)
				b.check(err)
				pull, _, err := client.GetPullRequest(b.repo.Owner, b.repo.Name, pr)
				b.check(err)
				return pull.Head.Sha == fresh
			})
			b.tap.hold(false)
			code, err := held.send("http://"+b.listen+"/hook", "late")
			if b.check(err); code != 202 {
				t.Fatalf("the hook was answered %d", code)
			}
			if policy == "refuse" {
				b.reply(pr, "so nothing was run")
				if n := len(b.builds(pr)); n != 0 {
					t.Errorf("%d builds", n)
				}
				return
			}
			b.reply(pr, "The branch moved to `"+fresh[:10]+"` after the comment")
			b.reply(pr, "running")
			if got := b.builds(pr)[0].Params; got["REF"] != old || got["SRC"] != b.repo.CloneURL {
				t.Errorf("built %s of %s, want %s of %s", got["REF"], got["SRC"], old, b.repo.CloneURL)
			}
			the.hand.decide(b.repo.Name, "success")
			b.reply(pr, "**success**")
			b.until("the old commit is green", func() bool { return b.status(old) == "success" })
			if got := b.status(fresh); got != "" {
				t.Errorf("the unseen commit has the status %s", got)
			}
		})
	}
}

// TestStrangersPushJustBefore asks for the commit by name when it came moments before the comment.
func TestStrangersPushJustBefore(t *testing.T) {
	t.Parallel()
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "before"}, map[string]string{"QUIET": "1h"})
	fork, err := the.fred.Fork(b.ctx, b.repo)
	b.check(err)
	pr, _ := b.pullFrom(fork, "work")
	sha, err := the.fred.Push(b.ctx, fork, testbed.Commit{Branch: "work", Message: "more", Files: map[string]string{"more": "more"}})
	b.check(err)
	client, err := the.maint.Client(b.ctx)
	b.check(err)
	b.until("gitea knows the push", func() bool {
		pull, _, err := client.GetPullRequest(b.repo.Owner, b.repo.Name, pr)
		b.check(err)
		entries, _, err := client.ListIssueTimeline(b.repo.Owner, b.repo.Name, pr, gitea.ListIssueCommentOptions{})
		b.check(err)
		for _, e := range entries {
			if e.Type == "pull_push" && strings.Contains(e.Body, sha) {
				return pull.Head.Sha == sha
			}
		}
		return false
	})
	b.comment(the.wim, pr, "!testme")
	b.reply(pr, "Commits came moments before this comment")
	b.comment(the.wim, pr, "!testme "+sha[:8])
	b.until("the named commit is built", func() bool { return len(b.builds(pr)) == 1 })
	if got := b.builds(pr)[0].Params["REF"]; got != sha {
		t.Errorf("built %s, want %s", got, sha)
	}
}

// TestLostDroneReply loses the reply to the build's creation: still one build.
func TestLostDroneReply(t *testing.T) {
	t.Parallel()
	between, err := testbed.StartProxy(the.bed.Drone.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = between.Stop() }() // the test is over
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "lost"}, map[string]string{"DRONE_URL": between.URL()})
	var mu sync.Mutex
	lost := 0
	between.Rule(func(r *http.Request) testbed.Action {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == "POST" && lost < 2 {
			lost++
			return testbed.DropReply
		}
		return testbed.Pass
	})
	pr, _ := b.pull("work")
	b.running(pr)
	the.hand.decide("lost", "success")
	b.reply(pr, "**success**")
	if n := len(b.builds(pr)); n != 1 || lost == 0 {
		t.Errorf("%d builds after %d lost replies, want 1", n, lost)
	}
}

// TestReplay delivers one body 50 times at once, each with an id of its own: one build.
func TestReplay(t *testing.T) {
	t.Parallel()
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "replay"}, nil)
	pr, _ := b.pull("work")
	b.tap.hold(true)
	b.comment(the.wim, pr, "!testme")
	var held hook
	b.until("the hook is held", func() (ok bool) {
		held, ok = b.tap.find(`"body": "!testme"`)
		return ok
	})
	var wait sync.WaitGroup
	for i := range 50 {
		wait.Go(func() {
			if code, err := held.send("http://"+b.listen+"/hook", fmt.Sprint(i)); err != nil || code != 200 && code != 202 {
				t.Errorf("answered %d: %v", code, err)
			}
		})
	}
	wait.Wait()
	b.reply(pr, "running")
	the.hand.decide("replay", "success")
	b.reply(pr, "**success**")
	if n := len(b.builds(pr)); n != 1 {
		t.Errorf("%d builds, want 1", n)
	}
}

// TestBridgeDown comments while the bridge is away.
func TestBridgeDown(t *testing.T) {
	t.Parallel()
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "down"}, map[string]string{"CATCH_UP": "1s"})
	fork, err := the.fred.Fork(b.ctx, b.repo)
	b.check(err)
	b.kill()
	pr, sha := b.pullFrom(fork, "work") // within the second of the comment: Gitea's times do not tell which came first
	b.comment(the.wim, pr, "!testme")
	b.comment(the.stan, pr, "!testme")
	pushed, _ := b.pullFrom(fork, "pushed")
	b.comment(the.wim, pushed, "!testme")
	_, err = the.fred.Push(b.ctx, fork, testbed.Commit{Branch: "pushed", Message: "evil", Files: map[string]string{"evil": "evil"}})
	b.check(err)
	b.start()
	b.until("the comment is found", func() bool { return len(b.builds(pr)) == 1 })
	if got := b.builds(pr)[0].Params["REF"]; got != sha {
		t.Errorf("built %s, want %s", got, sha)
	}
	b.until("both are answered", func() bool { return len(b.replies(pr)) == 2 })
	b.reply(pushed, "Commits came after this comment was written")
	if n := len(b.builds(pushed)); n != 0 {
		t.Errorf("%d builds of a commit that came after the comment", n)
	}
}

// TestBurst comments 60 times: what runs stays within the caps, and the rest gets one visible reply.
func TestBurst(t *testing.T) {
	t.Parallel()
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "burst"}, map[string]string{"USER_BURST": "10", "USER_EVERY": "1h", "PULL_BURST": "3", "PULL_EVERY": "1h"})
	pr, _ := b.pull("work")
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 15 {
				if _, err := the.wim.Comment(b.ctx, b.repo, pr, "!testme"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	b.until("the limit is said", func() bool {
		for _, reply := range b.replies(pr) {
			if strings.Contains(reply.Body, "Too many commands at once") {
				return true
			}
		}
		return false
	})
	b.until("all hooks are in", func() bool {
		b.tap.mu.Lock()
		defer b.tap.mu.Unlock()
		n := 0
		for _, h := range b.tap.hooks {
			if strings.Contains(string(h.body), `"body": "!testme"`) {
				n++
			}
		}
		return n == 60
	})
	the.hand.decide("burst", "success")
	b.until("the run is over", func() bool {
		for _, build := range b.builds(pr) {
			if build.Status != "success" {
				return false
			}
		}
		return true
	})
	if n, replies := len(b.builds(pr)), len(b.replies(pr)); n < 1 || n > 3 || replies != n+1 {
		t.Errorf("%d builds and %d replies, want at most 3 and one more", n, replies)
	}
}

// TestDronesHint lets Drone's own webhook tell of the end, long before the next poll.
func TestDronesHint(t *testing.T) {
	t.Parallel()
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "hint"}, map[string]string{
		"POLL": "1h", "POLL_MAX": "1h", "DRONE_WEBHOOK_SECRET": droneSecret})
	the.relay.to("http://" + b.listen)
	defer the.relay.to("")
	pr, _ := b.pull("work")
	b.comment(the.wim, pr, "!testme")
	b.ended(pr, "running") // Drone sends hooks for the beginning and the end only
	the.hand.decide("hint", "success")
	b.reply(pr, "**success**")
}

// TestNoSecretIsShown looks for every secret of a bridge in everything that it showed.
func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "canary"}, map[string]string{"DRONE_WEBHOOK_SECRET": droneSecret})
	pr, _ := b.pull("work")
	c := b.running(pr)
	the.hand.decide("canary", "failure")
	b.reply(pr, "**failure**")
	b.until("the run has its reaction", func() bool { return len(b.reactions(c)) == 2 })
	shown := b.shown()
	for _, reply := range b.replies(pr) {
		shown += reply.Body
	}
	for _, build := range b.builds(pr) {
		shown += fmt.Sprint(build.Params)
	}
	for _, secret := range []string{hookSecret, droneSecret, the.bot.Token, the.maint.Token, the.token} {
		if strings.Contains(shown, secret) {
			t.Errorf("a secret of %d bytes was shown", len(secret))
		}
	}
	if !strings.Contains(shown, `"decision":"triggered"`) || !strings.Contains(shown, "cc_ci_bridge_results_total") {
		t.Error("the test has seen neither the audit log nor the metrics")
	}
}
