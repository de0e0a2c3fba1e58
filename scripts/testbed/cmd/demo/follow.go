package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// teardown is the step that the runner adds; its log is shown as a report of its own.
const teardown = "teardown"

// follower shows the log lines of all steps of a build as they come. Each line is shown once, be it first seen in the
// live log or in the stored one: lines are numbered, and those of one step come in order.
type follower struct {
	server *testbed.Drone
	repo   testbed.Repo
	out    io.Writer

	// Only follow's goroutine reads and writes these two maps; active counts the live logs.
	begun  map[testbed.StepRef]bool // the live log was opened
	ended  map[testbed.StepRef]bool // the stored log was shown
	active sync.WaitGroup           // the live logs

	// mu guards what follows: live logs are shown by goroutines of their own.
	mu    sync.Mutex
	shown map[testbed.StepRef]int // the number of the next line to show
	all   strings.Builder
	width int
}

func newFollower(server *testbed.Drone, repo testbed.Repo, out io.Writer) *follower {
	return &follower{
		server: server, repo: repo, out: out, shown: map[testbed.StepRef]int{},
		begun: map[testbed.StepRef]bool{}, ended: map[testbed.StepRef]bool{},
	}
}

// follow shows a build's log until the build is done, and returns it with its stages. It asks every 200 ms which steps
// have begun and ended. No live log is open any more when it returns.
func (f *follower) follow(ctx context.Context, number int64) (*drone.Build, error) {
	live, cancel := context.WithCancel(ctx)
	// Deferred calls run last first: the live logs are ended, then awaited.
	defer f.active.Wait()
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		build, err := f.server.Build(ctx, f.repo, number)
		if err != nil {
			return nil, err
		}
		missing := f.look(live, build)
		if testbed.Done(build) {
			return build, missing
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("follow build %d, which is %s: %w", number, testbed.Describe(build), context.Cause(ctx))
		}
	}
}

// look opens the live log of each step that runs, and reads the stored log of each that has ended since. It returns
// an error if a stored log cannot be read, which is in order until the build is done.
func (f *follower) look(ctx context.Context, build *drone.Build) error {
	var errs []error
	each(build, func(ref testbed.StepRef, step *drone.Step) {
		if step.Name == teardown {
			return
		}
		f.widen(len(step.Name))
		// Whatever is not waiting, running or skipped has ended, well or not.
		switch step.Status {
		case drone.StatusPending, drone.StatusSkipped:
		case drone.StatusRunning:
			if !f.begun[ref] {
				f.begun[ref] = true
				// A step may end before its stream opens: then its stored log is all there is.
				f.active.Go(func() {
					_ = f.server.Follow(ctx, f.repo, ref, func(line drone.Line) { f.show(ref, step.Name, line) })
				})
			}
		default:
			errs = append(errs, f.rest(ctx, ref, step.Name))
		}
	})
	return errors.Join(errs...)
}

// rest shows what the live log of an ended step has missed: a step may be over before anybody could look, and the
// server drops the live log at its end.
func (f *follower) rest(ctx context.Context, ref testbed.StepRef, name string) error {
	if f.ended[ref] {
		return nil
	}
	lines, err := f.server.Admin(ctx).Logs(f.repo.Owner, f.repo.Name, ref.Build, ref.Stage, ref.Step)
	if err != nil {
		return fmt.Errorf("read the log of step %s: %w", name, err)
	}
	f.ended[ref] = true
	for _, line := range lines {
		f.show(ref, name, *line)
	}
	return nil
}

// widen makes the column of names wide enough. Lines that were shown before stay as they are.
func (f *follower) widen(width int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.width = max(f.width, width)
}

// show writes one line, once. A live log that lags behind the stored one brings only lines that were shown.
func (f *follower) show(ref testbed.StepRef, name string, line drone.Line) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if line.Number < f.shown[ref] {
		return
	}
	f.shown[ref] = line.Number + 1
	// Without the names, and as it was written: a secret could stand in two entries that make one line.
	f.all.WriteString(line.Message)
	_, _ = fmt.Fprintf(f.out, "%*s | %s\n", f.width, name, strings.TrimRight(line.Message, "\n"))
}

// text returns all that was shown of the logs, for the search for the secret.
func (f *follower) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all.String()
}

// each visits all steps of a build, in the order of its stages.
func each(build *drone.Build, visit func(testbed.StepRef, *drone.Step)) {
	for _, stage := range build.Stages {
		for _, step := range stage.Steps {
			visit(testbed.StepRef{Build: int(build.Number), Stage: stage.Number, Step: step.Number}, step)
		}
	}
}

// result prints how each step ended, the runner's own step teardown too.
func (d *demo) result(build *drone.Build) {
	d.heading("The result: build %d is %s", build.Number, build.Status)
	each(build, func(_ testbed.StepRef, step *drone.Step) {
		note := ""
		if step.ErrIgnore && step.Status == drone.StatusFailing {
			note = " (ignored)"
		}
		d.say("  %-12s %s, exit code %d, %d s%s", step.Name, step.Status, step.ExitCode, step.Stopped-step.Started, note)
	})
}

// green returns an error unless the build passed.
func (d *demo) green(build *drone.Build) error {
	if build.Status != drone.StatusPassing {
		return fmt.Errorf("the build is not green: it is %s", testbed.Describe(build))
	}
	d.say("build %d is green", build.Number)
	return nil
}
