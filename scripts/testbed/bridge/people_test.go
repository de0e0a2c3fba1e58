package bridge_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// TestPermissions lets every kind of account comment on repositories of a user and of an organisation, public and
// private, with a bot that administers them and one that only writes.
func TestPermissions(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		name  string
		spec  testbed.RepoSpec
		right gitea.AccessMode
	}{
		{"perm-user", testbed.RepoSpec{}, gitea.AccessModeAdmin},
		{"perm-user-plain", testbed.RepoSpec{}, gitea.AccessModeWrite},
		{"perm-user-private", testbed.RepoSpec{Private: true}, gitea.AccessModeAdmin},
		{"perm-org", testbed.RepoSpec{Owner: "recipes"}, gitea.AccessModeAdmin},
		{"perm-org-plain", testbed.RepoSpec{Owner: "recipes"}, gitea.AccessModeWrite},
		{"perm-org-private", testbed.RepoSpec{Owner: "recipes", Private: true}, gitea.AccessModeAdmin},
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			kind.spec.Name = kind.name
			b := newBridge(t, kind.spec, nil)
			b.check(the.maint.AddCollaborator(b.ctx, b.repo, the.bot, kind.right))
			org, plain := kind.spec.Owner != "", kind.right == gitea.AccessModeWrite
			people := []struct {
				user         *testbed.User
				may, comment bool
			}{
				{the.maint, true, true}, // owner of the repository or of the organisation
				{the.wim, true, true},
				{the.rita, false, true},
				{the.tina, org, org || !kind.spec.Private},
				{the.odo, org, org || !kind.spec.Private},
				{the.stan, false, !kind.spec.Private},
				// Only an administrator's bot can learn that a site administrator may write everywhere.
				{the.bed.Gitea.Admin, !plain, true},
			}
			b.goneAuthor("una-" + kind.name)
			for _, p := range people {
				if !p.comment {
					continue // Gitea shows the repository to nobody else
				}
				pr := b.ownPull("by-" + p.user.Name)
				b.comment(p.user, pr, "!testme")
				if p.may {
					b.reply(pr, "running")
					if n := len(b.builds(pr)); n != 1 {
						t.Errorf("%s: %d builds, want 1", p.user.Name, n)
					}
					continue
				}
				refusal := "Only people who may write"
				if p.user == the.bed.Gitea.Admin {
					refusal = "could not be confirmed"
				}
				b.reply(pr, refusal)
				if n := len(b.builds(pr)); n != 0 {
					t.Errorf("%s: %d builds, want none", p.user.Name, n)
				}
			}
		})
	}
}

// goneAuthor lets a writer comment whose account is deleted before the hook comes: Gitea no longer knows who it was.
func (b *bridge) goneAuthor(name string) {
	b.Helper()
	una, err := the.bed.Gitea.NewUser(b.ctx, name)
	b.check(err)
	b.check(the.maint.AddCollaborator(b.ctx, b.repo, una, gitea.AccessModeWrite))
	pr := b.ownPull("by-" + name)
	b.tap.hold(true)
	c := b.comment(una, pr, "!testme")
	var held hook
	b.until("the hook is held", func() (ok bool) {
		held, ok = b.tap.find(`"body": "!testme"`)
		return ok
	})
	admin, err := the.bed.Gitea.Admin.Client(b.ctx)
	b.check(err)
	_, err = admin.AdminDeleteUser(name)
	b.check(err)
	b.tap.hold(false)
	code, err := held.send("http://"+b.listen+"/hook", "late")
	if b.check(err); code != 202 {
		b.Fatalf("the hook was answered %d", code)
	}
	b.until("the command is refused", func() bool { return slices.Contains(b.reactions(c), "confused") })
	if n := len(b.builds(pr)); n != 0 {
		b.Errorf("%s: %d builds, want none", name, n)
	}
}

// TestOtherModes asks the two modes beside "write". In both a right to write counts for nothing.
func TestOtherModes(t *testing.T) {
	modes := []struct {
		name        string
		env         map[string]string
		may, mayNot []*testbed.User
		refusal     string
	}{
		{"mode-collaborator", map[string]string{"ACCESS": "collaborator"}, []*testbed.User{the.wim, the.rita},
			[]*testbed.User{the.maint, the.tina, the.odo, the.stan}, "Only collaborators of this repository"},
		{"mode-list", map[string]string{"ACCESS": "list", "USERS": "Stan", "TEAMS": "recipes/coders"}, []*testbed.User{the.stan, the.tina},
			[]*testbed.User{the.maint, the.wim, the.rita, the.odo}, "Only people on the bridge's list"},
	}
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: mode.name}, mode.env)
			for _, user := range mode.may {
				pr := b.ownPull("by-" + user.Name)
				b.comment(user, pr, "!testme")
				b.reply(pr, "running")
			}
			for _, user := range mode.mayNot {
				pr := b.ownPull("by-" + user.Name)
				b.comment(user, pr, "!testme")
				b.reply(pr, mode.refusal)
				if n := len(b.builds(pr)); n != 0 {
					t.Errorf("%s: %d builds, want none", user.Name, n)
				}
			}
		})
	}
}

