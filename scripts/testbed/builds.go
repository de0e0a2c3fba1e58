package testbed

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/drone/drone-go/drone"
)

// Settings are what an active repository may have set. Zero values leave Drone's defaults.
type Settings struct {
	Trusted    bool
	Timeout    int64  // minutes
	ConfigPath string // .drone.yml when empty
}

// Activate makes Drone build a repository: it logs the user in if need be, lets Drone read the user's repositories,
// and registers the webhook with Gitea. The user must administer the repository. What is pushed from then on is built;
// what was pushed before is not.
func (d *Drone) Activate(ctx context.Context, user *User, repo Repo, settings Settings) error {
	token, err := d.Login(ctx, user)
	if err != nil {
		return err
	}
	client := d.Client(ctx, token)
	if _, err := client.RepoListSync(); err != nil {
		return fmt.Errorf("sync the repositories of %s: %w", user.Name, err)
	}
	if _, err := client.RepoEnable(repo.Owner, repo.Name); err != nil {
		return fmt.Errorf("activate %s: %w", repo.Slug(), err)
	}
	// Trust and timeouts are for administrators of Drone only.
	patch := &drone.RepoPatch{Trusted: &settings.Trusted}
	if settings.Timeout > 0 {
		patch.Timeout = &settings.Timeout
	}
	if settings.ConfigPath != "" {
		patch.Config = &settings.ConfigPath
	}
	if _, err := d.Admin(ctx).RepoUpdate(repo.Owner, repo.Name, patch); err != nil {
		return fmt.Errorf("set up %s: %w", repo.Slug(), err)
	}
	return nil
}

// NewBuild asks for a build of a branch's head with parameters, as the API does it: the event is custom. The branch is
// the repository's default one when empty.
func (d *Drone) NewBuild(ctx context.Context, repo Repo, branch string, params map[string]string) (*drone.Build, error) {
	build, err := d.Admin(ctx).BuildCreate(repo.Owner, repo.Name, "", branch, params)
	if err != nil {
		return nil, fmt.Errorf("create a build of %s: %w", repo.Slug(), err)
	}
	// Drone answers well, with an empty build, where the trigger of every pipeline excludes the event.
	if build.Number == 0 {
		return nil, fmt.Errorf("create a build of %s: no pipeline is meant for the event custom", repo.Slug())
	}
	return build, nil
}

// Secret is a secret of a repository or of an organisation.
type Secret struct {
	Name, Value  string
	PullRequests bool // pull requests get it too
}

// AddSecret stores a secret of one repository.
func (d *Drone) AddSecret(ctx context.Context, repo Repo, secret Secret) error {
	_, err := d.Admin(ctx).SecretCreate(repo.Owner, repo.Name,
		&drone.Secret{Name: secret.Name, Data: secret.Value, PullRequest: secret.PullRequests})
	if err != nil {
		return fmt.Errorf("store secret %s of %s: %w", secret.Name, repo.Slug(), err)
	}
	return nil
}

// AddOrgSecret stores a secret of all repositories of an owner.
func (d *Drone) AddOrgSecret(ctx context.Context, owner string, secret Secret) error {
	_, err := d.Admin(ctx).OrgSecretCreate(owner,
		&drone.Secret{Name: secret.Name, Data: secret.Value, PullRequest: secret.PullRequests})
	if err != nil {
		return fmt.Errorf("store secret %s of %s: %w", secret.Name, owner, err)
	}
	return nil
}

// RunCron makes a cron job for the branch main and lets it fire at once. Its own time is the first of January, which
// no test run meets but once a year.
func (d *Drone) RunCron(ctx context.Context, repo Repo, name string) error {
	client := d.Admin(ctx)
	_, err := client.CronCreate(repo.Owner, repo.Name, &drone.Cron{Name: name, Expr: "0 0 0 1 1 *", Branch: "main"})
	if err == nil {
		err = client.CronExec(repo.Owner, repo.Name, name)
	}
	if err != nil {
		return fmt.Errorf("run cron job %s of %s: %w", name, repo.Slug(), err)
	}
	return nil
}

// Promote promotes a finished build to a target. The new build's event is promote, its parent the old one.
func (d *Drone) Promote(ctx context.Context, repo Repo, number int64, target string) (*drone.Build, error) {
	return d.Admin(ctx).Promote(repo.Owner, repo.Name, int(number), target, nil)
}

// Cancel cancels a build. When it returns, Drone shows the build as killed; the runner learns of it by its watch and
// may still be tearing down.
func (d *Drone) Cancel(ctx context.Context, repo Repo, number int64) error {
	return d.Admin(ctx).BuildCancel(repo.Owner, repo.Name, int(number))
}

// RestartBuild starts a new build from an old one: same commit, event and parameters, another number.
func (d *Drone) RestartBuild(ctx context.Context, repo Repo, number int64) (*drone.Build, error) {
	return d.Admin(ctx).BuildRestart(repo.Owner, repo.Name, int(number), nil)
}

// Build reads a build with its stages and steps. Lists of builds come without them.
func (d *Drone) Build(ctx context.Context, repo Repo, number int64) (*drone.Build, error) {
	return d.Admin(ctx).Build(repo.Owner, repo.Name, int(number))
}

// Condition says whether a build is the awaited one, or as far as awaited. In WaitFor builds have no stages, in
// WaitBuild they do.
type Condition func(*drone.Build) bool

// Event holds for builds of one event: push, pull_request, tag, promote, cron, custom.
func Event(name string) Condition {
	return func(build *drone.Build) bool { return build.Event == name }
}

// Of holds for builds of one commit.
func Of(sha string) Condition {
	return func(build *drone.Build) bool { return build.After == sha }
}

