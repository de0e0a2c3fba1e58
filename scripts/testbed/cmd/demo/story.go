package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"code.gitea.io/sdk/gitea"
	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// story goes from a pull request to the answer on it and judges what it sees: that is done at the end and all at once,
// so that the reader sees every check that fails.
func (d *demo) story(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("the demo took more than five minutes"))
	defer cancel()
	before, err := d.objects(ctx)
	if err != nil {
		return err
	}
	d.heading("A pull request from a fork")
	pull, sha, err := d.open(ctx)
	if err != nil {
		return err
	}
	d.heading("A comment on it: !testme")
	if _, err := d.maintainer.Comment(ctx, d.recipe, pull, "!testme"); err != nil {
		return err
	}
	// The comment changes while the build runs: both are shown as they happen.
	watching, done := context.WithCancel(ctx)
	defer done()
	var answer string
	var watchErr error
	var watch sync.WaitGroup
	watch.Go(func() { answer, watchErr = d.watch(watching, pull) })
	// The watcher is awaited on each way out; after an error its answer is of no interest.
	build, log, err := d.follow(ctx, pull)
	if err != nil {
		done()
		watch.Wait()
		return err
	}
	watch.Wait()
	if watchErr != nil {
		return watchErr
	}
	d.heading("Checks")
	return errors.Join(d.green(build), d.answered(ctx, sha, answer), d.clean(ctx, before, log))
}

// objects lists what is on the demo's Docker; nothing without one. The first list, before the story, is what the last
// is compared with.
func (d *demo) objects(ctx context.Context) (map[string][]string, error) {
	if d.docker == nil {
		return nil, nil
	}
	return d.docker.objects(ctx)
}

// open forks the recipe, changes it and asks the maintainer to take the change: what a stranger does, who may write to
// no repository here but the fork.
func (d *demo) open(ctx context.Context) (number int64, sha string, err error) {
	fork, err := d.contributor.Fork(ctx, d.recipe)
	if err != nil {
		return 0, "", err
	}
	// One line of the recipe, which shows in the greeting.
	changed := strings.Replace(compose, "the main branch", "the pull request", 1)
	sha, err = d.contributor.Push(ctx, fork, testbed.Commit{
		Branch: "greet", Message: "Greet from here", Files: map[string]string{"compose.yml": changed},
	})
	if err != nil {
		return 0, "", err
	}
	pull, err := d.contributor.NewPullRequest(ctx, d.recipe, fork.Owner+":greet", "Greet from here")
	if err != nil {
		return 0, "", err
	}
	d.say("%s pushed %s to %s and opened %s/%s/pulls/%d",
		d.contributor.Name, sha[:10], fork.Slug(), d.bed.Gitea.URL(), d.recipe.Slug(), pull.Index)
	return pull.Index, sha, nil
}

// watch prints the bot's comment whenever it changes, until it tells a result, which it returns. The bridge sets a
// result in bold letters, and nothing before it.
func (d *demo) watch(ctx context.Context, pull int64) (string, error) {
	last := ""
	for !strings.Contains(last, "**") {
		comments, err := d.maintainer.Comments(ctx, d.recipe, pull)
		if err != nil {
			return "", err
		}
		// The bot edits one comment; a second one of its own would be a refusal, and is shown as well.
		for _, comment := range comments {
			if comment.Poster.ID == d.bot.ID && comment.Body != last {
				last = comment.Body
				line, _, _ := strings.Cut(last, "\n")
				d.say("Gitea > comment by %s: %s", d.bot.Name, line)
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return "", fmt.Errorf("wait for the bridge's answer: %w", context.Cause(ctx))
		}
	}
	return last, nil
}

// follow waits for the build that the bridge starts, shows its log, its teardown report and its result. It also
// returns all that was logged.
func (d *demo) follow(ctx context.Context, pull int64) (*drone.Build, string, error) {
	// The bridge hands the number of the pull request over as a parameter.
	meant := func(build *drone.Build) bool { return build.Params["PR"] == fmt.Sprint(pull) }
	started, err := d.bed.Drone.WaitFor(ctx, d.ci, meant)
	if err != nil {
		return nil, "", err
	}
	d.say("Drone > build %d: %s/%s/%d", started.Number, d.bed.Drone.URL(), d.ci.Slug(), started.Number)
	follower := newFollower(d.bed.Drone, d.ci, d.out)
	build, err := follower.follow(ctx, started.Number)
	if err != nil {
		return nil, "", err
	}
	// The runner's report comes through Drone, like every step's log.
	ref, err := testbed.Ref(build, teardown)
	if err != nil {
		return nil, "", err
	}
	report, err := d.bed.Drone.Log(ctx, d.ci, ref)
	if err != nil {
		return nil, "", err
	}
	d.heading("The teardown report: what the pipeline had left, and what became of it")
	d.say("%s", strings.TrimSpace(report))
	d.result(build)
	return build, follower.text() + report, nil
}

// answered returns an error unless the pull request tells of a success, in the comment and in the commit's status. The
// status is waited for: the bridge sets it beside the comment, and nothing says which is first.
func (d *demo) answered(ctx context.Context, sha, answer string) error {
	if !strings.Contains(answer, "**success**") {
		return fmt.Errorf("the comment does not say success: %s", answer)
	}
	client, err := d.maintainer.Client(ctx)
	if err != nil {
		return err
	}
	name := "cc-ci/" + d.recipe.Name
	for {
		statuses, _, err := client.ListStatuses(d.recipe.Owner, d.recipe.Name, sha, gitea.ListStatusesOption{})
		if err != nil {
			return fmt.Errorf("read the commit's statuses: %w", err)
		}
		// A commit has a list of statuses, the older ones of one name among them.
		set := func(s *gitea.Status) bool { return s.Context == name && s.State == gitea.StatusSuccess }
		if slices.ContainsFunc(statuses, set) {
			d.say("the comment says success, and the commit's status %s is success", name)
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for the status %s of %s: %w", name, sha[:10], context.Cause(ctx))
		}
	}
}

// clean returns an error unless the build left nothing behind and its log kept the secret. It looks at the host and
// the Swarm itself, and takes nobody's word: not the runner's report, not its exit code.
func (d *demo) clean(ctx context.Context, before map[string][]string, log string) error {
	// By the mark in its command line: that process left its session and ignores SIGTERM.
	processes, err := testbed.Processes(d.mark)
	if err != nil {
		return err
	}
	left, err := d.runner.Leftovers()
	if err != nil {
		return err
	}
	d.say("left on this host: %d processes, %d directories", len(processes), len(left))
	left = append(processes, left...)
	if d.docker != nil {
		now, err := d.docker.objects(ctx)
		if err != nil {
			return err
		}
		line, names := added(before, now)
		d.say("left on the Swarm: %s", line)
		left = append(left, names...)
	}
	if len(left) > 0 {
		return errors.New("left behind: " + strings.Join(left, ", "))
	}
	if strings.Contains(log, secret) {
		return errors.New("the log shows the secret")
	}
	d.say("the log does not show the secret")
	return nil
}
