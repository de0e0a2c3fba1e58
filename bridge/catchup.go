package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// overlap is read twice, for clocks that differ and comments that are stored out of order. Grace must be shorter: a
// comment that was too young in one pass has to be read again in a later one.
const overlap = 5 * time.Minute

// lastPass is the journal's mark of the last time when every repository was read, or of the first start.
const lastPass = "*"

// firstStart remembers when a new journal began: comments from then on count, even if the bridge crashes before it
// has read any.
func (b *Bridge) firstStart() error {
	mark, err := b.Journal.Mark(lastPass)
	if err != nil || !mark.IsZero() {
		return err
	}
	return b.Journal.SetMark(lastPass, time.Now())
}

// catchUp reads what Gitea's hooks did not tell: it sends each of them once and never again, and marks it as
// delivered before it tries. One repository's trouble does not keep the others from being read. Errors are logged:
// the next pass is the repetition.
func (b *Bridge) catchUp(ctx context.Context) {
	began := time.Now() // comments that are written during the pass belong to the next
	repos, whole := b.watched()
	for _, repo := range repos {
		if ctx.Err() != nil {
			return
		}
		if err := b.catchUpRepo(repo); err != nil {
			b.Log.WithError(err).WithField("repo", repo.FullName()).Warn("missed comments could not be read")
			whole = false
		}
	}
	if whole {
		if err := b.Journal.SetMark(lastPass, began); err != nil {
			b.Log.WithError(err).Error("journal")
		}
	}
	if err := b.lookAtPulls(ctx); err != nil {
		b.Log.WithError(err).Warn("open pull requests could not be checked")
	}
}

// watched lists the repositories of the allow-list, and whether that is all of them. Owners are asked each time, so a
// new repository is read without a restart.
func (b *Bridge) watched() (all []gitea.Repo, whole bool) {
	whole = true
	for _, entry := range b.Repos {
		owner, name, full := strings.Cut(entry, "/")
		if full {
			repo, err := b.Gitea.Repo(owner, name)
			if err != nil {
				b.Log.WithError(err).Warn("missed comments could not be read")
				whole = false
				continue
			}
			all = append(all, repo)
			continue
		}
		repos, err := b.Gitea.Repos(owner)
		if err != nil {
			b.Log.WithError(err).Warn("missed comments could not be read")
			whole = false
			continue
		}
		all = append(all, repos...)
	}
	return all, whole
}

// catchUpRepo accepts the commands of one repository that no hook brought. A repository that is met for the first
// time begins with the last pass over the others: older comments were for whoever was here before. Comments are read by
// the time of their last change, so an edited one comes back; the journal knows it.
func (b *Bridge) catchUpRepo(repo gitea.Repo) error {
	mark, err := b.Journal.Mark(repo.FullName())
	if err != nil {
		return err
	}
	if mark.IsZero() {
		if mark, err = b.Journal.Mark(lastPass); err != nil {
			return err
		}
		mark = mark.Add(overlap)
		if err := b.Journal.SetMark(repo.FullName(), mark); err != nil {
			return err
		}
	}
	notes, until, err := b.Gitea.NotesSince(repo, mark.Add(-overlap))
	if err != nil {
		return err
	}
	// The mark moves to the newest comment that was judged, by Gitea's clock: this host's may be wrong.
	next := mark
	for _, n := range notes {
		if time.Since(n.Created) < b.Grace {
			continue // its hook may be on the way; the overlap brings it back
		}
		// The pass ends at an error, and the mark stays before this comment: the next pass begins with it.
		if err := b.missed(repo, n); err != nil {
			return err
		}
		if n.Updated.After(next) {
			next = n.Updated
		}
	}
	// More than one pass can read, as after a long time away: the mark goes as far as nothing was left out, though
	// comments with later changes were judged, and the next pass goes on from there.
	if !until.IsZero() {
		next = until
		if !next.After(mark) {
			return fmt.Errorf("more comments of %s were changed since %s than one pass can read", repo.FullName(), mark.Format(time.RFC3339))
		}
	}
	if next.Equal(mark) {
		return nil
	}
	return b.Journal.SetMark(repo.FullName(), next)
}

// missed accepts a comment that no hook brought, if it is a command. Nothing of it is signed: neither its author's
// right at the time nor the head commit, so both are asked for later and count for less.
func (b *Bridge) missed(repo gitea.Repo, n gitea.Note) error {
	// What the author may, and whether the text was edited, is judged when the request is at work, like any other's.
	if _, ok := Parse(n.Body); !ok || n.Imported || n.Author.ID <= 0 || n.Author.ID == b.self.Load().ID {
		return nil
	}
	r := request(repo, n)
	r.CatchUp, r.Crowded = true, b.crowded()
	// Most comments of the overlap are known; asking first keeps them from being a write each.
	seen, err := b.Journal.Seen(r.Key)
	if err != nil || seen {
		return err
	}
	fresh, err := b.accept(r)
	if fresh {
		b.Log.WithField("comment", n.ID).Info("a command was found whose hook was lost")
	}
	return err
}

// lookAtPulls ends runs whose pull request was closed or pushed to without a hook, or before they had a build. It
// asks once for each pull request with a run, however many it has.
func (b *Bridge) lookAtPulls(ctx context.Context) error {
	live, err := b.Journal.Live()
	if err != nil {
		return err
	}
	looked := map[lane]bool{}
	var faults []error // of one pull request, which may last: the others are looked at all the same
	for _, r := range live {
		key := lane{r.Repo, r.PR}
		if r.State != journal.Triggered || looked[key] || ctx.Err() != nil {
			continue
		}
		looked[key] = true
		pull, err := b.Gitea.Pull(repoOf(&r), r.PR)
		if err == nil {
			err = b.pullChanged(r.Repo, r.PR, pull)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
