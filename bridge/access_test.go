package bridge_test

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// TestWhoMay asks every kind of account in every mode, with a bot that may and one that may not ask for permissions.
func TestWhoMay(t *testing.T) {
	list := func(c *bridge.Config) {
		c.Access, c.Users, c.Teams = bridge.AccessList, []string{"Stan"}, []string{"org/coders"}
	}
	modes := []struct {
		name   string
		admin  bool
		change func(*bridge.Config)
		may    []string
		others string
	}{
		{"write", true, nil, []string{"olga", "wim", "tina"}, "Only people who may write to this repository"},
		{"write, bot is no administrator", false, nil, []string{"olga", "wim", "tina"}, "Only people who may write to this repository"},
		{"collaborator", true, func(c *bridge.Config) { c.Access = bridge.AccessCollaborator }, []string{"wim", "rita"}, "Only collaborators of"},
		{"list", true, list, []string{"stan", "tina"}, "Only people on the bridge's list"},
		{"unknown mode", true, func(c *bridge.Config) { c.Access = "everyone" }, nil, "Only people who may write"},
	}
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			b := newBed(t, mode.change)
			if !mode.admin {
				b.gitea.DemoteBot()
			}
			b.gitea.Add("tina", "none")
			b.gitea.Join("tina")
			for i, login := range []string{"olga", "wim", "rita", "tina", "stan"} {
				pr := int64(10 + i)
				b.gitea.OpenPull(pr, fmt.Sprintf("%040x", pr))
				before := len(b.drone.Builds())
				comment := b.say(login, pr, "!testme", 202)
				if slices.Contains(mode.may, login) {
					b.built(before + 1)
					continue
				}
				b.reacted(comment, "confused")
				b.reply(pr, mode.others)
				b.built(before)
			}
		})
	}
}

// TestRevokedBetweenHookAndBuild takes the right away after the hook was signed.
func TestRevokedBetweenHookAndBuild(t *testing.T) {
	b := newBed(t, nil)
	comment, body := b.gitea.Comment("wim", 1, "!testme")
	b.gitea.Grant("wim", "read")
	b.send(body, 202)
	b.reacted(comment, "confused")
	b.idle()
	b.built(0)
}

// TestNameChangedHands shows that a right belongs to an account, not to its name.
func TestNameChangedHands(t *testing.T) {
	for _, access := range []string{bridge.AccessWrite, bridge.AccessCollaborator, bridge.AccessList} {
		t.Run(access, func(t *testing.T) {
			b := newBed(t, func(c *bridge.Config) { c.Access, c.Users, c.Teams = access, []string{"wim"}, []string{"org/coders"} })
			comment, body := b.gitea.Comment("wim", 1, "!testme")
			b.gitea.Rename("wim", "gone") // and another takes the name
			b.gitea.Add("wim", "write")
			b.gitea.Join("wim")
			b.send(body, 202)
			b.reacted(comment, "confused")
			b.idle()
			b.built(0)
		})
	}
}

// TestGoneAuthor deletes the account between the hook and the decision: Gitea then answers 500 when it is asked for the
// comment, which is not waited out.
func TestGoneAuthor(t *testing.T) {
	b := newBed(t, nil)
	comment, body := b.gitea.Comment("wim", 1, "!testme")
	b.gitea.Forget("wim")
	b.send(body, 202)
	b.reacted(comment, "confused")
	b.idle()
	b.built(0)
	if !strings.Contains(b.audit.String(), `"rule":"author is gone"`) {
		t.Errorf("audit: %s", b.audit)
	}
}

// TestNoAnswerIsNo shows that nothing runs while rights cannot be confirmed, and that it runs when they can.
func TestNoAnswerIsNo(t *testing.T) {
	b := newBed(t, nil)
	asked := make(chan struct{}, 1000)
	b.gitea.Script(func(r *http.Request) bridgetest.Fault {
		if strings.HasSuffix(r.URL.Path, "/permission") {
			asked <- struct{}{}
			return bridgetest.Fault{Status: 500}
		}
		return bridgetest.Fault{}
	})
	b.say("wim", 1, "!testme", 202)
	for range 5 {
		<-asked
	}
	b.built(0)
	b.gitea.Script(nil)
	b.built(1)
}

