package bridge

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/drone"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/safehttp"
)

// maxBroken is how many answers of 500 to the same build are enough: Drone gives them when its pipeline file is
// missing, after 45 seconds each, but also when its database was busy.
const maxBroken = 2

// admit settles what a run means for the other runs of its pull request and recipe: the newest comment counts. An
// older run of another commit ends, and an identical one is pointed at. The lane makes it see every run that was
// admitted before it, in whatever order the hooks came.
func (b *Bridge) admit(j *job) error {
	defer b.lane(&j.req)()
	r := &j.req
	if stop, err := b.Journal.Stopped(r.Key); err != nil || stop != nil {
		return b.orStop(j, err, stop)
	}
	others, err := b.Journal.Pull(r.Repo, r.PR)
	if err != nil {
		return err
	}
	var older []journal.Key
	for _, o := range others {
		// Hooks may overtake each other: a !cancel that was written after this command may have been done before it.
		if o.Comment > r.Comment && cancels(&o, r) {
			return b.decide(j, stopOutcome(r, &journal.Stop{Rule: "cancelled", Text: "cancelled by " + code(o.Login, 64)}))
		}
		if o.Key == r.Key || o.Recipe != r.Recipe || o.Outcome != nil ||
			(o.State != journal.Triggering && o.State != journal.Triggered) {
			continue
		}
		if stop, err := b.Journal.Stopped(o.Key); err != nil {
			return err
		} else if stop != nil {
			continue // it is ending already
		}
		if end := b.meet(r, &o); end != nil {
			return b.decide(j, *end)
		}
		older = append(older, o.Key)
	}
	// Charged only now: refused and identical commands cost no run. And before the older run is told to end: a command
	// that finds the bucket empty must not leave the pull request without any.
	if !b.pulls.take(lane{r.Repo, r.PR}, time.Now()) || !b.repos.take(r.Repo, time.Now()) {
		return b.decide(j, notice("run limit", "too many runs at once; comment again in a few minutes"))
	}
	text := fmt.Sprintf("superseded by [a later command](%s)", b.Gitea.CommentURL(repoOf(r), r.PR, r.Comment))
	for _, key := range older {
		if err := b.end(key, journal.Stop{Rule: "superseded", Text: text}); err != nil {
			return err
		}
	}
	return b.set(j, func(r *journal.Request) { r.State = journal.Triggering })
}

// cancels reports whether o was a command to end r's run, found before r was.
func cancels(o, r *journal.Request) bool {
	return o.Outcome != nil && (o.Outcome.Rule == ruleCancel || (o.Outcome.Rule == ruleCancelOwn && o.Author == r.Author))
}

// meet compares a run with an admitted one of the same recipe and returns how the run ends by it; nothing means
// that the other is to end. The same commit is never run twice at a time, whichever comment is newer.
func (b *Bridge) meet(r, other *journal.Request) *journal.Outcome {
	var end journal.Outcome
	switch {
	case other.SHA == r.SHA:
		end = notice("identical", fmt.Sprintf("this run [was asked for already](%s)", b.replyURL(other)))
	case other.Comment > r.Comment:
		text := fmt.Sprintf("superseded by [a later command](%s)", b.replyURL(other))
		end = stopOutcome(r, &journal.Stop{Rule: "superseded", Text: text})
	default:
		return nil
	}
	return &end
}

// replyURL links to a run's reply, or to its command while there is none. It is as the journal has it now: a link
// that was written before the reply stays one to the command.
func (b *Bridge) replyURL(r *journal.Request) string {
	id := r.ReplyID
	if id == 0 {
		id = r.Comment
	}
	return b.Gitea.CommentURL(repoOf(r), r.PR, id)
}

// stopOutcome is how a run ends that was told to stop. Before it was admitted it leaves no run behind: people were told of
// none, so there is no status to set and the command counts as refused.
func stopOutcome(r *journal.Request, stop *journal.Stop) journal.Outcome {
	o := journal.Outcome{Rule: stop.Rule, Status: statusKilled, Text: stop.Text}
	if r.State == journal.Received || r.State == journal.Authorised {
		o.Status = statusNone
	}
	return o
}