// ownPull opens a pull request from a branch of the repository itself.
func (b *bridge) ownPull(branch string) int64 {
	b.Helper()
	_, err := the.maint.Push(b.ctx, b.repo, testbed.Commit{Branch: branch, Message: branch, Files: map[string]string{branch: branch}})
	b.check(err)
	pr, err := the.maint.NewPullRequest(b.ctx, b.repo, branch, branch)
	b.check(err)
	return pr.Index
}

// TestOnlyCommandsFire writes what looks like a command, in every way that people and attackers do.
func TestOnlyCommandsFire(t *testing.T) {
	t.Parallel()
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "fires"}, nil)
	pr, _ := b.pull("work")
	client, err := the.wim.Client(b.ctx)
	b.check(err)
	for _, text := range []string{"> !testme", "`!testme`", "```\n!testme\n```", "please !testme", "!testme\nthanks", "!testme\u00a0",
		"\u200b!testme", "！testme", "!tеstme", "!TESTME", strings.Repeat("x", 2<<20)} {
		b.comment(the.wim, pr, text)
	}
	edited := b.comment(the.wim, pr, "a word")
	_, _, err = client.EditIssueComment(b.repo.Owner, b.repo.Name, edited.ID, gitea.EditIssueCommentOption{Body: "!testme"})
	b.check(err)
	foreign := b.comment(the.stan, pr, "a word") // a writer may edit what others wrote
	_, _, err = client.EditIssueComment(b.repo.Owner, b.repo.Name, foreign.ID, gitea.EditIssueCommentOption{Body: "!testme"})
	b.check(err)
	_, _, err = client.CreatePullReview(b.repo.Owner, b.repo.Name, pr, gitea.CreatePullReviewOptions{State: gitea.ReviewStateComment, Body: "!testme"})
	b.check(err)
	issue, _, err := client.CreateIssue(b.repo.Owner, b.repo.Name, gitea.CreateIssueOption{Title: "issue", Body: "!testme"})
	b.check(err)
	b.comment(the.wim, issue.Index, "!testme")

	last := b.comment(the.wim, pr, "!testme ?") // hooks may come in any order, so wait for more than this one
	b.until("the question is answered", func() bool { return len(b.reactions(last)) == 2 })
	time.Sleep(3 * time.Second) // longer than Gitea was ever seen to hold a hook back
	if replies := b.replies(pr); len(replies) != 1 || len(b.builds(pr)) != 0 {
		t.Errorf("%d replies, %d builds, want the help only", len(replies), len(b.builds(pr)))
	}
	if replies := b.replies(issue.Index); len(replies) != 0 {
		t.Errorf("an issue was answered: %s", replies[0].Body)
	}
}

// TestRunByTheBook starts the bridge with exactly the token scopes and rights that docs/bridge.md names, and asks doctor.
func TestRunByTheBook(t *testing.T) {
	t.Parallel()
	token, err := the.bot.NewToken(t.Context(), "runtime", "read:user", "write:issue",
		"write:repository", "read:organization")
	if err != nil {
		t.Fatal(err)
	}
	admin, err := the.maint.NewToken(t.Context(), "register", "write:repository")
	if err != nil {
		t.Fatal(err)
	}
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "book"}, map[string]string{"GITEA_TOKEN": token, "ADMIN_TOKEN": admin})
	if out, err := b.tool("doctor"); err != nil || strings.Contains(out, "FAIL") || !strings.Contains(out, "the hook is right") ||
		!strings.Contains(out, "the CI repository has .drone.yml on branch main") || !strings.Contains(out, "ALLOWED_HOST_LIST") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	if out, err := b.tool("register"); err != nil || !strings.Contains(out, "unchanged") {
		t.Errorf("register: %v\n%s", err, out)
	}
	pr, sha := b.pull("work")
	comment := b.comment(the.tina, pr, "!testme")
	b.reply(pr, "running")
	the.hand.decide("book", "success")
	b.reply(pr, "**success**")
	b.until("the status is final", func() bool { return b.status(sha) == "success" })
	b.until("the rocket is there", func() bool { return len(b.reactions(comment)) == 2 })

	poor, err := the.bot.NewToken(b.ctx, "poor", "read:user", "read:issue", "read:repository")
	b.check(err)
	b.env["GITEA_TOKEN"], b.env["CI_BRANCH"] = poor, "missing"
	out, err := b.tool("doctor")
	if err == nil || !strings.Contains(out, "has no .drone.yml on branch missing") || !strings.Contains(out, "lacks the scope write:issue") || !strings.Contains(out, "lacks the scope write:repository") {
		t.Errorf("doctor with a poor token: %v\n%s", err, out)
	}
}