// TestPinnedCommit moves the branch at every moment that matters.
func TestPinnedCommit(t *testing.T) {
	old, fresh := bridgetest.SHA("1"), bridgetest.SHA("b")
	late := time.Now().Add(time.Minute)
	cases := []struct {
		name, policy, command string
		quiet                 time.Duration
		push                  string    // who pushes
		at                    time.Time // when, as Gitea dates it
		after                 bool      // after the hook was signed
		ref, reply            string    // what is built, what is said
	}{
		{"pushed after, pinned", bridge.PolicyPinned, "!testme", 0, "stan", late, true, old, "The branch moved to `bbbbbbbbbb` after the comment"},
		{"pushed after, refused", bridge.PolicyRefuse, "!testme", 0, "stan", late, true, "", "so nothing was run"},
		{"pushed after, named old", bridge.PolicyRefuse, "!testme 1111111", 0, "stan", late, true, old, "queued"},
		{"pushed after, named new", bridge.PolicyRefuse, "!testme bbbbbbb", 0, "stan", late, true, fresh, "queued"},
		{"named none", bridge.PolicyPinned, "!testme ccccccc", 0, "stan", late, true, "", "0 commits of this pull request start with `ccccccc`"},
		{"stranger just before", bridge.PolicyPinned, "!testme", time.Minute, "stan", time.Now().Add(-5 * time.Second), false, "", "Commits came moments before this comment"},
		{"stranger just before, named", bridge.PolicyPinned, "!testme bbbbbbb", time.Minute, "stan", time.Now().Add(-5 * time.Second), false, fresh, "queued"},
		{"stranger in the same second", bridge.PolicyPinned, "!testme", time.Minute, "stan", time.Now(), false, "", "Commits came moments before this comment"},
		{"writer just before", bridge.PolicyPinned, "!testme", time.Minute, "olga", time.Now().Add(-5 * time.Second), false, fresh, "queued"},
		{"author just before", bridge.PolicyPinned, "!testme", time.Minute, "wim", time.Now().Add(-5 * time.Second), false, fresh, "queued"},
		{"stranger long before", bridge.PolicyPinned, "!testme", time.Minute, "stan", time.Now().Add(-5 * time.Minute), false, fresh, "queued"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, func(cfg *bridge.Config) { cfg.Policy, cfg.Quiet = c.policy, c.quiet })
			if !c.after {
				b.gitea.Push(1, fresh, c.push, c.at)
			}
			_, body := b.gitea.Comment("wim", 1, c.command)
			if c.after {
				b.gitea.Push(1, fresh, c.push, c.at)
			}
			b.send(body, 202)
			b.reply(1, c.reply)
			if c.ref == "" {
				b.idle()
				b.built(0)
				return
			}
			b.built(1)
			if got := b.drone.Builds()[0].Params["REF"]; got != c.ref {
				t.Errorf("built %s, want %s", got, c.ref)
			}
		})
	}
}

// TestRecordOfThePush commits at moments when Gitea's record of the push is late, missing, or behind pages that show
// nothing: what cannot be told apart from a stranger's push just before the comment is not run.
func TestRecordOfThePush(t *testing.T) {
	fresh := bridgetest.SHA("b")
	cases := []struct {
		name    string
		record  func(*bed) // what happens after the push and before the comment
		late    func(*bed) // what happens once the bridge has looked in vain
		reply   string
		allowed bool
	}{
		{"late, a stranger's", nil, func(b *bed) { b.gitea.Record(1, fresh, "stan", time.Now()) }, "Commits came moments before", false},
		{"late, a writer's", nil, func(b *bed) { b.gitea.Record(1, fresh, "olga", time.Now()) }, "queued", true},
		{"missing", nil, nil, "It is not known when `bbbbbbbbbb` came to this pull request", false},
		{"behind a page of comments on code", func(b *bed) {
			b.gitea.Review(1, 49)
			b.gitea.Record(1, fresh, "stan", time.Now())
		}, nil, "Commits came moments before", false},
		{"behind pages that show nothing", func(b *bed) {
			b.gitea.Review(1, 149)
			b.gitea.Record(1, fresh, "stan", time.Now())
		}, nil, "It is not known when", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t, func(cfg *bridge.Config) {
				cfg.Quiet = time.Minute
				if c.late != nil {
					cfg.Record = time.Hour
				}
			})
			b.gitea.Move(1, fresh)
			if c.record != nil {
				c.record(b)
			}
			b.say("wim", 1, "!testme", 202)
			if c.late != nil {
				b.until("the bridge has looked", func() bool { return strings.Contains(b.log.String(), "has no record of the push") })
				b.built(0)
				c.late(b)
			}
			b.reply(1, c.reply)
			if c.allowed {
				b.built(1)
				return
			}
			b.idle()
			b.built(0)
		})
	}
}

