package bridgetest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// routes serves the API; the caller holds the lock while it does.
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
	return mux
}

func missing(w http.ResponseWriter) { reply(w, 404, map[string]string{"message": "not found"}) }

func path(r *http.Request, name string) int64 {
	n, err := strconv.ParseInt(r.PathValue(name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (g *Gitea) version(w http.ResponseWriter, _ *http.Request) {
	reply(w, 200, map[string]string{"version": "1.26.0"})
}

func (g *Gitea) self(w http.ResponseWriter, _ *http.Request) { reply(w, 200, g.users["bot"]) }

func (g *Gitea) account(w http.ResponseWriter, r *http.Request) {
	if u := g.users[r.PathValue("login")]; u != nil {
		reply(w, 200, u)
		return
	}
	missing(w)
}

func (g *Gitea) repo(w http.ResponseWriter, _ *http.Request) { reply(w, 200, g.repoJSON()) }

func (g *Gitea) repos(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("org") != Owner {
		missing(w)
		return
	}
	reply(w, 200, []any{g.repoJSON()})
}

func (g *Gitea) repoJSON() map[string]any {
	return map[string]any{"id": RepoID, "name": Name, "full_name": Owner + "/" + Name,
		"permissions": map[string]bool{"admin": g.botAdmin, "push": true, "pull": true}}
}

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
	reply(w, 200, all)
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
	for _, c := range paged(rows, r) {
		row := map[string]any{"id": c.ID, "type": "comment", "user": c.User, "created_at": c.Created, "body": c.Body}
		if c.commits != nil {
			row["type"], row["body"] = "pull_push", `{"is_force_push":false,"commit_ids":["`+strings.Join(c.commits, `","`)+`"]}`
		}
		if !c.hidden {
			shown = append(shown, row)
		}
	}
	reply(w, 200, shown)
}

// paged cuts the page out of a list that a request asks for.
func paged[T any](all []T, r *http.Request) []T {
	const limit = 50
	page, err := strconv.Atoi(r.URL.Query().Get("page"))
	if err != nil {
		page = 1
	}
	return all[min((page-1)*limit, len(all)):min(page*limit, len(all))]
}

func (g *Gitea) list(w http.ResponseWriter, r *http.Request) {
	all := []*Comment{}
	for _, c := range g.comments {
		if c.PR == path(r, "n") && c.text() {
			all = append(all, c)
		}
	}
	reply(w, 200, all) // like Gitea, without paging
}

func (g *Gitea) since(w http.ResponseWriter, r *http.Request) {
	since, err := time.Parse(time.RFC3339, r.URL.Query().Get("since"))
	all := []*Comment{}
	for _, c := range g.comments {
		if (err != nil || !c.Updated.Before(since)) && c.text() {
			all = append(all, c)
		}
	}
	reply(w, 200, paged(all, r))
}

func (g *Gitea) say(w http.ResponseWriter, r *http.Request) {
	var text struct{ Body string }
	if err := json.NewDecoder(r.Body).Decode(&text); err != nil || text.Body == "" {
		reply(w, 422, nil)
		return
	}
	reply(w, 201, g.add(g.users["bot"], path(r, "n"), text.Body))
}

func (g *Gitea) byID(w http.ResponseWriter, r *http.Request) *Comment {
	id := path(r, "id")
	if id < 1 || id > int64(len(g.comments)) {
		missing(w)
		return nil
	}
	return g.comments[id-1]
}

func (g *Gitea) comment(w http.ResponseWriter, r *http.Request) {
	switch c := g.byID(w, r); {
	case c == nil: // it was answered
	case g.users[c.User.Login] == nil:
		reply(w, 500, nil)
	default:
		reply(w, 200, c)
	}
}

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

func (g *Gitea) remove(w http.ResponseWriter, r *http.Request) {
	if c := g.byID(w, r); c != nil {
		c.hidden = true
		w.WriteHeader(http.StatusNoContent)
	}
}

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

func (g *Gitea) teams(w http.ResponseWriter, _ *http.Request) {
	reply(w, 200, []map[string]any{
		{"id": 5, "name": "coders", "permission": "none", "units_map": map[string]string{"repo.code": "write"}}})
}

func (g *Gitea) member(w http.ResponseWriter, r *http.Request) {
	if login := r.PathValue("login"); g.team[login] {
		reply(w, 200, g.users[login])
		return
	}
	missing(w)
}

func (g *Gitea) assignees(w http.ResponseWriter, _ *http.Request) {
	var all []*User
	for _, u := range g.users {
		if u.Right == "write" || u.Right == "owner" || g.team[u.Login] {
			all = append(all, u)
		}
	}
	reply(w, 200, all)
}