// orStop returns err if there is one and otherwise ends the request as it was told to; one of the two is there.
func (b *Bridge) orStop(j *job, err error, stop *journal.Stop) error {
	if err != nil {
		return err
	}
	return b.decide(j, stopOutcome(&j.req, stop))
}

// trigger makes sure that the reply says queued and that exactly one build exists. Drone knows no key by which a demand
// could be repeated safely, so the parameter TESTME_ID is it: what may have been made is looked for by it first.
func (b *Bridge) trigger(ctx context.Context, j *job) error {
	r := &j.req
	stop, err := b.Journal.Stopped(r.Key)
	if err != nil {
		return err
	}
	// Once Drone was asked, a stop has to wait until the build's number is known: only then can it be cancelled.
	if stop != nil && r.Asked.IsZero() {
		return b.decide(j, stopOutcome(r, stop))
	}
	// The reply comes before the build: people see that something happens while Drone is slow, and after a crash the
	// reply is there to be found.
	if r.ReplyID == 0 {
		if err := b.say(j, queuedText(r)); err != nil && !safehttp.Definite(err) {
			return err
		}
		b.status(r, gitea.Status{State: "pending", Description: "queued"})
	}
	build := j.made
	if build.Number == 0 && !j.unsure.IsZero() {
		if build, err = b.find(ctx, j); err != nil || ctx.Err() != nil {
			return err
		}
	}
	if build.Number == 0 {
		if build, err = b.create(j); err != nil {
			return b.createFailed(j, err)
		}
	}
	// Drone answers 200 and `null` when no pipeline wants the event: nothing was made, and asking again would not help.
	if build.Number == 0 {
		return b.decide(j, failed("no pipeline", "the CI repository has no pipeline for builds of event `custom`"))
	}
	if err := b.audit.write(r, "triggered", "build "+strconv.FormatInt(build.Number, 10)); err != nil {
		return err
	}
	return b.set(j, func(r *journal.Request) { r.State, r.Build = journal.Triggered, build.Number })
}

// create asks for the build. That it was asked for is in the journal before: a bridge that starts after a crash knows
// that it has to look. The call takes as long as Drone takes, 90 seconds at most.
func (b *Bridge) create(j *job) (drone.Build, error) {
	if j.req.Asked.IsZero() {
		if err := b.set(j, func(r *journal.Request) { r.Asked = time.Now() }); err != nil {
			return drone.Build{}, err
		}
	}
	build, err := b.Drone.Create(b.params(&j.req))
	if err == nil {
		// A full disk may keep the number out of the journal for a while: without this, each try would make a build.
		j.unsure, j.lost, j.made = time.Time{}, time.Time{}, build
	}
	return build, err
}

// params are the build's parameters. They become environment variables of every step, so their names are fixed here
// and their values are checked to be harmless words: a parameter named PATH or GIT_SSH_COMMAND would be a way to run
// code before the pipeline does. Drone reads them from the query only and does not check them.
func (b *Bridge) params(r *journal.Request) map[string]string {
	return map[string]string{
		"RECIPE":      r.Recipe,
		"REF":         r.SHA,
		"PR":          strconv.FormatInt(r.PR, 10),
		"SRC":         b.Gitea.CloneURL(repoOf(r)),
		drone.ParamID: r.Key.String(),
	}
}

// find looks for a build whose creation was not confirmed. Drone may still be busy with a request whose connection
// broke, so it looks until Settle has passed, ten times or whenever it is nudged. No build and no error means that
// one may be asked for again, or that ctx has ended.
func (b *Bridge) find(ctx context.Context, j *job) (drone.Build, error) {
	until := time.Now().Add(b.Settle)
	for {
		// By Drone's clock the build may be older than the demand for it: an hour is more than clocks differ.
		builds, err := b.Drone.Find(j.req.Key.String(), j.req.Asked.Add(-time.Hour))
		if err != nil {
			return drone.Build{}, err
		}
		if len(builds) > 0 {
			return builds[0], nil
		}
		if time.Now().After(until) {
			if err := b.set(j, func(r *journal.Request) { r.Again = true }); err != nil {
				return drone.Build{}, err
			}
			j.unsure = time.Time{}
			return drone.Build{}, nil
		}
		if !b.doze(ctx, j, b.Settle/10) {
			return drone.Build{}, nil
		}
	}
}

