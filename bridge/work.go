package bridge

import (
	"context"
	"time"

	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// How a run ends; the first four are Drone's words.
const (
	statusSuccess = "success"
	statusFailure = "failure"
	statusKilled  = "killed"
	statusError   = "error"
	statusNone    = "none" // there was no run
)

// advance takes a request to its end, step by step. A step that fails is repeated, later and later; after GiveUp the
// author is told. A nudge ends a wait early, so a run that was told to stop does not sit one out. Requests that are
// not at their end when ctx ends go on with the next Run.
func (b *Bridge) advance(ctx context.Context, j *job) {
	log := b.Log.WithFields(logrus.Fields{
		"repo": j.req.Owner + "/" + j.req.Name, "pr": j.req.PR, "comment": j.req.Comment, "user": j.req.Author,
	})
	wait := b.RetryFirst
	for !j.req.State.Final() && ctx.Err() == nil {
		before := j.req.State
		err := b.step(ctx, j)
		if err == nil {
			// Only progress makes the waits short again: a step that does half of its work and then fails is as
			// patient as one that fails at once.
			if j.req.State != before {
				wait, j.fails = b.RetryFirst, 0
			}
			continue
		}
		if j.fails++; j.fails == 1 {
			j.since = time.Now()
		}
		b.metrics.retries.WithLabelValues(string(j.req.State)).Inc()
		log.WithError(err).WithField("state", j.req.State).Warn("a step failed and is repeated")
		if err := b.giveUp(ctx, j); err != nil {
			log.WithError(err).Error("journal")
		}
		if !b.doze(ctx, j, wait) {
			return
		}
		wait = min(2*wait, b.RetryMax)
	}
	if j.req.State.Final() {
		log.WithFields(logrus.Fields{"state": j.req.State, "build": j.req.Build}).Info("request is finished")
	}
}

// step does what the request's state asks for. An error means that nothing was decided and the same step is to be
// taken again; so each step begins by looking at what an earlier try may have done. An outcome comes before any
// state: what is decided is only delivered, also when the decision was made in the middle of a step and a crash came
// between.
func (b *Bridge) step(ctx context.Context, j *job) error {
	switch {
	case j.req.Outcome != nil:
		return b.deliver(ctx, j)
	case j.req.State == journal.Received:
		return b.authorise(j)
	case j.req.State == journal.Authorised:
		return b.admit(j)
	case j.req.State == journal.Triggering:
		return b.trigger(ctx, j)
	default:
		return b.follow(ctx, j)
	}
}

// giveUp ends a request whose servers have not answered for GiveUp. Runs that have begun end by their deadline: giving
// them up earlier would leave a build behind that nobody watches.
func (b *Bridge) giveUp(ctx context.Context, j *job) error {
	// Time counts from the first failure and not from the comment: when the bridge itself was away for long, the
	// servers may need a moment too after what kept all of them away.
	switch {
	case time.Since(j.since) < b.GiveUp:
		return nil
	case j.req.Outcome != nil: // nobody can be told
		if !b.outlast(ctx, j) {
			return nil
		}
		return b.finish(j)
	case j.req.State == journal.Triggered:
		return nil
	}
	end := journal.Outcome{
		Rule: "server unreachable", Status: statusError,
		Text: "the servers did not answer for too long; comment again when they are back",
	}
	if j.req.State != journal.Triggering {
		end.Status = statusNone // there is no run that a status could be about
	}
	// A build that may exist has nobody who follows it: outlast looks for it, and cancels it.
	if (!j.unsure.IsZero() || j.made.Number != 0) && !j.req.Again {
		if err := b.set(j, func(r *journal.Request) { r.Again = true }); err != nil {
			return err
		}
	}
	return b.decide(j, end)
}

// set stores a change of the request and makes it the job's once it is on disk. It is for the job's own goroutine: two
// writers would overwrite each other's whole request.
func (b *Bridge) set(j *job, change func(*journal.Request)) error {
	// A write that fails may leave no trace in memory either: the step is repeated from what the disk has.
	next := j.req
	change(&next)
	if err := b.Journal.Save(next); err != nil {
		return err
	}
	j.req = next
	return nil
}

// decide ends a request with an outcome; its delivery is the next step. The state stays as it was: together with the
// outcome it says how far the run had come, and only a delivered request is final.
func (b *Bridge) decide(j *job, o journal.Outcome) error {
	o.At = time.Now()
	decision := "ended"
	switch {
	case o.Status == statusNone && answers(&o):
		decision = "answered"
	case o.Status == statusNone:
		decision = "refused"
	}
	// The line first: after a crash in between it is written twice, the other way round it would be missing.
	if err := b.audit.write(&j.req, decision, o.Rule); err != nil {
		return err
	}
	if err := b.set(j, func(r *journal.Request) { r.Outcome = &o }); err != nil {
		return err
	}
	j.fails = 0 // the tries of the delivery are counted anew
	b.metrics.decisions.WithLabelValues(decision, o.Rule).Inc()
	if o.Status != statusNone {
		b.metrics.results.WithLabelValues(o.Status).Inc()
	}
	return nil
}

// answers reports whether an outcome without a run is what the author asked for: then it gets a thumb up, and counts as
// answered and not as refused.
func answers(o *journal.Outcome) bool {
	return o.Rule == ruleCancel || o.Rule == ruleCancelOwn || o.Rule == ruleHelp
}

// finish puts the request into its final state: Reported if there was a run that the author was told of, otherwise
// Refused, also for commands that were answered.
func (b *Bridge) finish(j *job) error {
	return b.set(j, func(r *journal.Request) {
		r.State = journal.Refused
		if r.Outcome.Status != statusNone {
			r.State = journal.Reported
		}
	})
}

// doze waits until the time is over, the job is nudged, or ctx ends; only then it returns false. A nudge that came
// while the job was busy ends the next doze at once.
func (b *Bridge) doze(ctx context.Context, j *job, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-j.wake:
	case <-ctx.Done():
		return false
	}
	return true
}

// repoOf and authorOf are a request's repository and author for calls to Gitea.
func repoOf(r *journal.Request) gitea.Repo {
	return gitea.Repo{ID: r.Repo, Owner: r.Owner, Name: r.Name}
}

func authorOf(r *journal.Request) gitea.User { return gitea.User{ID: r.Author, Login: r.Login} }
