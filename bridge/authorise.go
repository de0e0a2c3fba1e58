package bridge

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/safehttp"
)

// The rules of commands that were done without a run. A rule is a short name of what decided: it is written to the
// audit log, counted by the metrics, and these are compared with too, also in a journal of an earlier start.
const (
	ruleCancel    = "cancel"     // of every run
	ruleCancelOwn = "cancel own" // of the author's runs
	ruleHelp      = "help"
)

// refusal is an answer without a run, in a reply of its own. Without a text there is none: a reaction is enough where
// the author has to see that something was read, and nobody is helped by the reason.
func refusal(rule, text string) journal.Outcome {
	return journal.Outcome{Rule: rule, Status: statusNone, Text: text}
}

// notice is a refusal whose answer goes into the pull request's one notice, so that many of them are one comment.
func notice(rule, text string) journal.Outcome {
	return journal.Outcome{Rule: rule, Status: statusNone, Text: text, Shared: true}
}

// authorise judges a received command: may its author, does the comment still stand, is the pull request open, and
// which commit is meant. Whatever cannot be known is no. It asks now, moments before the build, because a right can
// be taken away between the hook and the build; an error of Gitea's repeats the whole of it.
func (b *Bridge) authorise(j *job) error {
	r := &j.req
	// The queue was full at the hook, where no answer could be waited for; here it costs one edit of the notice.
	if r.Crowded {
		return b.decide(j, notice("queue is full", "too many requests are waiting; comment again later"))
	}
	// A step that is repeated, or goes on after a restart, was charged when it came.
	if j.fresh && !b.users.take(r.Author, time.Now()) {
		return b.decide(j, notice("user limit", "too many commands at once; comment again in a few minutes"))
	}
	j.fresh = false
	// The first call of all: the author is to see within a second that somebody has read the comment.
	if err := b.react(r, "eyes"); err != nil {
		return err
	}
	if rule, err := b.standing(r); err != nil || rule != "" {
		return b.orRefuse(j, err, refusal(rule, ""))
	}
	may, rule, err := b.may(r)
	if err != nil {
		return err
	}
	cmd, _ := Parse(r.Text) // it was a command when it was journalled
	if !may && cmd.Verb != Cancel {
		return b.decide(j, b.mayNot(rule))
	}
	if r.CatchUp && time.Since(r.Created) > b.MaxAge {
		return b.decide(j, refusal("comment is too old", "this command was found too late to be run; comment again"))
	}
	pull, err := b.Gitea.Pull(repoOf(r), r.PR)
	switch {
	case safehttp.Status(err) == http.StatusNotFound:
		return b.decide(j, refusal("pull request is gone", ""))
	case err != nil:
		return err
	case pull.Base != r.Repo: // a repository that took the name of a listed one has another id
		return b.decide(j, refusal("pull request is for another repository", ""))
	case !pull.Open:
		return b.decide(j, refusal("pull request is closed", ""))
	}
	switch cmd.Verb {
	case Help:
		return b.decide(j, refusal(ruleHelp, helpText))
	case Cancel:
		if len(cmd.Args) > 0 { // who names a recipe or a commit does not mean all of them
			return b.misunderstood(j)
		}
		return b.cancel(j, may)
	}
	return b.pin(j, cmd, pull)
}

// mayNot is the answer to authors without the right, or whose right Gitea does not tell the bot. The second is the
// set-up's fault and not the author's, so it is said differently.
func (b *Bridge) mayNot(rule string) journal.Outcome {
	if rule == gitea.NotConfirmed {
		return notice(rule, "your right to start tests could not be confirmed; comment again, or ask somebody who may write to this repository")
	}
	return notice(rule, "only "+b.people()+" can start its tests")
}

// people are those who may, in words for those who may not. It names no account: the list is nobody's business.
func (b *Bridge) people() string {
	switch b.Access {
	case AccessCollaborator:
		return "collaborators of this repository"
	case AccessList:
		return "people on the bridge's list for this repository"
	}
	return "people who may write to this repository"
}

// orRefuse returns err if there is one and decides otherwise.
func (b *Bridge) orRefuse(j *job, err error, o journal.Outcome) error {
	if err != nil {
		return err
	}
	return b.decide(j, o)
}

// react adds a reaction; one that Gitea does not want is no reason to stop: the comment may be gone, its author may
// have blocked the bot, the conversation may be locked. Only what may pass is an error.
func (b *Bridge) react(r *journal.Request, reaction string) error {
	err := b.Gitea.React(repoOf(r), r.Comment, reaction)
	if safehttp.Definite(err) {
		b.Log.WithError(err).Warn("reaction refused")
		return nil
	}
	return err
}