// endTwins cancels other builds of a request that may have been asked for twice: Drone may have gone on with the
// first demand after the bridge had looked for its build in vain. Of a run that was given up no build is known, so all
// of them are others. What cannot be looked at now is looked at with the next poll; then it returns false.
func (b *Bridge) endTwins(j *job) bool {
	builds, err := b.Drone.Find(j.req.Key.String(), j.req.Asked.Add(-time.Hour))
	for _, build := range builds {
		if build.Number == j.req.Build || build.Done() {
			continue
		}
		if err = b.Drone.Cancel(build.Number); err != nil {
			break
		}
		if err = b.audit.write(&j.req, "cancelled", "twin, build "+strconv.FormatInt(build.Number, 10)); err != nil {
			break
		}
		b.Log.WithField("build", build.Number).Warn("Drone made a build that nobody follows; it was cancelled")
	}
	if err != nil {
		b.Log.WithError(err).Warn("builds that were asked for twice could not be looked at")
	}
	return err == nil
}

// outlast looks for twins of a run that has ended, for as long as Drone may still make one, and reports whether that
// time is over. Nobody waits for it: the result has been told.
func (b *Bridge) outlast(ctx context.Context, j *job) bool {
	// The last demand of a run that was given up may have come just before its end.
	since := j.req.Asked
	if j.req.Build == 0 {
		since = j.req.Outcome.At
	}
	for j.req.Again {
		// A Drone that is still away may have made the build before: it counts as looked at once it has answered, or
		// after the time in which a build that is followed must have ended too.
		looked, passed := b.endTwins(j), time.Since(since)
		if passed >= b.Twins && (looked || passed >= b.Twins+b.Deadline) {
			break
		}
		if !b.doze(ctx, j, b.PollMax) {
			return false
		}
	}
	return true
}

// createFailed ends the request when Drone's answer is its last word; otherwise a build may exist, unless Drone was
// never reached.
func (b *Bridge) createFailed(j *job, err error) error {
	code := safehttp.Status(err)
	if code != http.StatusNotFound || drone.Passing(err) {
		j.lost = time.Time{}
	} else if j.lost.IsZero() {
		j.lost = time.Now()
	}
	switch {
	case safehttp.Unsent(err) || (safehttp.Definite(err) && drone.Passing(err)):
		return err
	case code == http.StatusUnauthorized || code == http.StatusForbidden: // may pass, but who can mend it should be told
		return b.decide(j, failed("token refused", "the CI server refuses the bridge's token; tell an administrator"))
	// Drone passes on the forge's 404, which may be that of a proxy while the forge is started again.
	case code == http.StatusNotFound && time.Since(j.lost) <= maxLost*b.Settle:
		return err
	case code == http.StatusNotFound: // Drone's answer also to whoever may not see the repository
		return b.decide(j, failed("repository unknown",
			"the CI server does not know the CI repository or its branch, or the bridge may not build it; tell an administrator"))
	case safehttp.Definite(err):
		return b.decide(j, failed("build refused", fmt.Sprintf("the CI server refuses the build with status %d", code)))
	case code == http.StatusInternalServerError: // of Drone itself; gateways say 502 to 504 and are waited for
		if j.broken++; j.broken >= maxBroken {
			return b.decide(j, failed("server error",
				"the CI server answers 500; is the pipeline file missing in the CI repository?"))
		}
	}
	j.unsure = time.Now()
	return err
}

// failed is the end of a run that never became a build, or whose build is lost. People were told queued, so it has a
// status.
func failed(rule, text string) journal.Outcome {
	return journal.Outcome{Rule: rule, Status: statusError, Text: text}
}
