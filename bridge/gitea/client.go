// Package gitea is the bridge's view of Gitea: its signed hooks, and the few API calls that the bridge makes.
//
// Two kinds of knowledge come from here and are kept apart. An Event was signed: it says what was true at its instant,
// such as the head commit and the sender's right. Everything else was asked for: it says what is true now. The
// package only reports; what follows from it is decided in package bridge.
//
//	payload.go, signature.go   what a hook says, and whether Gitea said it
//	client.go, notes.go        repositories, pull requests, statuses; comments and reactions
//	access.go                  who may write
//	hooks.go, probe.go         for register and doctor
//
// The calls are Gitea's SDK's, of an API that Forgejo has kept. They take no context: each ends by the client's
// timeout.
package gitea

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	sdk "code.gitea.io/sdk/gitea"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/safehttp"
)

// pageSize is Gitea's default upper bound for one page of a list ([api] MAX_RESPONSE_ITEMS). A server with a smaller
// bound gives shorter pages.
const pageSize = 50

// maxPages ends lists that never end, as a server that ignores the page's number would give them.
const maxPages = 200

// errTooLong is the error of a list that did not end with maxPages.
var errTooLong = fmt.Errorf("list is longer than %d pages", maxPages)

// Client calls one Gitea server with one token. It may be used from several goroutines. Errors of its methods wrap what
// safehttp tells apart, and name what was asked for.
type Client struct {
	api   *sdk.Client
	quick *sdk.Client // for reactions, with connections of its own: the eyes must not wait behind slow calls
	base  string
}

// New returns a client; it makes no call yet. The timeout bounds each of its calls; a list is a call for each page.
func New(server *url.URL, token string, timeout time.Duration) (*Client, error) {
	base := strings.TrimSuffix(server.String(), "/")
	connect := func() (*sdk.Client, error) {
		// Without a version the SDK neither probes the server nor holds back calls: Forgejo and self-built Gitea
		// report versions that it cannot read.
		return sdk.NewClient(base, sdk.SetGiteaVersion(""), sdk.SetHTTPClient(safehttp.New(server, "token "+token, timeout)))
	}
	api, err := connect()
	if err != nil {
		return nil, fmt.Errorf("gitea client: %w", err)
	}
	quick, err := connect()
	if err != nil {
		return nil, fmt.Errorf("gitea client: %w", err)
	}
	return &Client{api: api, quick: quick, base: base}, nil
}

// CloneURL is where a repository is fetched from. It is made of the configured address, never of one that a body
// holds: the builds fetch from there.
func (c *Client) CloneURL(r Repo) string { return c.base + "/" + r.FullName() + ".git" }

// CommentURL links to a comment.
func (c *Client) CommentURL(r Repo, pr, comment int64) string {
	return fmt.Sprintf("%s/%s/pulls/%d#issuecomment-%d", c.base, r.FullName(), pr, comment)
}

// Self returns the account that the token belongs to. That takes the scope read:user.
func (c *Client) Self() (User, error) {
	user, _, err := c.api.GetMyUserInfo()
	if err != nil {
		return User{}, fmt.Errorf("own account: %w", err)
	}
	return User{ID: user.ID, Login: user.UserName}, nil
}

// Version returns the server's version.
func (c *Client) Version() (string, error) {
	version, _, err := c.api.ServerVersion()
	if err != nil {
		return "", fmt.Errorf("server version: %w", err)
	}
	return version, nil
}

// Repo looks a repository up by name.
func (c *Client) Repo(owner, name string) (Repo, error) {
	r, _, err := c.api.GetRepo(owner, name)
	if err != nil {
		return Repo{}, fmt.Errorf("repository %s/%s: %w", owner, name, err)
	}
	return repo(r), nil
}