// TestOrganisation registers one hook for an organisation: it serves repositories that are made later, too.
func TestOrganisation(t *testing.T) {
	t.Parallel()
	if err := the.maint.NewOrg(t.Context(), "guild"); err != nil {
		t.Fatal(err)
	}
	token, err := the.bot.NewToken(t.Context(), "guild", "read:user", "write:issue", "write:repository", "read:organization")
	if err != nil {
		t.Fatal(err)
	}
	admin, err := the.maint.NewToken(t.Context(), "guild", "write:organization")
	if err != nil {
		t.Fatal(err)
	}
	b := newBridge(t, testbed.RepoSpec{Owner: "guild", Name: "first"},
		map[string]string{"REPOS": "guild", "CATCH_UP": "1h", "GITEA_TOKEN": token, "ADMIN_TOKEN": admin})
	for range 2 {
		if out, err := b.tool("register"); err != nil || out != "guild: unchanged\n" {
			t.Errorf("register: %v\n%s", err, out)
		}
	}
	if out, err := b.tool("register", "--rotate"); err != nil || out != "guild: secret rotated\n" {
		t.Errorf("register --rotate: %v\n%s", err, out)
	}
	b.repo, err = the.maint.NewRepo(b.ctx, testbed.RepoSpec{Owner: "guild", Name: "second", Files: map[string]string{"compose.yml": "services: {}"}})
	b.check(err)
	b.check(the.maint.AddCollaborator(b.ctx, b.repo, the.bot, gitea.AccessModeAdmin))
	pr := b.ownPull("work")
	b.comment(the.maint, pr, "!testme ?")
	b.reply(pr, "ends every run")
	if out, err := b.tool("doctor"); err != nil || !strings.Contains(out, "guild: the hook is right") {
		t.Errorf("doctor: %v\n%s", err, out)
	}

	// A user has no hooks of their own: each repository gets one.
	lone, err := the.bed.Gitea.NewUser(b.ctx, "lone")
	b.check(err)
	thing, err := lone.NewRepo(b.ctx, testbed.RepoSpec{Name: "thing", Files: map[string]string{"compose.yml": "services: {}"}})
	b.check(err)
	b.check(lone.AddCollaborator(b.ctx, thing, the.bot, gitea.AccessModeWrite))
	b.env["REPOS"] = "lone"
	b.env["ADMIN_TOKEN"], err = lone.NewToken(b.ctx, "hooks", "write:repository", "read:user", "read:organization")
	b.check(err)
	b.env["GITEA_TOKEN"], err = the.bot.NewToken(b.ctx, "plain", "read:user", "write:issue", "write:repository")
	b.check(err)
	if out, err := b.tool("register"); err != nil || out != "lone/thing: no hook; repaired\n" {
		t.Errorf("register: %v\n%s", err, out)
	}
	if out, err := b.tool("doctor"); err != nil || !strings.Contains(out, "lone/thing: the hook is right") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
}

// TestHookIsRepaired breaks the hook as Gitea's own API does and registers again; a rotated secret loses no comment.
func TestHookIsRepaired(t *testing.T) {
	t.Parallel()
	const fresh = "a-fresh-secret-canary-0123456789abcdef"
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "repair"}, map[string]string{
		"HOOK_SECRETS": fresh + "," + hookSecret, "CATCH_UP": "1s", // what waits in Gitea for a hook that goes is lost
	})
	client, err := the.maint.Client(b.ctx)
	b.check(err)
	hooks, _, err := client.ListRepoHooks(b.repo.Owner, b.repo.Name, gitea.ListHooksOptions{})
	b.check(err)
	if len(hooks) != 1 {
		t.Fatalf("%d hooks, want 1", len(hooks))
	}
	_, err = client.EditRepoHook(b.repo.Owner, b.repo.Name, hooks[0].ID, gitea.EditHookOption{Config: map[string]string{"url": b.env["HOOK_URL"], "content_type": "json"}})
	b.check(err) // without events Gitea resets them to push
	if out, err := b.tool("doctor"); err == nil || !strings.Contains(out, "event pull_request_comment is missing") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	if out, err := b.tool("register"); err != nil || !strings.Contains(out, "event pull_request_comment is missing") || !strings.Contains(out, "repaired") {
		t.Errorf("register: %v\n%s", err, out)
	}
	pr, _ := b.pull("work")
	for i := range 4 { // comments keep coming while the secret changes
		c := b.comment(the.wim, pr, "!testme ?")
		if i == 1 {
			if out, err := b.tool("register", "--rotate"); err != nil || !strings.Contains(out, "secret rotated") {
				t.Errorf("register: %v\n%s", err, out)
			}
		}
		b.until("the comment is answered", func() bool { return len(b.reactions(c)) == 2 })
	}
	hooks, _, err = client.ListRepoHooks(b.repo.Owner, b.repo.Name, gitea.ListHooksOptions{})
	if b.check(err); len(hooks) != 1 {
		t.Errorf("%d hooks after all, want 1", len(hooks))
	}
}