// TestLatePushKeepsThePinnedRun shows that the hook of a push which the reply has told of does not end the run.
func TestLatePushKeepsThePinnedRun(t *testing.T) {
	b := newBed(t, nil)
	_, body := b.gitea.Comment("wim", 1, "!testme")
	b.gitea.Push(1, bridgetest.SHA("b"), "stan", time.Now().Add(time.Minute))
	b.send(body, 202)
	b.built(1)
	b.send(b.gitea.PullBody("synchronized", 1, "stan"), 202)
	b.drone.Set(1, "success")
	b.reply(1, "**success**")
	b.idle()
}

// TestMissedComments stops the bridge, comments, and starts it again.
func TestMissedComments(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.CatchUp, c.Grace = 20*time.Millisecond, 0 })
	b.until("the repository's mark is set", func() bool {
		return strings.Contains(strings.Join(b.gitea.Asked(), "\n"), "/issues/comments?")
	})
	b.stop()
	for pr := int64(10); pr < 19; pr++ {
		b.gitea.OpenPull(pr, fmt.Sprintf("%040x", pr))
	}
	b.gitea.Comment("wim", 10, "!testme")                           // the plain case
	b.gitea.Comment("stan", 11, "!testme")                          // may not
	b.gitea.Comment("wim", 12, "> !testme")                         // is no command
	b.gitea.Comment("bot", 13, "!testme")                           // is the bot itself
	b.gitea.Comment("wim", 14, "!testme")                           // pushed to since: which commit?
	b.gitea.Push(14, bridgetest.SHA("c"), "wim", time.Now())        //
	b.gitea.Comment("wim", 15, "!testme "+fmt.Sprintf("%040x", 15)) // pushed to since, but named
	b.gitea.Push(15, bridgetest.SHA("d"), "wim", time.Now())        //
	edited, _ := b.gitea.Comment("wim", 16, "looks good")           // made a command later
	b.gitea.Edit(edited, "!testme")                                 //
	b.gitea.Push(17, bridgetest.SHA("e"), "stan", time.Now())       // pushed to before, in the same second
	b.gitea.Comment("wim", 17, "!testme")                           //
	b.gitea.Comment("wim", 18, "!testme")                           // pushed to since, and that not yet on record
	b.gitea.Move(18, bridgetest.SHA("f"))                           //
	b.start()
	b.built(3)
	b.reply(10, "queued")
	b.reply(11, "Only people who may write")
	b.reply(14, "Commits came after this comment was written")
	b.reply(15, "queued")
	b.reply(17, "queued")
	b.reply(18, "It is not known when `ffffffffff` came")
	var refs []string
	for _, build := range b.drone.Builds() {
		refs = append(refs, build.Params["REF"])
	}
	slices.Sort(refs)
	if want := []string{fmt.Sprintf("%040x", 10), fmt.Sprintf("%040x", 15), bridgetest.SHA("e")}; !slices.Equal(refs, want) {
		t.Errorf("built %v, want %v", refs, want)
	}
	b.until("the edited comment is judged", func() bool { return strings.Contains(b.audit.String(), "comment was edited") })
	for _, pr := range []int64{12, 13, 16} {
		if got := b.gitea.Replies(pr); pr != 13 && len(got) > 0 {
			t.Errorf("pull request %d was answered: %+v", pr, got)
		}
	}
}

// TestTooOldIsAnswered shows that a comment found too late is answered and not run.
func TestTooOldIsAnswered(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.CatchUp, c.Grace = 20*time.Millisecond, 0 })
	b.until("the repository's mark is set", func() bool {
		return strings.Contains(strings.Join(b.gitea.Asked(), "\n"), "/issues/comments?")
	})
	b.stop()
	b.gitea.Comment("wim", 1, "!testme")
	b.cfg.MaxAge = time.Nanosecond
	b.start()
	b.reply(1, "This command was found too late to be run; comment again.")
	b.idle()
	b.built(0)
}