// MayPush reports what the token's own account may do in a repository: write its code, administer it.
func (c *Client) MayPush(owner, name string) (push, admin bool, err error) {
	r, _, err := c.api.GetRepo(owner, name)
	if err != nil {
		return false, false, fmt.Errorf("repository %s/%s: %w", owner, name, err)
	}
	if r.Permissions == nil {
		return false, false, nil
	}
	return r.Permissions.Push, r.Permissions.Admin, nil
}

// Repos lists the repositories of a user or an organisation, as far as the token's account sees them.
func (c *Client) Repos(owner string) ([]Repo, error) {
	all, err := pages(func(o sdk.ListOptions) ([]*sdk.Repository, *sdk.Response, error) {
		return c.api.ListOrgRepos(owner, sdk.ListOrgReposOptions{ListOptions: o})
	})
	// A token without the scope for organisations may still list an owner's repositories.
	if code := safehttp.Status(err); code == http.StatusNotFound || code == http.StatusForbidden {
		all, err = pages(func(o sdk.ListOptions) ([]*sdk.Repository, *sdk.Response, error) {
			return c.api.ListUserRepos(owner, sdk.ListReposOptions{ListOptions: o})
		})
	}
	if err != nil {
		return nil, fmt.Errorf("repositories of %s: %w", owner, err)
	}
	repos := make([]Repo, 0, len(all))
	for _, r := range all {
		repos = append(repos, repo(r))
	}
	return repos, nil
}

// repo translates a repository; the full name is what Gitea's own addresses are made of.
func repo(r *sdk.Repository) Repo {
	owner, name, _ := strings.Cut(r.FullName, "/")
	return Repo{ID: r.ID, Owner: owner, Name: name}
}

// Pull is a pull request's present state.
type Pull struct {
	Open bool
	Head string // the live head commit of the (possibly foreign) branch
	Base int64  // id of the repository that it is for
}

// Pull reads a pull request. Its head is that of the branch at this moment, also in a fork; the base repository's ref
// of the pull request follows later, from a queue.
func (c *Client) Pull(r Repo, n int64) (Pull, error) {
	pr, _, err := c.api.GetPullRequest(r.Owner, r.Name, n)
	if err != nil {
		return Pull{}, fmt.Errorf("pull request %d: %w", n, err)
	}
	// Head and base may be missing: a fork or a branch can be deleted while its pull request stays.
	p := Pull{Open: pr.State == sdk.StateOpen && !pr.HasMerged}
	if pr.Head != nil {
		p.Head = pr.Head.Sha
	}
	if pr.Base != nil {
		p.Base = pr.Base.RepoID
	}
	return p, nil
}

// Commits lists the commits of a pull request, those between its base and its head: what a forced push took out is
// not there.
func (c *Client) Commits(r Repo, n int64) ([]string, error) {
	all, err := pages(func(o sdk.ListOptions) ([]*sdk.Commit, *sdk.Response, error) {
		return c.api.ListPullRequestCommits(r.Owner, r.Name, n, sdk.ListPullRequestCommitsOptions{ListOptions: o})
	})
	if err != nil {
		return nil, fmt.Errorf("commits of pull request %d: %w", n, err)
	}
	shas := make([]string, 0, len(all))
	for _, commit := range all {
		if commit.CommitMeta != nil {
			shas = append(shas, commit.SHA)
		}
	}
	return shas, nil
}

// Pushed is Gitea's record of one push to a pull request's branch; opening the pull request leaves one too. Its id
// is of the same row as the ids of comments, so it tells which came first, which times, in whole seconds, do not.
type Pushed struct {
	ID      int64
	By      User // nobody, when the account is gone
	At      time.Time
	Commits []string // what the push brought
}

