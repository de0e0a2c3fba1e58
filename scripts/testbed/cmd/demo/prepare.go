package main

import (
	"context"
	_ "embed"
	"runtime"
	"strings"
	"time"

	"code.gitea.io/sdk/gitea"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

//go:embed pipeline.yml
var basePipeline string

// The steps that need Docker, put behind the others.
//
//go:embed docker.yml
var dockerSteps string

//go:embed compose.yml
var compose string

// secret is what the log must not show. The pipeline prints it whole and in two writes.
const secret = "correct-horse-battery-staple"

// stack is the name under which the pipeline deploys the recipe.
const stack = "greeter-demo"

// prepare makes accounts and repositories and starts what works on them. Docker comes first, since the pipeline and
// the runner's settings depend on it.
func (d *demo) prepare(ctx context.Context) (err error) {
	if reason := noDocker(); reason != "" {
		d.say("The Docker part is left out: %s.", reason)
	} else {
		if err := d.startDocker(ctx); err != nil {
			return err
		}
	}
	// Three people, because the story needs three sets of rights.
	for name, user := range map[string]**testbed.User{"mara": &d.maintainer, "carl": &d.contributor, "cc-ci": &d.bot} {
		if *user, err = d.bed.Gitea.NewUser(ctx, name); err != nil {
			return err
		}
	}
	if err := d.repositories(ctx); err != nil {
		return err
	}
	if err := d.startRunner(ctx); err != nil {
		return err
	}
	return d.startBridge(ctx)
}

// startDocker starts the Swarm. A host on which no daemon can run, as in a container without rights, does without;
// only an interruption ends the demo here.
func (d *demo) startDocker(ctx context.Context) error {
	program, err := buildHelper(ctx, d.bed.Dir)
	if err != nil {
		return err
	}
	d.say("demo: start a Docker Swarm ...")
	begun := time.Now()
	started, err := startDocker(ctx, program)
	switch {
	case ctx.Err() != nil:
		return err
	case err != nil:
		d.say("The Docker part is left out, because no daemon can be started here: %v", err)
		return nil
	}
	d.docker = started
	d.say("demo: start a Docker Swarm: %.1f s", time.Since(begun).Seconds())
	return nil
}

// repositories makes the recipe, which is to be tested, and the CI repository, whose pipeline tests it. The bot
// administers the recipe, so that Gitea tells it anybody's rights there, and may write to the CI repository, which is
// what Drone wants of whoever starts builds.
func (d *demo) repositories(ctx context.Context) (err error) {
	d.recipe, err = d.maintainer.NewRepo(ctx, testbed.RepoSpec{Name: "greeter", Files: map[string]string{"compose.yml": compose}})
	if err != nil {
		return err
	}
	if err := d.maintainer.AddCollaborator(ctx, d.recipe, d.bot, gitea.AccessModeAdmin); err != nil {
		return err
	}
	d.ci, err = d.maintainer.NewRepo(ctx, testbed.RepoSpec{Name: "ci", Files: map[string]string{".drone.yml": d.pipeline()}})
	if err != nil {
		return err
	}
	if err := d.maintainer.AddCollaborator(ctx, d.ci, d.bot, gitea.AccessModeWrite); err != nil {
		return err
	}
	if err := d.bed.Drone.Activate(ctx, d.maintainer, d.ci, testbed.Settings{}); err != nil {
		return err
	}
	return d.bed.Drone.AddSecret(ctx, d.ci, testbed.Secret{Name: "token", Value: secret})
}

// pipeline is the CI repository's pipeline, without the steps that need Docker where there is none. The words in
// braces are the demo's own, put in before the file is committed; ${...} is Drone's to replace.
func (d *demo) pipeline() string {
	text, image := basePipeline, ""
	if d.docker != nil {
		text, image = text+dockerSteps, d.docker.Image
	}
	// {mark} marks the process that is left behind; no other process of the host has it.
	words := strings.NewReplacer("{arch}", runtime.GOARCH, "{mark}", d.mark, "{stack}", stack, "{image}", image)
	return words.Replace(text)
}

// startRunner builds the runner, unless another is to be shown, and starts it. An older runner ignores the settings
// that it does not know, and the proof at the end shows what it leaves.
func (d *demo) startRunner(ctx context.Context) (err error) {
	if d.program == "" {
		if d.program, err = d.bed.BuildProduct(ctx, "cc-ci-runner"); err != nil {
			return err
		}
	}
	env := map[string]string{
		"DRONE_UI_USERNAME": "demo", "DRONE_UI_PASSWORD": d.uiPassword, "DRONE_RUNNER_CAPACITY": "2",
		// Not the host's Docker, which the pipeline is not meant for.
		"DRONE_RUNNER_DOCKER": "none",
		"DRONE_RUNNER_GRACE":  "2s", // one process ignores SIGTERM; ten seconds of silence would tell no more
	}
	if d.docker != nil {
		env["DRONE_RUNNER_DOCKER"] = "proxy"
		env["DRONE_RUNNER_DOCKER_ENDPOINT"] = d.docker.Host
	}
	d.runner, err = d.bed.StartRunner(ctx, testbed.RunnerOptions{Program: d.program, Name: "demo-runner", Env: env})
	return err
}
