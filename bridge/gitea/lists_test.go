package gitea_test

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
)

var app = gitea.Repo{ID: bridgetest.RepoID, Owner: bridgetest.Owner, Name: bridgetest.Name}

// forge is a small Gitea and a client of it.
func forge(t *testing.T) (*bridgetest.Gitea, *gitea.Client) {
	t.Helper()
	server := bridgetest.NewGitea(t)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := gitea.New(u, server.Token, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return server, c
}

// TestWholeLists reads lists from servers with different bounds for a page, among them lists that fill their last page:
// everything comes, and once.
func TestWholeLists(t *testing.T) {
	for _, pageMax := range []int{50, 20, 1} {
		for _, n := range []int{1, 19, 20, 49, 50, 51, 100} {
			server, c := forge(t)
			server.PageMax(pageMax)
			for i := range n {
				server.Comment("bot", 1, "text")
				server.Push(2, fmt.Sprintf("%040x", i), "wim", time.Now())
			}
			notes, until, err := c.NotesSince(app, time.Now().Add(-time.Hour))
			if err != nil || len(notes) != n || !until.IsZero() {
				t.Errorf("pages of %d: %d of %d comments until %s (%v)", pageMax, len(notes), n, until, err)
			}
			bot, err := c.Self()
			if err != nil {
				t.Fatal(err)
			}
			found, err := c.Find(app, 1, bot, "text") // a list without pages
			if err != nil || len(found) != n {
				t.Errorf("pages of %d: %d of %d of the bot's comments (%v)", pageMax, len(found), n, err)
			}
			commits, err := c.Commits(app, 2)
			if err != nil || len(commits) != n+1 {
				t.Errorf("pages of %d: %d of %d commits (%v)", pageMax, len(commits), n+1, err)
			}
			pushes, err := c.Pushes(app, 2)
			if err != nil || len(pushes) != n+1 {
				t.Errorf("pages of %d: %d of %d pushes (%v)", pageMax, len(pushes), n+1, err)
			}
		}
	}
}

// TestReposBehindUnseenOnes finds the repository behind pages from which Gitea has left out all others.
func TestReposBehindUnseenOnes(t *testing.T) {
	server, c := forge(t)
	server.Hide(170)
	repos, err := c.Repos(bridgetest.Owner)
	if err != nil || len(repos) != 1 || repos[0] != app {
		t.Errorf("repositories %v, want %v (%v)", repos, app, err)
	}
}