// Status holds for builds whose status is one of those named.
func Status(names ...string) Condition {
	return func(build *drone.Build) bool {
		for _, name := range names {
			if build.Status == name {
				return true
			}
		}
		return false
	}
}

// Done holds for builds whose status is final.
func Done(build *drone.Build) bool {
	// What may still change; `blocked` waits for a person.
	return !Status(drone.StatusWaiting, drone.StatusPending, drone.StatusRunning, drone.StatusBlocked)(build)
}

// WaitFor waits until a repository has a build that meets the condition and returns the newest such, without its
// stages. It looks at the newest hundred.
func (d *Drone) WaitFor(ctx context.Context, repo Repo, condition Condition) (*drone.Build, error) {
	var found *drone.Build
	err := until(ctx, 100*time.Millisecond, "a build of "+repo.Slug(), func() (bool, error) {
		// A build that began between two looks is on the first page: Drone lists the newest first.
		builds, err := d.Admin(ctx).BuildList(repo.Owner, repo.Name, drone.ListOptions{Page: 1, Size: 100})
		if err != nil {
			return false, ignoreOutage(err)
		}
		for _, build := range builds {
			if condition(build) {
				found = build
				return true, nil
			}
		}
		return false, nil
	})
	return found, err
}

// WaitBuild waits until one build meets the condition. When the context ends first, the error says how far it came.
func (d *Drone) WaitBuild(ctx context.Context, repo Repo, number int64, condition Condition) (*drone.Build, error) {
	var build *drone.Build
	err := until(ctx, 100*time.Millisecond, fmt.Sprintf("build %d of %s", number, repo.Slug()), func() (bool, error) {
		now, err := d.Build(ctx, repo, number)
		if err != nil {
			return false, ignoreOutage(err)
		}
		build = now
		return condition(now), nil
	})
	if err != nil && build != nil {
		err = fmt.Errorf("%w: it is %s", err, Describe(build))
	}
	return build, err
}

// ignoreOutage drops every error but the server's own refusals: a restarted server is away for a moment. drone-go has
// no type for its errors; "client error 4" begins the text for every status from 400 to 499.
func ignoreOutage(err error) error {
	if strings.HasPrefix(err.Error(), "client error 4") {
		return err
	}
	return nil
}

// Describe puts a build's state in one line, with every error that Drone knows of it: what a failing test should say.
func Describe(build *drone.Build) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s", build.Status)
	if build.Error != "" {
		fmt.Fprintf(&text, " (%s)", build.Error)
	}
	for _, stage := range build.Stages {
		fmt.Fprintf(&text, "; stage %s %s", stage.Name, stage.Status)
		if stage.Error != "" {
			fmt.Fprintf(&text, " (%s)", stage.Error)
		}
		for _, step := range stage.Steps {
			fmt.Fprintf(&text, ", %s %s", step.Name, step.Status)
			if step.Error != "" {
				fmt.Fprintf(&text, " (%s)", step.Error)
			}
		}
	}
	return text.String()
}

// Step finds a step of a build by name. Where several stages have one, it is the first's.
func Step(build *drone.Build, name string) (*drone.Step, error) {
	for _, stage := range build.Stages {
		for _, step := range stage.Steps {
			if step.Name == name {
				return step, nil
			}
		}
	}
	return nil, fmt.Errorf("build %d has no step %q: it is %s", build.Number, name, Describe(build))
}

// StepRef names a step of a build by numbers, which count from 1.
type StepRef struct {
	Build, Stage, Step int
}

// Ref finds the numbers of a step by name, as Step does.
func Ref(build *drone.Build, name string) (StepRef, error) {
	for _, stage := range build.Stages {
		for _, step := range stage.Steps {
			if step.Name == name {
				return StepRef{Build: int(build.Number), Stage: stage.Number, Step: step.Number}, nil
			}
		}
	}
	return StepRef{}, fmt.Errorf("build %d has no step %q: it is %s", build.Number, name, Describe(build))
}

// Log reads the stored log of a finished step as one text. A step that never ran has none, and that is an error.
func (d *Drone) Log(ctx context.Context, repo Repo, step StepRef) (string, error) {
	lines, err := d.Admin(ctx).Logs(repo.Owner, repo.Name, step.Build, step.Stage, step.Step)
	if err != nil {
		return "", fmt.Errorf("read the log of %s %v: %w", repo.Slug(), step, err)
	}
	var text strings.Builder
	for _, line := range lines {
		text.WriteString(line.Message)
	}
	return text.String(), nil
}

// Follow hands over the lines of a running step as they come, until the step ends or the context does. Drone keeps the
// live log of a step only while it runs, and its last 5000 lines only: for all of it, read Log afterwards. The stream
// is one of server-sent events, a line of JSON each, and ends with an event "error" (Drone's
// handler/api/events/logs.go). each is called from this goroutine.
func (d *Drone) Follow(ctx context.Context, repo Repo, step StepRef, each func(drone.Line)) error {
	address := fmt.Sprintf("%s/api/stream/%s/%d/%d/%d", d.url, repo.Slug(), step.Build, step.Stage, step.Step)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	// Without the time-out of HTTPClient: a step may be silent for long.
	response, err := bearer{ctx: ctx, token: d.AdminToken}.RoundTrip(request)
	if err != nil {
		return err
	}
	lines := bufio.NewReader(response.Body)
	for {
		text, err := lines.ReadString('\n')
		if data, ok := strings.CutPrefix(text, "data: {"); ok {
			var line drone.Line
			if err := json.Unmarshal([]byte("{"+data), &line); err == nil {
				each(line)
			}
		}
		if err != nil || strings.HasPrefix(text, "event: error") {
			// The end of the stream is its only end: the server closes it when the step is done.
			return errors.Join(context.Cause(ctx), response.Body.Close())
		}
	}
}
