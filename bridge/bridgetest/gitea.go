package bridgetest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
)

// The one repository of the small Gitea, and its secret. RepoID and a comment's id make its key: the first comment's
// TESTME_ID is 7-1.
const (
	RepoID = 7
	Owner  = "org"
	Name   = "app"
	Secret = "hook-secret-canary-0123456789abcdef"
)

// User is an account and its right to the repository. Its id stays when it is renamed, and a new account of the old
// name has another.
type User struct {
	ID    int64  `json:"id"`
	Login string `json:"login"`
	Right string `json:"-"` // none, read, write, admin or owner
}

// Comment is a comment with the reactions to it. As at Gitea, comments, comments on code and records of pushes are
// rows of one table, so their ids tell which came first. PullURL is what tells a comment on a pull request from one
// on an issue.
type Comment struct {
	ID        int64     `json:"id"`
	User      *User     `json:"user"`
	Body      string    `json:"body"`
	PullURL   string    `json:"pull_request_url"`
	Created   time.Time `json:"created_at"`
	Updated   time.Time `json:"updated_at"`
	Reactions []string  `json:"-"`
	PR        int64     `json:"-"`

	commits []string // the record of a push of these commits instead of a comment
	hidden  bool     // a comment on code: it has a place in the timeline's pages and is not shown
}

// text reports whether it is a comment as people write them: such rows are listed, the others only fill pages.
func (c *Comment) text() bool { return c.commits == nil && !c.hidden }

// Status is a commit status as it was sent. Gitea would keep the newest of each context; here all are kept.
type Status struct {
	State, Context, Description, TargetURL string
}

// pull is a pull request from a fork. Its commits are what the API lists: a push adds one and none ever goes.
type pull struct {
	head, state string
	commits     []string
	opened      string // the head that it was opened with, an hour ago
}

// Gitea is a forge with one repository, whose base holds every pull request. Nothing is checked that the bridge must
// check itself: whoever comments, the body is made and may be sent.
//
// Its ids differ by kind, so that one taken for another is noticed: accounts count from 100 in the order in which
// NewGitea names them, later ones from 200, the fork is 99, the team 5, and comments count from 1.
type Gitea struct {
	URL   string
	Token string
	Faults

	mu       sync.Mutex
	botAdmin bool   // whether the bot may ask for permissions
	redirect string // where requests for pull request 2 are sent, if anywhere
	pageMax  int    // the most entries of one page
	unseen   int    // repositories of the organisation that the bot may not see; they come before the one it may
	users    map[string]*User
	team     map[string]bool // members of the team that writes code
	pulls    map[int64]*pull
	comments []*Comment
	statuses map[string][]Status
}

// NewGitea starts a forge with the accounts bot, olga (owner), wim (writer), rita (reader) and stan (stranger), and
// the open pull requests 1 and 2. Pull request n has the head SHA("n"). The bot is an administrator of the repository
// until DemoteBot.
func NewGitea(t testing.TB) *Gitea {
	g := &Gitea{Token: "gitea-token-canary", botAdmin: true, pageMax: 50, users: map[string]*User{}, team: map[string]bool{},
		pulls: map[int64]*pull{}, statuses: map[string][]Status{}}
	for i, right := range []string{"bot write", "olga owner", "wim write", "rita read", "stan none"} {
		login, right, _ := strings.Cut(right, " ")
		g.users[login] = &User{ID: int64(100 + i), Login: login, Right: right}
	}
	g.OpenPull(1, SHA("1"))
	g.OpenPull(2, SHA("2"))
	api := g.routes()
	g.URL = serve(t, g.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "token "+g.Token {
			reply(w, 401, map[string]string{"message": "token is required"})
			return
		}
		// One request at a time: handlers need no locks, and a test that holds the lock sees a state between two.
		g.mu.Lock()
		defer g.mu.Unlock()
		api.ServeHTTP(w, r)
	})))
	return g
}

// SHA is a commit's hash that consists of one digit.
func SHA(digit string) string { return strings.Repeat(digit, 40) }

// OpenPull opens a pull request with one commit.
func (g *Gitea) OpenPull(n int64, head string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pulls[n] = &pull{head: head, state: "open", commits: []string{head}, opened: head}
}

// ClosePull closes a pull request. No hook is sent; PullBody makes one.
func (g *Gitea) ClosePull(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pulls[n].state = "closed"
}

// Push puts a commit on a pull request's branch and records that, as pushed by an account at a time. Record dates may
// lie in the past, and the ids still tell the order in which the test did things.
func (g *Gitea) Push(n int64, sha, login string, at time.Time) {
	g.Move(n, sha)
	g.Record(n, sha, login, at)
}

// Move puts a commit on a pull request's branch; Gitea records that a moment later, from a queue: see Record.
func (g *Gitea) Move(n int64, sha string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.pulls[n]
	p.head, p.commits = sha, append(p.commits, sha)
}

// Record puts a push into the pull request's timeline.
func (g *Gitea) Record(n int64, sha, login string, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.add(g.users[login], n, "")
	c.commits, c.Created, c.Updated = []string{sha}, at.Truncate(time.Second), at.Truncate(time.Second)
}

// Review puts comments on code into the pull request's timeline, which shows none of them and counts them all.
func (g *Gitea) Review(n int64, comments int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for range comments {
		g.add(g.users["stan"], n, "inline").hidden = true
	}
}

// Grant changes an account's right, from now on: bodies that were made before keep the old one, as signed hooks do.
func (g *Gitea) Grant(login, right string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.users[login].Right = right
}

// Add makes an account, under a new id even if the name was used before: so Forget and Add are a name that changes
// hands.
func (g *Gitea) Add(login, right string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.users[login] = &User{ID: int64(200 + len(g.users)), Login: login, Right: right}
}

