package bridgetest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// routes serves the API; the caller holds the lock while it does. The pattern with {n}/{id} stands for three of
// Gitea's: Go's mux refuses patterns of which neither is the narrower one.
func (g *Gitea) routes() http.Handler {
	mux := http.NewServeMux()
	repo := "/api/v1/repos/" + Owner + "/" + Name
	for pattern, handle := range map[string]func(http.ResponseWriter, *http.Request){
		"GET /api/v1/version":                               g.version,
		"GET /api/v1/user":                                  g.self,
		"GET /api/v1/users/{login}":                         g.account,
		"GET " + repo:                                       g.repo,
		"GET " + repo + "/pulls/{n}":                        g.pull,
		"GET " + repo + "/pulls/{n}/commits":                g.commits,
		"POST " + repo + "/issues/{n}/comments":             g.say,
		"GET " + repo + "/issues/comments":                  g.since,
		"GET " + repo + "/issues/{n}/{id}":                  g.issue,
		"PATCH " + repo + "/issues/comments/{id}":           g.edit,
		"DELETE " + repo + "/issues/comments/{id}":          g.remove,
		"POST " + repo + "/issues/comments/{id}/reactions":  g.react,
		"POST " + repo + "/statuses/{sha}":                  g.status,
		"GET " + repo + "/collaborators/{login}":            g.collaborator,
		"GET " + repo + "/collaborators/{login}/permission": g.permission,
		"GET " + repo + "/teams":                            g.teams,
		"GET /api/v1/teams/5/members/{login}":               g.member,
		"GET /api/v1/orgs/{org}/repos":                      g.repos,
		"GET /api/v1/orgs/{org}/teams":                      g.teams,
		"GET " + repo + "/assignees":                        g.assignees,
	} {
		mux.HandleFunc(pattern, handle)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { missing(w) })
	return mux
}

// missing answers as Gitea does for what is not there, and for what the account may not see.
func missing(w http.ResponseWriter) { reply(w, 404, map[string]string{"message": "not found"}) }

