package bridge

import (
	"context"
	"fmt"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/safehttp"
)

// maxNotices bounds the memory of notices; forgetting one costs a search for it and an edit. A pull request has one
// at most, so this is how many of them may be talked about before that.
const maxNotices = 4096

// statusTries is how often a final commit status is tried, for a minute and a half: a fork's commit may reach the base
// repository late, or never, and until then Gitea answers 500. The result must not wait for that any longer.
const statusTries = 10

// deliver puts the outcome on the pull request: the reply, the commit status, the reaction. Everything may be
// repeated: the reply is edited to the same text, of statuses the newest counts, and a reaction is there or not. What
// Gitea refuses for good (a locked conversation, a deleted comment) is left out.
func (b *Bridge) deliver(ctx context.Context, j *job) error {
	// In this order: whoever waits for the reaction finds the reply and the status complete.
	r, o := &j.req, j.req.Outcome
	if err := b.onlyReply(r); err != nil && !safehttp.Definite(err) {
		return err
	} else if err != nil {
		b.Log.WithError(err).Warn("a second reply stays")
	}
	if err := b.tell(j); err != nil && !safehttp.Definite(err) {
		return err
	} else if err != nil {
		b.Log.WithError(err).Warn("Gitea refuses the reply")
	}
	if o.Status != statusNone {
		err := b.putStatus(r, gitea.Status{State: statusState(o.Status), Description: describe(o)})
		if err != nil && !safehttp.Definite(err) && j.fails < statusTries {
			return err
		} else if err != nil {
			b.Log.WithError(err).Warn("Gitea refuses the commit status")
		}
	}
	if err := b.react(r, reaction(o)); err != nil {
		return err
	}
	if !b.outlast(ctx, j) {
		return nil // the next Run delivers again, which changes nothing, and goes on looking
	}
	return b.finish(j)
}

// tell writes the outcome's comment, if it has one. An outcome without text, such as that of a comment that is gone, is
// known by its reaction only, if the comment can still have one.
func (b *Bridge) tell(j *job) error {
	r, o := &j.req, j.req.Outcome
	switch {
	case o.Shared:
		return b.notify(r, sentence(o.Text))
	case o.Status != statusNone:
		return b.say(j, resultText(r, o, b.Drone.Link(r.Build)))
	case o.Text != "":
		return b.say(j, sentence(o.Text))
	}
	return nil
}

// say writes the request's one reply: it edits the comment that is known, looks for one that a crash may have
// left, and only then makes one. A reply that a person has deleted is not made again: Gitea answers the edit with 404.
func (b *Bridge) say(j *job, text string) error {
	repo, mark := repoOf(&j.req), marker(j.req.Key.String())
	text += "\n\n" + mark
	if j.req.ReplyID != 0 {
		return b.Gitea.Edit(repo, j.req.ReplyID, text)
	}
	// A comment that was made just before a crash is on the pull request, but its id not in the journal.
	doubted := !j.looked
	if doubted {
		found, err := b.Gitea.Find(repo, j.req.PR, *b.self.Load(), mark)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			if err := b.replied(j, found[0], true); err != nil {
				return err
			}
			return b.Gitea.Edit(repo, found[0], text)
		}
		j.looked = true
	}
	id, err := b.Gitea.Say(repo, j.req.PR, text)
	if err != nil {
		j.looked = safehttp.Definite(err) // without an answer the comment may exist
		return err
	}
	if err := b.replied(j, id, doubted); err != nil {
		j.looked = false
		return err
	}
	return nil
}

// replied keeps which comment is the reply. doubted says that it was looked for: then an earlier one may still appear.
func (b *Bridge) replied(j *job, id int64, doubted bool) error {
	return b.set(j, func(r *journal.Request) { r.ReplyID, r.ReplyDoubted = id, r.ReplyDoubted || doubted })
}

// onlyReply removes a second reply. Gitea may still make the one that was asked for before a crash when it is looked
// for after the restart; by the end of the run it is there.
func (b *Bridge) onlyReply(r *journal.Request) error {
	if !r.ReplyDoubted || r.ReplyID == 0 {
		return nil
	}
	found, err := b.Gitea.Find(repoOf(r), r.PR, *b.self.Load(), marker(r.Key.String()))
	if err != nil {
		return err
	}
	for _, id := range found {
		if id == r.ReplyID {
			continue
		}
		if err := b.Gitea.Delete(repoOf(r), id); err != nil {
			return err
		}
		b.Log.WithField("comment", id).Info("a second reply is removed")
	}
	return nil
}

// notify writes the pull request's one notice, unless it says so already. Whose command it is about is not said: it
// stands for all of them, and each has a reaction of its own.
func (b *Bridge) notify(r *journal.Request, text string) error {
	defer b.lane(r)() // two at once would both find no notice and make two
	key := lane{r.Repo, r.PR}
	// A flood of the same refusals costs Gitea nothing after the first.
	b.mu.Lock()
	same := b.notices[key] == text
	b.mu.Unlock()
	if same {
		return nil
	}
	repo, mark := repoOf(r), marker(fmt.Sprintf("notice:%d-%d", r.Repo, r.PR))
	found, err := b.Gitea.Find(repo, r.PR, *b.self.Load(), mark)
	if err != nil {
		return err
	}
	body := text + "\n\n" + mark
	if len(found) > 0 {
		err = b.Gitea.Edit(repo, found[0], body)
	} else {
		_, err = b.Gitea.Say(repo, r.PR, body)
	}
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.notices) >= maxNotices {
		clear(b.notices)
	}
	b.notices[key] = text
	return nil
}

// status sets a passing commit status. It is a courtesy, so its failure is logged and never repeated: the final one is.
func (b *Bridge) status(r *journal.Request, s gitea.Status) {
	if err := b.putStatus(r, s); err != nil {
		b.Log.WithError(err).Warn("commit status")
	}
}

// putStatus sets a commit status, which links to the build once there is one.
func (b *Bridge) putStatus(r *journal.Request, s gitea.Status) error {
	s.Context = "cc-ci/" + r.Recipe // Gitea keeps the newest for each context: a later run replaces an earlier one's
	if r.Build != 0 {
		s.URL = b.Drone.Link(r.Build)
	}
	return b.Gitea.SetStatus(repoOf(r), r.SHA, s)
}

// statusState is Gitea's word for how a run ended. Gitea takes any word at all (1.26 stores "bogus"), so a mistake
// here would be refused by nobody.
func statusState(status string) string {
	switch status {
	case statusSuccess:
		return "success"
	case statusFailure:
		return "failure"
	}
	return "error" // killed too: Gitea has no word for it, and nothing was shown to be right
}

// reaction is the one that ends a request's story. Gitea takes only those of [ui] REACTIONS, by default eight, among
// them these four and eyes; any other is refused with 403.
func reaction(o *journal.Outcome) string {
	switch {
	case o.Status == statusSuccess:
		return "rocket"
	case o.Status != statusNone:
		return "-1"
	case answers(o):
		return "+1"
	}
	return "confused"
}
