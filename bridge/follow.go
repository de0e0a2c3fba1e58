package bridge

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/drone"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/safehttp"
)

// maxLost is for how many times Settle a build must be answered with 404 until it counts as gone, and its creation
// until it counts as refused: a proxy answers so too while the server behind it is started again.
const maxLost = 4

// follow looks at the build once, acts on what it sees, and waits until the next look: Drone's webhook, a stop,
// or the poll's interval, whichever comes first. Polls are the truth because nothing else is complete: Drone tries a
// webhook once, and its stream of events has none for a waiting build that is cancelled.
func (b *Bridge) follow(ctx context.Context, j *job) error {
	r := &j.req
	if r.Again {
		b.endTwins(j)
	}
	// A build that has ended counts, even if it was to be stopped or its deadline has passed: its result is true.
	build, err := b.Drone.Get(r.Build)
	if err == nil && build.Done() {
		return b.decide(j, result(build))
	}
	switch {
	case safehttp.Status(err) != http.StatusNotFound:
		j.lost = time.Time{}
	case j.lost.IsZero():
		j.lost = time.Now()
	case time.Since(j.lost) > maxLost*b.Settle:
		return b.decide(j, failed("build is gone", "the CI server no longer knows the build"))
	}
	stop, stopErr := b.Journal.Stopped(r.Key)
	if stopErr != nil {
		return stopErr
	}
	// Drone has no deadline for builds that no runner takes, nor, but for a reaper that looks once a day, for stages
	// whose runner is gone. The time counts from the demand: what waits for a runner is no better than what hangs.
	if stop == nil && time.Since(r.Asked) > b.Deadline {
		stop = &journal.Stop{Rule: "deadline", Text: fmt.Sprintf("the run did not end within %s and was cancelled", b.Deadline)}
	}
	if stop != nil {
		return b.kill(j, stop)
	}
	if err != nil {
		return err
	}
	if build.Status == "running" && !r.Running {
		if err := b.say(j, runningText(r, b.Drone.Link(r.Build))); err != nil && !safehttp.Definite(err) {
			return err
		}
		b.status(r, gitea.Status{State: "pending", Description: "running"})
		// Last, so that a crash before it tells people again and not never.
		if err := b.set(j, func(r *journal.Request) { r.Running = true }); err != nil {
			return err
		}
	}
	// Short builds are seen at once, long ones do not load Drone: each wait is half as long again as the one before.
	// Whatever comes by hook ends the wait.
	j.poll = min(max(b.Poll, j.poll+j.poll/2), b.PollMax)
	b.doze(ctx, j, j.poll)
	return nil
}

// kill cancels the build and ends the request with the reason. Drone keeps the result of a build that ended a
// moment before. To cancel twice, as after a crash, changes nothing there.
func (b *Bridge) kill(j *job, stop *journal.Stop) error {
	// Drone may be away for a while, but not for ever: a run that was told to stop gets an end, whatever Drone does.
	err := b.Drone.Cancel(j.req.Build)
	if err != nil && !safehttp.Definite(err) && time.Since(j.req.Asked) < b.Deadline+b.GiveUp {
		return err
	}
	o := stopOutcome(&j.req, stop)
	if stop.Rule == "deadline" { // nobody wanted it to end
		o.Status = statusError
	}
	if err != nil {
		o.Text += "; the CI server did not confirm that the build was cancelled"
	}
	return b.decide(j, o)
}

// result is the outcome of a build that has ended. The words of Drone's that have no place here become error:
// whatever was not shown to be right must not look like it.
func result(build drone.Build) journal.Outcome {
	o := journal.Outcome{Rule: "finished", Status: build.Status, Step: build.Step}
	switch build.Status {
	case statusSuccess, statusFailure, statusKilled, statusError:
	default: // declined, skipped, or a word of a later Drone
		o.Status, o.Text = statusError, "the CI server ended the build as "+code(build.Status, 30)
	}
	if build.Error != "" { // a linter's or the server's words about the pipeline: foreign text
		o.Text = "the CI server says " + code(build.Error, 200)
	}
	// Drone counts whole seconds: a build within one of them took at most that.
	if build.Started.Unix() > 0 && !build.Finished.Before(build.Started) {
		o.Duration = max(build.Finished.Sub(build.Started), time.Second)
	}
	return o
}
