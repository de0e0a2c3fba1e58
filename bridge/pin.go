package bridge

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// pin settles which recipe and which commit an authorised run is about. From here on neither changes: what is pushed
// later can end the run but never become it.
func (b *Bridge) pin(j *job, cmd Command, pull gitea.Pull) error {
	r := &j.req
	recipes := b.recipes(r.Owner, r.Name)
	if cmd.Verb == Retest {
		if len(cmd.Args) > 1 || (len(cmd.Args) == 1 && !slices.Contains(recipes, cmd.Args[0])) {
			return b.misunderstood(j)
		}
		recipe, err := b.lastFailed(r, cmd)
		if err != nil {
			return err
		}
		if recipe == "" {
			return b.decide(j, refusal("nothing to retest", "no run of this pull request has failed last; use `!testme`"))
		}
		cmd.Args = []string{recipe}
	}
	t, ok := cmd.target(r.Name, recipes)
	if !ok {
		return b.misunderstood(j)
	}
	sha, problem, err := b.commit(r, t, pull)
	if err != nil {
		return err
	}
	if problem != nil {
		return b.decide(j, *problem)
	}
	// Who names a commit means that one, wherever the branch has gone. The head is kept all the same: only by it can a
	// later push be told from this one.
	newer, isNamed := "", t.Prefix != ""
	if pull.Head != sha {
		if !isNamed && b.Policy == PolicyRefuse {
			return b.decide(j, refusal("head has moved", fmt.Sprintf(
				"the branch moved to %s after the comment, so nothing was run; look at it and use `!testme <commit>`",
				code(short(pull.Head), 40))))
		}
		newer = pull.Head
	}
	if err := b.audit.write(r, "authorised", "pinned"); err != nil {
		return err
	}
	return b.set(j, func(r *journal.Request) {
		r.State, r.Recipe, r.SHA, r.Newer, r.Named = journal.Authorised, t.Recipe, sha, newer, isNamed
	})
}

// misunderstood answers a command whose arguments mean nothing here.
func (b *Bridge) misunderstood(j *job) error {
	recipes := b.recipes(j.req.Owner, j.req.Name)
	help := helpText + "\n\nThis repository's recipes: " + code(strings.Join(recipes, " "), 500)
	return b.decide(j, notice("unknown arguments", "that command is not understood.\n\n"+help))
}

// commit returns the commit that is meant, or the answer that says why it cannot be known. Gitea serves each commit
// of a pull request by its hash from the base repository, also after a forced push, so a pinned commit can still be
// fetched.
func (b *Bridge) commit(r *journal.Request, t Target, pull gitea.Pull) (string, *journal.Outcome, error) {
	if t.Prefix != "" {
		return b.named(r, t.Prefix, pull)
	}
	sha := r.SHA
	if sha == "" {
		sha = pull.Head // if no push came since the comment: unseen makes sure
	}
	if !shaPattern.MatchString(sha) {
		o := refusal("head is unknown", "the head commit of this pull request is not known; use `!testme <commit>`")
		return "", &o, nil
	}
	problem, err := b.unseen(r, sha)
	if err != nil || problem != nil {
		return "", problem, err
	}
	return sha, nil, nil
}

// named finds the one commit of the pull request that starts with the given digits. Any other commit of the
// repository is unknown here, though the builds could fetch it: it has nothing to do with the pull request that is
// being tested.
func (b *Bridge) named(r *journal.Request, prefix string, pull gitea.Pull) (string, *journal.Outcome, error) {
	commits, err := b.Gitea.Commits(repoOf(r), r.PR)
	if err != nil {
		return "", nil, err
	}
	// A forced push takes the signed head out of the list, and the list may lag behind the head.
	commits = append(commits, r.SHA, pull.Head)
	slices.Sort(commits)
	commits = slices.DeleteFunc(slices.Compact(commits), func(sha string) bool {
		return !shaPattern.MatchString(sha) || !strings.HasPrefix(sha, prefix)
	})
	if len(commits) != 1 {
		o := refusal("commit is unknown", fmt.Sprintf("%d commits of this pull request start with %s", len(commits), code(prefix, 64)))
		return "", &o, nil
	}
	return commits[0], nil, nil
}

// unseen looks for pushes that the author may not have seen when commenting. A stranger's push right before the
// comment, or any push since a comment whose hook was lost, asks for the commit by name. So does a commit of which
// Gitea has no record: whoever pushes can make a record disappear by another push. The records tell by their ids what
// came first: in the second in which commit and comment both came, their times do not.
func (b *Bridge) unseen(r *journal.Request, sha string) (*journal.Outcome, error) {
	signed := r.SHA != "" // then Gitea itself has said what the head was at the instant of the comment
	if signed && b.Quiet == 0 {
		return nil, nil
	}
	pushes, err := b.Gitea.Pushes(repoOf(r), r.PR)
	if err != nil {
		return nil, err
	}
	arrival := -1 // the push that brought the commit
	for i, p := range pushes {
		if slices.Contains(p.Commits, sha) {
			arrival = i
		}
	}
	switch {
	case arrival < 0 && time.Since(r.Received) < b.Record: // Gitea's queue may be behind; the step is repeated
		return nil, fmt.Errorf("gitea has no record of the push of %s yet", short(sha))
	case arrival < 0:
		o := refusal("head is uncertain", fmt.Sprintf(
			"it is not known when %s came to this pull request; look at it and use `!testme <commit>`", code(short(sha), 40)))
		return &o, nil
	case !signed && pushes[len(pushes)-1].ID > r.Comment:
		o := refusal("head is uncertain", "commits came after this comment was written and before it was read; use `!testme <commit>`")
		return &o, nil
	}
	return b.strangers(r, pushes[:arrival+1])
}

// strangers looks among the pushes that the commit rests on for one that came just before the comment, from
// somebody who may not write. All of them and not only the last: a harmless push on top would hide the one beneath.
func (b *Bridge) strangers(r *journal.Request, pushes []gitea.Pushed) (*journal.Outcome, error) {
	for _, p := range pushes {
		if b.Quiet == 0 || p.By.ID == r.Author || p.At.Before(r.Created.Add(-b.Quiet)) {
			continue
		}
		trusted := false
		if p.By.ID > 0 { // Gitea gives deleted accounts a negative id, and none a 0
			var err error
			if trusted, _, err = b.Gitea.MayWrite(repoOf(r), p.By, false); err != nil {
				return nil, err
			}
		}
		if !trusted {
			o := refusal("push just before", "commits came moments before this comment; look at them and use `!testme <commit>`")
			return &o, nil
		}
	}
	return nil, nil
}

// lastFailed returns the recipe of the pull request's latest finished run if that failed; with an argument, of the
// latest run of that recipe. A run that was cancelled or never got a build counts as failed: nothing was shown to be
// right.
func (b *Bridge) lastFailed(r *journal.Request, cmd Command) (string, error) {
	requests, err := b.Journal.Pull(r.Repo, r.PR)
	if err != nil {
		return "", err
	}
	passed := map[string]bool{}
	// From the newest: of each recipe only its last run counts, so one that has passed since is not run again.
	for _, old := range slices.Backward(requests) {
		if old.Outcome == nil || old.Outcome.Status == statusNone || old.Comment >= r.Comment || passed[old.Recipe] {
			continue
		}
		if len(cmd.Args) > 0 && old.Recipe != cmd.Args[0] {
			continue
		}
		if old.Outcome.Status != statusSuccess {
			return old.Recipe, nil
		}
		passed[old.Recipe] = true
	}
	return "", nil
}