// Pushes lists the pushes to a pull request that are on record, oldest first. The record follows the push by a
// moment, and a forced push takes the records of commits away that it takes out.
func (c *Client) Pushes(r Repo, n int64) ([]Pushed, error) {
	// Gitea leaves comments on code out of the pages after it has cut them, so a short page is not the last; and what
	// it calls the total here is what the page shows.
	all, err := collect(func(o sdk.ListOptions) ([]*sdk.TimelineComment, *sdk.Response, error) {
		return c.api.ListIssueTimeline(r.Owner, r.Name, n, sdk.ListIssueCommentOptions{ListOptions: o})
	}, func(p progress) bool { return p.got == 0 })
	if err != nil {
		return nil, fmt.Errorf("timeline of pull request %d: %w", n, err)
	}
	var pushes []Pushed
	for _, entry := range all {
		if entry.Type != "pull_push" {
			continue
		}
		p := Pushed{ID: entry.ID, At: entry.Created, Commits: brought(entry.Body)}
		if entry.Poster != nil {
			p.By = User{ID: entry.Poster.ID, Login: entry.Poster.UserName}
		}
		pushes = append(pushes, p)
	}
	slices.SortFunc(pushes, func(a, b Pushed) int { return cmp.Compare(a.ID, b.ID) })
	return pushes, nil
}

// brought reads which commits a push brought, out of the JSON that Gitea keeps as the record's text. The record of a
// forced push names the old head before the new one.
func brought(body string) []string {
	var content struct {
		Forced  bool     `json:"is_force_push"`
		Commits []string `json:"commit_ids"`
	}
	if err := json.Unmarshal([]byte(body), &content); err != nil {
		return nil // a record in words that are not known vouches for nothing
	}
	if content.Forced && len(content.Commits) > 1 {
		return content.Commits[1:]
	}
	return content.Commits
}

// State is a commit status's state.
type State = sdk.StatusState

// Status is a commit status.
type Status struct {
	State       string
	Context     string
	Description string
	URL         string
}

// SetStatus puts a status on a commit, which takes the right to write code. A commit of a fork has it in the base
// repository, where people look. A fork's commit may reach the base repository a moment after its comment: until then
// Gitea answers 500.
func (c *Client) SetStatus(r Repo, sha string, s Status) error {
	_, _, err := c.api.CreateStatus(r.Owner, r.Name, sha, sdk.CreateStatusOption{
		State: State(s.State), Context: s.Context, Description: s.Description, TargetURL: s.URL,
	})
	if err != nil {
		return fmt.Errorf("status of %s: %w", sha, err)
	}
	return nil
}

// progress is how far a list has been read, and what its latest page says of the rest.
type progress struct {
	got, sum, pages int // entries of the latest page, entries so far, pages so far
	total           int // entries of the whole list, as Gitea counts them before it leaves any out; -1 if it does not say
}

// pages asks for page after page until Gitea's own count is reached. A page that is not full is not the last where the
// server's bound is below pageSize, or where it leaves out of a page what the account may not see, as among an owner's
// repositories: then the count is never reached, and an empty page where it should have been is the end. Some lists
// ignore paging and return everything at once.
func pages[T any](list func(sdk.ListOptions) ([]T, *sdk.Response, error)) ([]T, error) {
	return collect(list, func(p progress) bool {
		if p.total < 0 { // a proxy may drop the header
			return p.got != pageSize
		}
		return p.sum >= p.total || (p.got == 0 && p.pages*pageSize >= p.total)
	})
}

// collect asks for page after page until last says that none follows. What it has read comes with errTooLong too.
func collect[T any](list func(sdk.ListOptions) ([]T, *sdk.Response, error), last func(progress) bool) ([]T, error) {
	var all []T
	for page := 1; page <= maxPages; page++ {
		got, resp, err := list(sdk.ListOptions{Page: page, PageSize: pageSize})
		if err != nil {
			return nil, err
		}
		all = append(all, got...)
		total, err := strconv.Atoi(resp.Header.Get("X-Total-Count"))
		if err != nil {
			total = -1
		}
		if last(progress{got: len(got), sum: len(all), pages: page, total: total}) {
			return all, nil
		}
	}
	return all, errTooLong
}

// number reads the number at the end of a pull request's address.
func number(address string) int64 {
	n, err := strconv.ParseInt(path.Base(address), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