// DemoteBot makes the bot a writer who may not ask for permissions: Gitea answers that to administrators of the
// repository.
func (g *Gitea) DemoteBot() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.botAdmin = false
}

// PageMax sets the most entries of one page, Gitea's MAX_RESPONSE_ITEMS. It is 50, as there.
func (g *Gitea) PageMax(entries int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pageMax = entries
}

// Hide gives the organisation older repositories that the bot may not see.
func (g *Gitea) Hide(repos int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unseen = repos
}

// Redirect sends requests for pull request 2 to another server, as a forge in an attacker's hand would.
func (g *Gitea) Redirect(url string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.redirect = url
}

// Rename gives an account another name; what it wrote stays its own, and is shown under the new name.
func (g *Gitea) Rename(login, name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.users[name] = g.users[login]
	g.users[name].Login = name
	delete(g.users, login)
}

// Forget deletes an account; what it wrote stays, and Gitea can no longer show it.
func (g *Gitea) Forget(login string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.users, login)
}

// Join makes an account a member of the team that writes code. Its Right stays: Gitea's permission call does not
// count a team's right to code either.
func (g *Gitea) Join(login string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.team[login] = true
}

// Comment writes a comment and returns its id and the hook's body. No hook is sent. The body holds the head commit
// and the author's right as they are now, whatever happens before it is sent.
func (g *Gitea) Comment(login string, pr int64, text string) (int64, []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.add(g.users[login], pr, text)
	return c.ID, g.body(c)
}

// Edit changes a comment's text. Its time moves on by a second: Gitea's times are whole ones.
func (g *Gitea) Edit(id int64, text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.comments[id-1]
	c.Body, c.Updated = text, c.Updated.Add(time.Second)
}

// Date makes a comment older: it was written, and never edited, at that time.
func (g *Gitea) Date(id int64, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.comments[id-1].Created, g.comments[id-1].Updated = at.Truncate(time.Second), at.Truncate(time.Second)
}

// Replies returns the bot's comments on a pull request, oldest first, notices included, without those it has deleted.
func (g *Gitea) Replies(pr int64) []Comment {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []Comment
	for _, c := range g.comments {
		if c.User.Login == "bot" && c.PR == pr && c.text() {
			all = append(all, *c)
		}
	}
	return all
}

// Reactions returns the reactions to a comment in the order in which they came; all are the bot's.
func (g *Gitea) Reactions(id int64) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.comments[id-1].Reactions...)
}

// Statuses returns the statuses of a commit, oldest first: how a run went, and at last how it ended.
func (g *Gitea) Statuses(sha string) []Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]Status(nil), g.statuses[sha]...)
}

// add makes a row of the table of comments, dated now. The caller holds the lock.
func (g *Gitea) add(user *User, pr int64, text string) *Comment {
	now := time.Now().Truncate(time.Second)
	c := &Comment{ID: int64(len(g.comments) + 1), User: user, Body: text, PR: pr, Created: now, Updated: now,
		PullURL: "http://forge/" + Owner + "/" + Name + "/pulls/" + strconv.FormatInt(pr, 10)}
	g.comments = append(g.comments, c)
	return c
}

// Body is the hook's body of a comment, as it would be sent now. Gitea makes one when the comment is written and
// keeps it; this is for bodies that hold what a test has changed since.
func (g *Gitea) Body(id int64) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.body(g.comments[id-1])
}

// body is what Gitea sends when the comment is created, without what the bridge does not read. The repository's
// permissions are the sender's, with teams counted; the head belongs to another repository, the fork.
func (g *Gitea) body(c *Comment) []byte {
	p := g.pulls[c.PR]
	writes := c.User.Right != "none" && c.User.Right != "read" || g.team[c.User.Login]
	raw, err := json.MarshalIndent(map[string]any{
		"action": "created", "is_pull": true, "comment": c, "sender": c.User,
		"issue":        map[string]any{"number": c.PR, "state": p.state},
		"pull_request": pullJSON(c.PR, p),
		"repository": map[string]any{"id": RepoID, "name": Name, "full_name": Owner + "/" + Name,
			"permissions": map[string]bool{"push": writes, "pull": true}},
	}, "", "  ")
	if err != nil {
		return nil // plain values always encode
	}
	return raw
}

// PullBody is what Gitea sends when a pull request is synchronized or closed, caused by an account.
func (g *Gitea) PullBody(action string, pr int64, login string) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	raw, err := json.Marshal(map[string]any{
		"action": action, "number": pr, "pull_request": pullJSON(pr, g.pulls[pr]), "sender": g.users[login],
		"repository": map[string]any{"id": RepoID, "name": Name, "full_name": Owner + "/" + Name},
	})
	if err != nil {
		return nil // plain values always encode
	}
	return raw
}

// pullJSON is a pull request as both hooks and the API show it.
func pullJSON(n int64, p *pull) map[string]any {
	return map[string]any{"number": n, "state": p.state,
		"head": map[string]any{"sha": p.head, "repo_id": 99}, "base": map[string]any{"repo_id": RepoID}}
}

// Send signs a body and posts it to a hook. The delivery's id differs each time, as when Gitea is told to deliver
// again.
func Send(url string, body []byte) (int, error) {
	return Post(url, body, http.Header{
		"Content-Type": {"application/json"}, "X-Gitea-Event": {"issue_comment"},
		"X-Gitea-Delivery":  {strconv.FormatInt(time.Now().UnixNano(), 36)},
		"X-Gitea-Signature": {gitea.Sign([]byte(Secret), body)},
	})
}