// path reads a number out of the address; 0, which no row has, stands for what is none.
func path(r *http.Request, name string) int64 {
	n, err := strconv.ParseInt(r.PathValue(name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// version is that of a Gitea whose answers these are modelled on.
func (g *Gitea) version(w http.ResponseWriter, _ *http.Request) {
	reply(w, 200, map[string]string{"version": "1.26.0"})
}

// self is the account of the one token.
func (g *Gitea) self(w http.ResponseWriter, _ *http.Request) { reply(w, 200, g.users["bot"]) }

// account finds accounts by their present name.
func (g *Gitea) account(w http.ResponseWriter, r *http.Request) {
	if u := g.users[r.PathValue("login")]; u != nil {
		reply(w, 200, u)
		return
	}
	missing(w)
}

// repo shows the repository to whoever has the token.
func (g *Gitea) repo(w http.ResponseWriter, _ *http.Request) { reply(w, 200, g.repoJSON()) }

// repos lists an organisation's repositories; there is no list of a user's. As at Gitea, those that the account may not
// see are left out of a page after it was cut, and counted all the same.
func (g *Gitea) repos(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("org") != Owner {
		missing(w)
		return
	}
	all := append(make([]bool, g.unseen), true)
	shown := []any{}
	for _, seen := range paged(all, r, g.pageMax) {
		if seen {
			shown = append(shown, g.repoJSON())
		}
	}
	total(w, len(all))
	reply(w, 200, shown)
}

// repoJSON shows the repository with the bot's own rights, which doctor asks for.
func (g *Gitea) repoJSON() map[string]any {
	return map[string]any{"id": RepoID, "name": Name, "full_name": Owner + "/" + Name,
		"permissions": map[string]bool{"admin": g.botAdmin, "push": true, "pull": true}}
}

// pull shows a pull request with the head that it has now. Number 2 can be made to lead elsewhere.
func (g *Gitea) pull(w http.ResponseWriter, r *http.Request) {
	if g.redirect != "" && path(r, "n") == 2 {
		http.Redirect(w, r, g.redirect, http.StatusFound)
		return
	}
	if p := g.pulls[path(r, "n")]; p != nil {
		reply(w, 200, pullJSON(path(r, "n"), p))
		return
	}
	missing(w)
}

// commits lists a pull request's commits.
func (g *Gitea) commits(w http.ResponseWriter, r *http.Request) {
	p := g.pulls[path(r, "n")]
	if p == nil {
		missing(w)
		return
	}
	var all []map[string]string
	for _, sha := range p.commits {
		all = append(all, map[string]string{"sha": sha})
	}
	total(w, len(all))
	reply(w, 200, paged(all, r, g.pageMax))
}

// issue tells apart what one pattern matches: an issue's comments, its timeline, and one comment.
func (g *Gitea) issue(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.PathValue("n") == "comments":
		g.comment(w, r)
	case r.PathValue("id") == "comments":
		g.list(w, r)
	case r.PathValue("id") == "timeline":
		g.timeline(w, r)
	default:
		missing(w)
	}
}

// timeline lists comments and records of pushes. As at Gitea, a page is cut first and comments on code are left out
// of it afterwards, so a page may be short or empty with more behind it. Opening a pull request is a record too: here
// it is a stranger's, an hour old, with an id before all others. No push is a forced one.
func (g *Gitea) timeline(w http.ResponseWriter, r *http.Request) {
	p := g.pulls[path(r, "n")]
	if p == nil {
		missing(w)
		return
	}
	opening := Comment{PR: path(r, "n"), User: g.users["stan"], Created: time.Now().Add(-time.Hour), commits: []string{p.opened}}
	rows := []*Comment{&opening}
	for _, c := range g.comments {
		if c.PR == opening.PR {
			rows = append(rows, c)
		}
	}
	shown := []map[string]any{}
	for _, c := range paged(rows, r, g.pageMax) {
		row := map[string]any{"id": c.ID, "type": "comment", "user": c.User, "created_at": c.Created, "body": c.Body}
		if c.commits != nil {
			row["type"], row["body"] = "pull_push", `{"is_force_push":false,"commit_ids":["`+strings.Join(c.commits, `","`)+`"]}`
		}
		if !c.hidden {
			shown = append(shown, row)
		}
	}
	total(w, len(shown)) // of the page: Gitea has counted nothing else here
	reply(w, 200, shown)
}

// total says how many entries a whole list has. Gitea sends no Link header with most lists.
func total(w http.ResponseWriter, n int) { w.Header().Set("X-Total-Count", strconv.Itoa(n)) }

// paged cuts the page out of a list that a request asks for. A page has the server's bound of entries, whatever limit
// is asked.
func paged[T any](all []T, r *http.Request, limit int) []T {
	page, err := strconv.Atoi(r.URL.Query().Get("page"))
	if err != nil {
		page = 1
	}
	return all[min((page-1)*limit, len(all)):min(page*limit, len(all))]
}

// list shows a pull request's comments.
func (g *Gitea) list(w http.ResponseWriter, r *http.Request) {
	all := []*Comment{}
	for _, c := range g.comments {
		if c.PR == path(r, "n") && c.text() {
			all = append(all, c)
		}
	}
	total(w, len(all))
	reply(w, 200, all) // like Gitea, without paging
}

// since lists the repository's comments that were written or edited since a time, oldest first.
func (g *Gitea) since(w http.ResponseWriter, r *http.Request) {
	since, err := time.Parse(time.RFC3339, r.URL.Query().Get("since"))
	all := []*Comment{}
	for _, c := range g.comments {
		if (err != nil || !c.Updated.Before(since)) && c.text() {
			all = append(all, c)
		}
	}
	total(w, len(all))
	reply(w, 200, paged(all, r, g.pageMax))
}

// say makes a comment of the bot's: the one token is its.
func (g *Gitea) say(w http.ResponseWriter, r *http.Request) {
	var text struct{ Body string }
	if err := json.NewDecoder(r.Body).Decode(&text); err != nil || text.Body == "" {
		reply(w, 422, nil)
		return
	}
	reply(w, 201, g.add(g.users["bot"], path(r, "n"), text.Body))
}

// byID finds the comment that the address names, or answers 404.
func (g *Gitea) byID(w http.ResponseWriter, r *http.Request) *Comment {
	id := path(r, "id")
	if id < 1 || id > int64(len(g.comments)) {
		missing(w)
		return nil
	}
	return g.comments[id-1]
}

// comment shows a comment. Gitea fails with 500, for ever, when its author's account is gone.
func (g *Gitea) comment(w http.ResponseWriter, r *http.Request) {
	switch c := g.byID(w, r); {
	case c == nil: // it was answered
	case g.users[c.User.Login] == nil:
		reply(w, 500, nil)
	default:
		reply(w, 200, c)
	}
}

// edit replaces a comment's text; an empty one is refused. Whose comment it is is not asked.
func (g *Gitea) edit(w http.ResponseWriter, r *http.Request) {
	var text struct{ Body string }
	c := g.byID(w, r)
	if c == nil {
		return
	}
	if err := json.NewDecoder(r.Body).Decode(&text); err != nil || text.Body == "" {
		reply(w, 422, nil)
		return
	}
	c.Body, c.Updated = text.Body, time.Now().Truncate(time.Second)
	reply(w, 200, c)
}

// remove deletes a comment; its row stays, so that ids keep their meaning.
func (g *Gitea) remove(w http.ResponseWriter, r *http.Request) {
	if c := g.byID(w, r); c != nil {
		c.hidden = true
		w.WriteHeader(http.StatusNoContent)
	}
}

// react adds a reaction: 201 for a new one, 200 for one that is there. Gitea refuses unknown ones with 403; this
// takes all.
func (g *Gitea) react(w http.ResponseWriter, r *http.Request) {
	var reaction struct{ Content string }
	c := g.byID(w, r)
	if c == nil {
		return
	}
	if err := json.NewDecoder(r.Body).Decode(&reaction); err != nil {
		reply(w, 422, nil)
		return
	}
	if slices.Contains(c.Reactions, reaction.Content) {
		reply(w, 200, reaction)
		return
	}
	c.Reactions = append(c.Reactions, reaction.Content)
	reply(w, 201, reaction)
}

// status keeps a commit status. Gitea answers 500 for commits that it does not have; this takes any.
func (g *Gitea) status(w http.ResponseWriter, r *http.Request) {
	var s struct {
		State, Context, Description string
		TargetURL                   string `json:"target_url"`
	}
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
		reply(w, 422, nil)
		return
	}
	sha := r.PathValue("sha")
	g.statuses[sha] = append(g.statuses[sha], Status(s))
	reply(w, 201, map[string]string{"status": s.State})
}

// collaborator is the check by 204: only who is listed as one passes, with whatever right. Owners and teams are not
// listed.
func (g *Gitea) collaborator(w http.ResponseWriter, r *http.Request) {
	u := g.users[r.PathValue("login")]
	switch {
	case u == nil:
		reply(w, 422, nil)
	case u.Right == "read" || u.Right == "write":
		w.WriteHeader(204)
	default:
		missing(w)
	}
}

// permission is what the bot may ask as an administrator. Members of the team have only their own right here, as at
// Gitea.
func (g *Gitea) permission(w http.ResponseWriter, r *http.Request) {
	u := g.users[r.PathValue("login")]
	switch {
	case !g.botAdmin:
		reply(w, 403, map[string]string{"message": "Only admins can query all permissions"})
	case u == nil:
		missing(w)
	default:
		right := u.Right
		if right == "none" {
			right = "read" // a stranger at a public repository
		}
		reply(w, 200, map[string]any{"permission": right, "role_name": right, "user": u})
	}
}

// teams is the one team, of the repository and of any organisation. Its right is in the unit's grade only: that is how
// Gitea shows teams whose units differ.
func (g *Gitea) teams(w http.ResponseWriter, _ *http.Request) {
	reply(w, 200, []map[string]any{
		{"id": 5, "name": "coders", "permission": "none", "units_map": map[string]string{"repo.code": "write"}}})
}

// member tells who is in the team, by the present name.
func (g *Gitea) member(w http.ResponseWriter, r *http.Request) {
	if login := r.PathValue("login"); g.team[login] {
		reply(w, 200, g.users[login])
		return
	}
	missing(w)
}

// assignees are those who may write. Gitea 1.27 adds members of teams that only read, so a bridge may not rest on it
// alone.
func (g *Gitea) assignees(w http.ResponseWriter, _ *http.Request) {
	var all []*User
	for _, u := range g.users {
		if u.Right == "write" || u.Right == "owner" || g.team[u.Login] {
			all = append(all, u)
		}
	}
	reply(w, 200, all)
}