// TestMissedAndNotConfirmed shows that nothing of a missed comment is signed: a bot that may not ask for its author's
// permission answers and does not run.
func TestMissedAndNotConfirmed(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.CatchUp, c.Grace = 10*time.Millisecond, 0 })
	b.gitea.DemoteBot()
	b.gitea.Comment("wim", 1, "!testme")
	b.reply(1, "Your right to start tests could not be confirmed; comment again")
	b.idle()
	b.built(0)
}

// TestMissedOnlyOnce shows that a comment which a hook brought is not found again, and the other way round.
func TestMissedOnlyOnce(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.CatchUp, c.Grace = 10*time.Millisecond, 0 })
	_, body := b.gitea.Comment("wim", 1, "!testme")
	_, err := bridgetest.Send(b.hook, body) // before or after it was read
	check(t, err)
	b.built(1)
	_, body = b.gitea.Comment("wim", 2, "!testme")
	b.built(2) // by reading
	b.send(body, 200)
	scans := strings.Count(strings.Join(b.gitea.Asked(), "\n"), "/issues/comments?")
	b.until("the comments were read again", func() bool {
		return strings.Count(strings.Join(b.gitea.Asked(), "\n"), "/issues/comments?") > scans+3
	})
	b.built(2)
}

// TestWatermarkMoves shows that what was read once is not read for ever.
func TestWatermarkMoves(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.CatchUp, c.Grace = 10*time.Millisecond, 0 })
	b.stop()
	store, err := journal.Open(filepath.Join(b.dir, "journal"))
	check(t, err)
	hour := time.Now().Add(-time.Hour)
	check(t, store.SetMark(bridgetest.Owner+"/"+bridgetest.Name, hour.Add(-time.Hour)))
	check(t, store.Close())
	b.gitea.Comment("wim", 1, "any comment")
	before := len(b.gitea.Asked())
	b.start()
	var since []time.Time // of each reading
	b.until("the comments are read from a later time", func() bool {
		since = nil
		for _, asked := range b.gitea.Asked()[before:] {
			_, query, _ := strings.Cut(asked, "/issues/comments?")
			if values, err := url.ParseQuery(query); err == nil && values.Has("since") {
				at, err := time.Parse(time.RFC3339, values.Get("since"))
				check(t, err)
				since = append(since, at)
			}
		}
		return len(since) > 0 && since[len(since)-1].After(hour)
	})
	if since[0].After(hour) {
		t.Errorf("the first reading began at %s, want what the mark says", since[0])
	}
}

// TestMoreThanOnePassCanRead starts after more comments than are read at a time; at one a page that is 200. The command
// behind them is found by a later pass.
func TestMoreThanOnePassCanRead(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.CatchUp, c.Grace = 10*time.Millisecond, 0 })
	b.stop()
	store, err := journal.Open(filepath.Join(b.dir, "journal"))
	check(t, err)
	away := time.Now().Add(-2 * time.Hour)
	check(t, store.SetMark(bridgetest.Owner+"/"+bridgetest.Name, away))
	check(t, store.Close())
	b.gitea.PageMax(1)
	edited, _ := b.gitea.Comment("rita", 2, "old") // comes with the first ones, and its change is the latest of all
	b.gitea.Date(edited, away)
	forge, err := gitea.New(parse(t, b.gitea.URL), b.gitea.Token, time.Minute)
	check(t, err)
	check(t, forge.Edit(gitea.Repo{Owner: bridgetest.Owner, Name: bridgetest.Name}, edited, "new"))
	for i := range 300 {
		id, _ := b.gitea.Comment("rita", 2, "any comment")
		b.gitea.Date(id, away.Add(time.Duration(i)*20*time.Second))
	}
	late, _ := b.gitea.Comment("wim", 1, "!testme")
	b.gitea.Date(late, time.Now().Add(-10*time.Minute)) // before what is read twice
	b.start()
	b.built(1)
	if strings.Contains(b.log.String(), "could not be read") {
		t.Error("a pass failed")
	}
}
