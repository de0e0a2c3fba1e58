// Package drone is the bridge's view of Drone: one repository's builds, and the webhook that hints at their end.
//
// The repository and the branch are fixed when the client is made. Both reach a shell on the runner (git fetch of the
// branch, unquoted), so nothing that a comment or a pull request holds may choose them.
//
// The calls are drone-go's. They take no context: each ends by the client's timeout. hint.go is Drone's own call to the
// bridge.
package drone

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	sdk "github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/safehttp"
)

// ParamID is the build parameter that tells one comment's build from every other.
const ParamID = "TESTME_ID"

// patience bounds one call. Creating a build waits for the server's own webhooks, and when the pipeline's file is
// missing the server looks for it three times, 15 seconds apart, before it answers 500.
const patience = 90 * time.Second

// Client starts, finds, reads and cancels the builds of one repository. It may be used from several goroutines.
// Errors of its methods wrap what safehttp tells apart. drone-go does not escape names, so they are escaped before
// they are given to it.
type Client struct {
	api    sdk.Client
	http   *http.Client
	base   string
	owner  string
	name   string
	branch string
}

// New returns a client for the builds of the repository owner/name on one branch; it makes no call yet.
func New(server *url.URL, token string, repo, branch string) *Client {
	owner, name, _ := strings.Cut(repo, "/")
	base := strings.TrimSuffix(server.String(), "/")
	client := safehttp.New(server, "Bearer "+token, patience)
	return &Client{api: sdk.NewClient(base, client), http: client, base: base, owner: owner, name: name, branch: branch}
}

// Passing reports whether Create failed for a reason that may pass. Drone answers 404 also when it could not ask the
// forge for the branch; what is missing for good it calls "Not Found", or names its own database. The forge's status
// it knows by net/http's word for it, and for that of a gateway which has none, such as 521, the message is empty.
func Passing(err error) bool {
	var status *safehttp.StatusError
	if !errors.As(err, &status) || safehttp.Status(err) != http.StatusNotFound {
		return !safehttp.Definite(err)
	}
	return status.Message != "Not Found" && !strings.HasPrefix(status.Message, "sql: ")
}

// Build is what the bridge needs to know of a build.
type Build struct {
	Number   int64
	Status   string
	Error    string // the server's message about the pipeline's file
	Step     string // the first step that failed, as stage/step
	Started  time.Time
	Finished time.Time
}

// Done reports whether the build has ended.
func (b Build) Done() bool {
	// Named are the states that go on: a word of a later Drone must not be waited for until the deadline.
	switch b.Status {
	case sdk.StatusWaiting, sdk.StatusPending, sdk.StatusRunning, sdk.StatusBlocked, "":
		return false
	}
	return true
}

// Link is the build's page.
func (c *Client) Link(number int64) string {
	return fmt.Sprintf("%s/%s/%s/%d", c.base, c.owner, c.name, number)
}

// Create starts a build. Number 0 without an error means that no pipeline of the repository matches. After an
// error without a definite answer the build may exist: look with Find.
func (c *Client) Create(params map[string]string) (Build, error) {
	b, err := c.api.BuildCreate(url.PathEscape(c.owner), url.PathEscape(c.name), "", c.branch, params)
	if err != nil {
		return Build{}, fmt.Errorf("create build: %w", err)
	}
	return build(b), nil
}

// Find returns the builds with the given TESTME_ID that were created since a time, oldest first. A build that failed
// for its YAML has lost its parameters and is never found. After 5000 builds it stops looking.
func (c *Client) Find(id string, since time.Time) ([]Build, error) {
	// Drone cannot search by parameter. Builds are listed newest first, so the pages from before since need no look.
	const perPage, pages = 100, 50
	var found []Build
	for page := 1; page <= pages; page++ {
		list, err := c.api.BuildList(url.PathEscape(c.owner), url.PathEscape(c.name), sdk.ListOptions{Page: page, Size: perPage})
		if err != nil {
			return nil, fmt.Errorf("list builds: %w", err)
		}
		for _, b := range list {
			if b.Params[ParamID] == id {
				found = slices.Insert(found, 0, build(b))
			}
		}
		if len(list) < perPage || list[len(list)-1].Created < since.Unix() {
			return found, nil
		}
	}
	return found, nil
}

// Get reads a build.
func (c *Client) Get(number int64) (Build, error) {
	b, err := c.api.Build(url.PathEscape(c.owner), url.PathEscape(c.name), int(number))
	if err != nil {
		return Build{}, fmt.Errorf("read build %d: %w", number, err)
	}
	return build(b), nil
}

// Cancel ends a build; one that has ended already stays as it is.
func (c *Client) Cancel(number int64) error {
	if err := c.api.BuildCancel(url.PathEscape(c.owner), url.PathEscape(c.name), int(number)); err != nil {
		return fmt.Errorf("cancel build %d: %w", number, err)
	}
	return nil
}

// Access is what the token may do.
type Access struct {
	Login  string
	Active bool // the repository is switched on
	Write  bool // builds may be started

	Owner, Name, Branch string // what the client builds
	File                string // the pipeline's
}

// Check asks who the token is and what it may do. An error with a login is about the repository.
func (c *Client) Check() (Access, error) {
	self, err := c.api.Self()
	if err != nil {
		return Access{}, fmt.Errorf("own account: %w", err)
	}
	// The library's type leaves the permissions out.
	var repo struct {
		Active      bool   `json:"active"`
		Config      string `json:"config_path"`
		Permissions struct {
			Write bool `json:"write"`
		} `json:"permissions"`
	}
	path := fmt.Sprintf("/api/repos/%s/%s", url.PathEscape(c.owner), url.PathEscape(c.name))
	resp, err := c.http.Get(c.base + path)
	if err != nil {
		return Access{Login: self.Login}, fmt.Errorf("repository %s/%s: %w", c.owner, c.name, err)
	}
	err = json.NewDecoder(resp.Body).Decode(&repo)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return Access{Login: self.Login}, fmt.Errorf("read repository: %w", err)
	}
	if repo.Config == "" {
		repo.Config = ".drone.yml"
	}
	return Access{Login: self.Login, Active: repo.Active, Write: self.Admin || repo.Permissions.Write,
		Owner: c.owner, Name: c.name, Branch: c.branch, File: repo.Config}, nil
}

// build translates a build. A stage's error stands for the build's if that has none: there Drone puts what went wrong
// before the first step.
func build(b *sdk.Build) Build {
	out := Build{Number: b.Number, Status: b.Status, Error: b.Error, Started: unix(b.Started), Finished: unix(b.Finished)}
	for _, stage := range b.Stages {
		if out.Error == "" && stage.Error != "" {
			out.Error = stage.Error
		}
		for _, step := range stage.Steps {
			if out.Step == "" && !step.ErrIgnore && failed(step.Status) {
				out.Step = stage.Name + "/" + step.Name
			}
		}
	}
	return out
}

// failed reports whether a step ended the way people want to be told of.
func failed(status string) bool {
	return status == sdk.StatusFailing || status == sdk.StatusError || status == sdk.StatusKilled
}

// unix translates Drone's times, which are 0 for what has not happened.
func unix(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}
