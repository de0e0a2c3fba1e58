package gitea

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	sdk "code.gitea.io/sdk/gitea"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/safehttp"
)

// events are what a hook must be registered for: comments, for the commands; the pull request itself, for its
// closing; pushes to it, for what they supersede. A hook for "issue_comment" never fires on pull requests, and
// "pull_request" is a group that means far more than the one event, which is written "pull_request_only" and read
// back as "pull_request".
var (
	eventsAsked = []string{"pull_request_comment", "pull_request_only", "pull_request_sync"}
	eventsShown = []string{"pull_request", "pull_request_comment", "pull_request_sync"}
)

// Hook is what a place should have: exactly one hook with this address and secret. Two would deliver each comment
// twice, which is harmless but doubles what Gitea does.
type Hook struct {
	URL    string
	Secret string
}

// place is a repository or an organisation as the owner of hooks. The SDK has different calls for the two.
type place struct {
	name   string
	list   func(sdk.ListOptions) ([]*sdk.Hook, *sdk.Response, error)
	create func(sdk.CreateHookOption) error
	delete func(id int64) error
}

// places resolves an allow-list entry: a repository, an organisation, or each repository of a user. A user's hooks of
// the account itself would need that user's own token.
func (c *Client) places(entry string) ([]place, error) {
	owner, name, full := strings.Cut(entry, "/")
	if full {
		return []place{c.repoPlace(owner, name)}, nil
	}
	if _, _, err := c.api.GetOrg(owner); err == nil {
		return []place{c.orgPlace(owner)}, nil
	} else if safehttp.Status(err) != http.StatusNotFound {
		return nil, fmt.Errorf("organisation %s: %w", owner, err)
	}
	repos, err := c.Repos(owner)
	if err != nil {
		return nil, err
	}
	var all []place
	for _, r := range repos {
		all = append(all, c.repoPlace(r.Owner, r.Name))
	}
	return all, nil
}

// repoPlace is a repository with hooks of its own.
func (c *Client) repoPlace(owner, name string) place {
	return place{
		name: owner + "/" + name,
		list: func(o sdk.ListOptions) ([]*sdk.Hook, *sdk.Response, error) {
			return c.api.ListRepoHooks(owner, name, sdk.ListHooksOptions{ListOptions: o})
		},
		create: func(o sdk.CreateHookOption) error {
			_, _, err := c.api.CreateRepoHook(owner, name, o)
			return err
		},
		delete: func(id int64) error {
			_, err := c.api.DeleteRepoHook(owner, name, id)
			return err
		},
	}
}

// orgPlace is an organisation: its hooks serve all its repositories, also those that are made later.
func (c *Client) orgPlace(org string) place {
	return place{
		name: org,
		list: func(o sdk.ListOptions) ([]*sdk.Hook, *sdk.Response, error) {
			return c.api.ListOrgHooks(org, sdk.ListHooksOptions{ListOptions: o})
		},
		create: func(o sdk.CreateHookOption) error {
			_, _, err := c.api.CreateOrgHook(org, o)
			return err
		},
		delete: func(id int64) error {
			_, err := c.api.DeleteOrgHook(org, id)
			return err
		},
	}
}

// Drift reports, for each place of an allow-list entry, how its hooks differ from h; nothing means that there is
// exactly one and that it is right. The secret cannot be read back and is not compared.
func (c *Client) Drift(entry string, h Hook) (map[string][]string, error) {
	places, err := c.places(entry)
	if err != nil {
		return nil, err
	}
	all := map[string][]string{}
	for _, p := range places {
		_, drift, err := p.compare(h)
		if err != nil {
			return nil, err
		}
		all[p.name] = drift
	}
	return all, nil
}

// Register makes the hooks of an allow-list entry right and says what it did, one line a place. A wrong hook, or
// any hook when rotate is set, is replaced: the new one is made before the old ones go, so no comment is lost, and
// editing is avoided because Gitea then keeps the old secret and forgets the events.
func (c *Client) Register(entry string, h Hook, rotate bool) ([]string, error) {
	places, err := c.places(entry)
	if err != nil {
		return nil, err
	}
	var done []string
	for _, p := range places {
		line, err := p.register(h, rotate)
		if err != nil {
			return done, err
		}
		done = append(done, line)
	}
	return done, nil
}

// register makes one place right.
func (p place) register(h Hook, rotate bool) (string, error) {
	old, drift, err := p.compare(h)
	if err != nil {
		return "", err
	}
	if len(drift) == 0 && !rotate {
		return p.name + ": unchanged", nil
	}
	// Without active the hook is made switched off, and without events it is one for pushes.
	err = p.create(sdk.CreateHookOption{
		Type: sdk.HookTypeGitea, Active: true, Events: eventsAsked,
		Config: map[string]string{"url": h.URL, "content_type": "json", "secret": h.Secret},
	})
	if err != nil {
		return "", fmt.Errorf("create hook of %s: %w", p.name, err)
	}
	// From here on two hooks deliver each comment; the journal takes the second for the replay that it is.
	for _, hook := range old {
		if err := p.delete(hook.ID); err != nil {
			return "", fmt.Errorf("delete hook %d of %s: %w", hook.ID, p.name, err)
		}
	}
	if len(drift) == 0 {
		return p.name + ": secret rotated", nil
	}
	return p.name + ": " + strings.Join(drift, ", ") + "; repaired", nil
}

// compare finds the hooks with the address of h and what is wrong with them. What Gitea adds, such as more events, is
// no fault: a hook that says too much is answered with 200.
func (p place) compare(h Hook) (ours []*sdk.Hook, drift []string, err error) {
	all, err := pages(p.list)
	if err != nil {
		return nil, nil, fmt.Errorf("hooks of %s: %w", p.name, err)
	}
	// Hooks with other addresses are others' business, even of another bridge for the same repository.
	for _, hook := range all {
		if hook.Config["url"] == h.URL {
			ours = append(ours, hook)
		}
	}
	switch len(ours) {
	case 0:
		return nil, []string{"no hook"}, nil
	case 1:
	default:
		drift = append(drift, fmt.Sprintf("%d hooks", len(ours)))
	}
	hook := ours[len(ours)-1] // several are wrong anyhow; the newest is the likeliest to be meant
	if !hook.Active {
		drift = append(drift, "hook is not active")
	}
	if hook.Config["content_type"] != "json" {
		drift = append(drift, "content type is "+hook.Config["content_type"])
	}
	for _, event := range eventsShown {
		if !slices.Contains(hook.Events, event) {
			drift = append(drift, "event "+event+" is missing")
		}
	}
	return ours, drift, nil
}
