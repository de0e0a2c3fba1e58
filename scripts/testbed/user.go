package testbed

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"code.gitea.io/sdk/gitea"
)

// User is an account of the Gitea server. Its methods act in its name, most of them with Token; nothing changes it
// after it was made, so tests may share one.
type User struct {
	ID       int64
	Name     string
	Email    string
	Password string
	Token    string // an access token with all scopes

	gitea *Gitea
}

// NewUser makes an account with an access token. A name can be had once on a bed: tests that share one take names of
// their own.
func (g *Gitea) NewUser(ctx context.Context, name string) (*User, error) {
	client, err := g.Admin.Client(ctx)
	if err != nil {
		return nil, err
	}
	user := &User{Name: name, Email: name + "@example.org", Password: password(), gitea: g}
	// A new account would have to change its password at its first login.
	keep := false
	_, _, err = client.AdminCreateUser(gitea.CreateUserOption{
		Username: name, Email: user.Email, Password: user.Password, MustChangePassword: &keep,
	})
	if err != nil {
		return nil, fmt.Errorf("create user %s: %w", name, err)
	}
	return user, user.complete(ctx)
}

// Client returns a Gitea client that acts as the user and whose calls end with the context.
func (u *User) Client(ctx context.Context) (*gitea.Client, error) {
	return u.client(ctx, gitea.SetToken(u.Token))
}

// client asks Gitea for no version: the library would look it up with each new client, to refuse calls that are too
// new.
func (u *User) client(ctx context.Context, login gitea.ClientOption) (*gitea.Client, error) {
	return gitea.NewClient(u.gitea.url, gitea.SetContext(ctx), login,
		gitea.SetGiteaVersion(""), gitea.SetHTTPClient(&http.Client{Timeout: time.Minute}))
}

// complete fills in the token and the id of an account that has a password: the administrator's, too, which the
// command line makes without them.
func (u *User) complete(ctx context.Context) error {
	token, err := u.NewToken(ctx, "testbed", gitea.AccessTokenScopeAll)
	if err != nil {
		return err
	}
	u.Token = token
	client, err := u.Client(ctx)
	if err != nil {
		return err
	}
	account, _, err := client.GetMyUserInfo()
	if err != nil {
		return fmt.Errorf("read user %s: %w", u.Name, err)
	}
	u.ID = account.ID
	return nil
}

// NewToken makes another access token, with the given scopes only. Gitea gives tokens for a password, not for another
// token, and tells a token only once.
func (u *User) NewToken(ctx context.Context, name string, scopes ...gitea.AccessTokenScope) (string, error) {
	client, err := u.client(ctx, gitea.SetBasicAuth(u.Name, u.Password))
	if err != nil {
		return "", err
	}
	token, _, err := client.CreateAccessToken(gitea.CreateAccessTokenOption{Name: name, Scopes: scopes})
	if err != nil {
		return "", fmt.Errorf("create a token of %s: %w", u.Name, err)
	}
	return token.Token, nil
}

// NewOrg makes an organisation that the user owns.
func (u *User) NewOrg(ctx context.Context, name string) error {
	client, err := u.Client(ctx)
	if err != nil {
		return err
	}
	_, _, err = client.CreateOrg(gitea.CreateOrgOption{Name: name, Visibility: gitea.VisibleTypePublic})
	if err != nil {
		return fmt.Errorf("create organisation %s: %w", name, err)
	}
	return nil
}

// Team describes a team of an organisation. Its access holds for the code, issues and pull requests of all
// repositories, of later ones, too.
type Team struct {
	Org, Name string
	Access    gitea.AccessMode
	Members   []*User
}

// NewTeam makes a team in an organisation that the user owns.
func (u *User) NewTeam(ctx context.Context, team Team) error {
	client, err := u.Client(ctx)
	if err != nil {
		return err
	}
	made, _, err := client.CreateTeam(team.Org, gitea.CreateTeamOption{
		Name: team.Name, Permission: team.Access, IncludesAllRepositories: true,
		Units: []gitea.RepoUnitType{gitea.RepoUnitCode, gitea.RepoUnitIssues, gitea.RepoUnitPulls},
	})
	if err != nil {
		return fmt.Errorf("create team %s: %w", team.Name, err)
	}
	for _, member := range team.Members {
		if _, err := client.AddTeamMember(made.ID, member.Name); err != nil {
			return fmt.Errorf("add %s to team %s: %w", member.Name, team.Name, err)
		}
	}
	return nil
}
