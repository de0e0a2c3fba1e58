package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// pickup measures how soon a build starts on a runner that had nothing to do for some time. The times lie around the
// end of the server's long polls of 30 s, where drone-runner-exec is deaf for ten; a runner each waits them out. All
// wait at the same time, and their builds start about three seconds apart, so that none is in another's way. A label
// leads each build to its runner.
func (b *bench) pickup(ctx context.Context) error {
	times := []struct {
		idle   time.Duration
		theirs string
	}{{31 * time.Second, "9.2 s"}, {34 * time.Second, "6.2 s"}, {37 * time.Second, "3.2 s"}}
	took, errs := make([]time.Duration, len(times)), make([]error, len(times))
	var repos []testbed.Repo
	for _, one := range times {
		repo, err := b.user.NewRepo(ctx, testbed.RepoSpec{
			Name: "idle-" + one.idle.String(), Files: map[string]string{".drone.yml": fmt.Sprintf(
				"kind: pipeline\ntype: exec\nname: default\nplatform: {os: linux, arch: %s}\nnode: {idle: %s}\nclone: {disable: true}\n"+
					"steps:\n- name: now\n  commands: [date +%%s.%%N]\n", runtime.GOARCH, one.idle)},
		})
		if err == nil {
			err = b.bed.Drone.Activate(ctx, b.user, repo, testbed.Settings{})
		}
		if err != nil {
			return err
		}
		repos = append(repos, repo)
	}
	var side sync.WaitGroup
	for i, one := range times {
		// Each writes to its own place of the two lists.
		side.Go(func() { took[i], errs[i] = b.afterIdle(ctx, repos[i], one.idle) })
	}
	side.Wait()
	for i, one := range times {
		b.print(fmt.Sprintf("the same without clone, after %s without a build", one.idle), milliseconds(took[i:i+1]), one.theirs)
	}
	return errors.Join(errs...)
}

// afterIdle starts a runner of its own for a repository, lets it build once, wait, and build again. The first build
// sets the beginning of the wait: with it the polls begin anew. A capacity of one means one poll, as a second one
// would hide a deaf first.
func (b *bench) afterIdle(ctx context.Context, repo testbed.Repo, idle time.Duration) (took time.Duration, err error) {
	// Named as its repository, so that it has a directory of its own.
	runner, err := b.bed.StartRunner(ctx, testbed.RunnerOptions{
		Program: b.program, Name: repo.Name,
		Env: map[string]string{"DRONE_DEBUG": "false", "DRONE_RUNNER_LABELS": "idle:" + idle.String(), "DRONE_RUNNER_CAPACITY": "1"},
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, runner.Stop(context.WithoutCancel(ctx))) }()
	if _, err := b.build(ctx, repo, "now"); err != nil {
		return 0, err
	}
	if err := sleep(ctx, idle); err != nil {
		return 0, err
	}
	// The same request as in repeat, so that the figures compare.
	asked := time.Now()
	log, err := b.build(ctx, repo, "now")
	if err != nil {
		return 0, err
	}
	times, err := timesIn(log)
	if err != nil {
		return 0, err
	}
	return times[0].Sub(asked), nil
}
