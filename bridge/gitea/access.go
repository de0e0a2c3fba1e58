package gitea

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	sdk "code.gitea.io/sdk/gitea"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/safehttp"
)

// writers are the grades that include writing code. The same words stand for an account's permission, for a team's,
// and for a team's access to one unit.
var writers = []string{"write", "admin", "owner"}

// NotConfirmed is the rule by which an author is refused whose right the bot cannot learn.
const NotConfirmed = "write permission not confirmed"

// MayWrite reports whether the user may write the repository's code, and by which rule. Gitea has no single
// call that knows: the permission call does not count the code unit of teams and is open to administrators of the
// repository only; the teams call needs a member of the organisation. A user that neither of them vouches for may
// still be among the assignees, which some versions fill with readers too: that counts only together with signed,
// the right that a signed hook stated moments ago. Everything else is no.
func (c *Client) MayWrite(r Repo, u User, signed bool) (bool, string, error) {
	// 403: the bot may not ask about others. 404: the account is gone, which is a plain no.
	grade, err := c.grade(r, u)
	closed := safehttp.Status(err) == http.StatusForbidden
	if err != nil && !closed && safehttp.Status(err) != http.StatusNotFound {
		return false, "", err
	}
	if slices.Contains(writers, grade) {
		return true, "permission " + grade, nil
	}
	team, err := c.writingTeam(r, u)
	if err != nil {
		return false, "", err
	}
	if team != "" {
		return true, "team " + team, nil
	}
	// Gitea has answered for the user and for the teams, so there is nothing left that could speak for the author.
	if !closed {
		return false, "no write permission", nil
	}
	if !signed {
		return false, NotConfirmed, nil
	}
	assignees, _, err := c.api.GetAssignees(r.Owner, r.Name)
	if err != nil {
		return false, "", fmt.Errorf("assignees of %s: %w", r.FullName(), err)
	}
	if slices.ContainsFunc(assignees, func(a *sdk.User) bool { return a.ID == u.ID }) {
		return true, "signed push right and assignee", nil
	}
	return false, NotConfirmed, nil
}

// grade asks for the user's permission; the answer must be about the same account. A stranger at a public repository
// has read, owners and administrators of the site have owner; a team's units are not counted.
func (c *Client) grade(r Repo, u User) (string, error) {
	p, _, err := c.api.CollaboratorPermission(r.Owner, r.Name, u.Login)
	if err != nil {
		return "", fmt.Errorf("permission of %s: %w", u.Login, err)
	}
	// The question was about a name: it may belong to another account by now.
	if p == nil || p.User == nil || p.User.ID != u.ID {
		return "", nil
	}
	return string(p.Permission), nil
}

// writingTeam names a team of the repository that may write code and has the user as a member. Repositories of
// users have no teams (405); teams that the token may not look into do not count.
func (c *Client) writingTeam(r Repo, u User) (string, error) {
	teams, _, err := c.api.GetRepoTeams(r.Owner, r.Name)
	switch safehttp.Status(err) {
	case http.StatusMethodNotAllowed, http.StatusForbidden, http.StatusNotFound:
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("teams of %s: %w", r.FullName(), err)
	}
	for _, team := range teams {
		if !slices.Contains(writers, string(team.Permission)) && !slices.Contains(writers, team.UnitsMap["repo.code"]) {
			continue
		}
		member, err := c.member(team.ID, u)
		if err != nil {
			return "", err
		}
		if member {
			return team.Name, nil
		}
	}
	return "", nil
}

// member asks whether a user is in a team. Teams that the token may not look into have no members: no answer is no.
func (c *Client) member(team int64, u User) (bool, error) {
	member, _, err := c.api.GetTeamMember(team, u.Login)
	switch safehttp.Status(err) {
	case http.StatusNotFound, http.StatusForbidden:
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("member %s of team %d: %w", u.Login, team, err)
	}
	return member.ID == u.ID, nil
}

// IsCollaborator is Gitea's 204 check: listed as a collaborator, with whatever right. Owners, teams and site
// administrators are not. Who asks need not be an administrator; an unknown name is answered with 422.
func (c *Client) IsCollaborator(r Repo, u User) (bool, error) {
	_, _, err := c.api.IsCollaborator(r.Owner, r.Name, u.Login)
	switch safehttp.Status(err) {
	case http.StatusNotFound, http.StatusUnprocessableEntity:
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("collaborator %s: %w", u.Login, err)
	}
	// The name may have changed hands since the comment.
	account, _, err := c.api.GetUserInfo(u.Login)
	if err != nil {
		return false, fmt.Errorf("account %s: %w", u.Login, err)
	}
	return account.ID == u.ID, nil
}

// InTeam reports whether the user is in a team given as organisation/team. A team that is not there has no members.
func (c *Client) InTeam(team string, u User) (bool, error) {
	id, err := c.Team(team)
	if err != nil || id == 0 {
		return false, err
	}
	return c.member(id, u)
}

// Team returns the id of a team given as organisation/team, or 0 if the organisation has none of that name.
func (c *Client) Team(team string) (int64, error) {
	org, name, _ := strings.Cut(team, "/")
	teams, err := pages(func(o sdk.ListOptions) ([]*sdk.Team, *sdk.Response, error) {
		return c.api.ListOrgTeams(org, sdk.ListTeamsOptions{ListOptions: o})
	})
	if err != nil {
		return 0, fmt.Errorf("teams of %s: %w", org, err)
	}
	for _, t := range teams {
		if strings.EqualFold(t.Name, name) {
			return t.ID, nil
		}
	}
	return 0, nil
}

// Account looks an account up by its name. Names change hands: who wants a certain account compares the id.
func (c *Client) Account(login string) (User, error) {
	user, _, err := c.api.GetUserInfo(login)
	if err != nil {
		return User{}, fmt.Errorf("account %s: %w", login, err)
	}
	return User{ID: user.ID, Login: user.UserName}, nil
}