// standing reads the comment again and names the rule by which it no longer counts: it may have been deleted, edited,
// or the journalled text may be a replay of what it was once. Whoever may write to a repository can edit others'
// comments at Gitea, and the comment keeps its author: an edited one is nobody's word.
func (b *Bridge) standing(r *journal.Request) (string, error) {
	n, err := b.Gitea.Note(repoOf(r), r.Comment)
	switch {
	case safehttp.Status(err) == http.StatusNotFound:
		return "comment is gone", nil
	case safehttp.Status(err) == http.StatusInternalServerError && b.gone(r.Login):
		return "author is gone", nil // Gitea answers so for ever
	case err != nil:
		return "", err
	case n.Author.ID != r.Author || n.Imported:
		return "author is another", nil
	case n.PR != r.PR:
		return "comment is elsewhere", nil
	case n.Author.ID == b.self.Load().ID:
		return "author is the bot", nil
	case text(n.Body) != r.Text || !n.Updated.Equal(n.Created):
		return "comment was edited", nil
	}
	return "", nil
}

// gone reports whether Gitea says that there is no such account. No answer is not that: then the step is repeated.
func (b *Bridge) gone(login string) bool {
	_, err := b.Gitea.Account(login)
	return safehttp.Status(err) == http.StatusNotFound
}

// may asks Gitea now whether the author may start runs, by the configured rule, and names what decided it. An error
// means that it is not known; it is never a yes.
func (b *Bridge) may(r *journal.Request) (bool, string, error) {
	repo, author := repoOf(r), authorOf(r)
	switch b.Access {
	case AccessWrite:
		// Both must say yes: the signed right is what held when the comment was written, the call is what holds now.
		if !r.CatchUp && !r.Push {
			return false, "no signed push right", nil
		}
		return b.Gitea.MayWrite(repo, author, r.Push)
	case AccessCollaborator:
		ok, err := b.Gitea.IsCollaborator(repo, author)
		return ok, "collaborator check", err
	case AccessList:
		return b.listed(author)
	}
	return false, "access rule is unknown", nil
}

// listed looks the author up in the lists. A listed name counts only while it belongs to the same account.
func (b *Bridge) listed(u gitea.User) (bool, string, error) {
	if slices.ContainsFunc(b.Users, func(name string) bool { return strings.EqualFold(name, u.Login) }) {
		account, err := b.Gitea.Account(u.Login)
		if err != nil && safehttp.Status(err) != http.StatusNotFound {
			return false, "", err
		}
		if err == nil && account.ID == u.ID {
			return true, "listed user", nil
		}
	}
	for _, team := range b.Teams {
		in, err := b.Gitea.InTeam(team, u)
		if err != nil {
			return false, "", err
		}
		if in {
			return true, "listed team", nil
		}
	}
	return false, "not on the list", nil
}

// cancel stops the pull request's runs that were asked for before. Who may not start runs may stop their own. It does
// not wait for the ends: each run's own job cancels its build and says so in its own reply.
func (b *Bridge) cancel(j *job, may bool) error {
	defer b.lane(&j.req)()
	requests, err := b.Journal.Pull(j.req.Repo, j.req.PR)
	if err != nil {
		return err
	}
	var meant []journal.Key
	for _, r := range requests {
		// Runs that were asked for after this comment were not meant, though their hook may have been faster.
		if r.State.Final() || r.Outcome != nil || r.Comment >= j.req.Comment || (!may && r.Author != j.req.Author) {
			continue
		}
		if cmd, ok := Parse(r.Text); !ok || (cmd.Verb != Run && cmd.Verb != Retest) {
			continue
		}
		meant = append(meant, r.Key)
	}
	// Before the stops: a crash after them would leave nothing to be found, and the author be told that nothing ran.
	if len(meant) > j.req.Cancels {
		if err := b.set(j, func(r *journal.Request) { r.Cancels = len(meant) }); err != nil {
			return err
		}
	}
	for _, key := range meant {
		if err := b.end(key, journal.Stop{Rule: "cancelled", Text: "cancelled by " + code(j.req.Login, 64)}); err != nil {
			return err
		}
	}
	rule := ruleCancel
	if !may {
		rule = ruleCancelOwn
	}
	switch {
	case j.req.Cancels > 0:
		return b.decide(j, refusal(rule, fmt.Sprintf("cancelling %d run(s)", j.req.Cancels)))
	case may:
		return b.decide(j, refusal(rule, "no run of this pull request is waiting or running"))
	}
	return b.decide(j, notice("no right to cancel", "only "+b.people()+" can cancel its tests"))
}
