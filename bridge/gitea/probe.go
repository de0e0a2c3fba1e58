package gitea

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	sdk "code.gitea.io/sdk/gitea"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/safehttp"
)

// Skew returns how far Gitea's clock is ahead of this host's, to the second.
func (c *Client) Skew() (time.Duration, error) {
	_, resp, err := c.api.ServerVersion()
	if err != nil {
		return 0, fmt.Errorf("server version: %w", err)
	}
	// Every answer carries the server's time; half a second of rounding and the way there do not matter.
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0, fmt.Errorf("server's date: %w", err)
	}
	return time.Until(date).Round(time.Second), nil
}

// HasFile reports whether a branch of a repository has a file. A branch that is not there has none.
func (c *Client) HasFile(owner, name, branch, file string) (bool, error) {
	_, _, err := c.api.GetContents(owner, name, branch, file)
	if safehttp.Status(err) == http.StatusNotFound {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("file %s: %w", file, err)
	}
	return true, nil
}

// MissingScopes asks for things that cannot be (a reaction to comment 0, a status of commit 0): a token that lacks
// the scope is refused before Gitea looks for them. Scopes cannot be asked for: Gitea lists an account's tokens for
// its password only. They are checked by the group of the address, where whatever is not GET needs write.
func (c *Client) MissingScopes(r Repo) []string {
	var missing []string
	if _, _, err := c.api.PostIssueCommentReaction(r.Owner, r.Name, 0, "eyes"); lacksScope(err) {
		missing = append(missing, "write:issue")
	}
	sha := strings.Repeat("0", 40)
	if _, _, err := c.api.CreateStatus(r.Owner, r.Name, sha, sdk.CreateStatusOption{State: "pending"}); lacksScope(err) {
		missing = append(missing, "write:repository")
	}
	return missing
}

// BlindToTeams says why the token cannot learn who is in the repository's teams, or nothing if it can or there are
// none.
func (c *Client) BlindToTeams(r Repo) string {
	teams, _, err := c.api.GetRepoTeams(r.Owner, r.Name) // a user's repository has none, and says so with an error
	if err != nil || len(teams) == 0 {
		return ""
	}
	_, _, err = c.api.ListOrgTeams(r.Owner, sdk.ListTeamsOptions{})
	switch {
	case lacksScope(err):
		return "the token lacks the scope read:organization"
	case safehttp.Status(err) == http.StatusForbidden:
		return "the bot is not in the organisation"
	}
	return ""
}

// lacksScope tells a refused token from a refused account: both are 403, and only the first has the scopes in its
// message.
func lacksScope(err error) bool {
	return safehttp.Status(err) == http.StatusForbidden && strings.Contains(err.Error(), "scope")
}
