package bridge

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// stamp is how exact Gitea's times are: a push within it of a comment may be before or after.
const stamp = time.Second

// pin settles which recipe and which commit an authorised run is about.
func (b *Bridge) pin(j *job, cmd Command, pull gitea.Pull) error {
	r := &j.req
	recipes := b.recipes(r.Owner, r.Name)
	if cmd.Verb == Retest {
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
		help := helpText + "\n\nThis repository's recipes: " + code(strings.Join(recipes, " "), 500)
		return b.decide(j, notice("unknown arguments", "that command is not understood.\n\n"+help))
	}
	sha, problem, err := b.commit(r, t, pull)
	if err != nil {
		return err
	}
	if problem != nil {
		return b.decide(j, *problem)
	}
	newer := ""
	if t.Prefix == "" && pull.Head != sha {
		if b.Policy == PolicyRefuse {
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
		r.State, r.Recipe, r.SHA, r.Newer = journal.Authorised, t.Recipe, sha, newer
	})
}

// commit returns the commit that is meant, or the answer that says why it cannot be known.
func (b *Bridge) commit(r *journal.Request, t Target, pull gitea.Pull) (string, *journal.Outcome, error) {
	if t.Prefix != "" {
		return b.named(r, t.Prefix, pull)
	}
	problem, err := b.unseen(r)
	if err != nil || problem != nil {
		return "", problem, err
	}
	sha := r.SHA
	if sha == "" {
		sha = pull.Head // no push since the comment: unseen has made sure
	}
	if !shaPattern.MatchString(sha) {
		o := refusal("head is unknown", "the head commit of this pull request is not known; use `!testme <commit>`")
		return "", &o, nil
	}
	return sha, nil, nil
}

// named finds the one commit of the pull request that starts with the given digits.
func (b *Bridge) named(r *journal.Request, prefix string, pull gitea.Pull) (string, *journal.Outcome, error) {
	commits, err := b.Gitea.Commits(repoOf(r), r.PR)
	if err != nil {
		return "", nil, err
	}
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
// comment, or any push since a comment whose hook was lost, asks for the commit by name.
func (b *Bridge) unseen(r *journal.Request) (*journal.Outcome, error) {
	pushes, err := b.Gitea.Pushes(repoOf(r), r.PR, r.Created.Add(-b.Quiet-stamp))
	if err != nil {
		return nil, err
	}
	for _, p := range pushes {
		if r.SHA == "" && !p.At.Before(r.Created.Add(-stamp)) {
			o := refusal("head is uncertain", "commits came after this comment was written and before it was read; use `!testme <commit>`")
			return &o, nil
		}
		if p.By.ID == r.Author || p.At.Before(r.Created.Add(-b.Quiet)) || p.At.After(r.Created.Add(stamp)) || b.Quiet == 0 {
			continue
		}
		trusted, _, err := b.Gitea.MayWrite(repoOf(r), p.By, false)
		if err != nil {
			return nil, err
		}
		if !trusted {
			o := refusal("push just before", "commits came moments before this comment; look at them and use `!testme <commit>`")
			return &o, nil
		}
	}
	return nil, nil
}

// lastFailed returns the recipe of the pull request's latest finished run if that failed; with an argument, of the
// latest run of that recipe.
func (b *Bridge) lastFailed(r *journal.Request, cmd Command) (string, error) {
	requests, err := b.Journal.Pull(r.Repo, r.PR)
	if err != nil {
		return "", err
	}
	passed := map[string]bool{}
	for _, old := range slices.Backward(requests) {
		if old.State != journal.Reported || old.Comment >= r.Comment || passed[old.Recipe] {
			continue
		}
		if len(cmd.Args) > 0 && (len(cmd.Args) > 1 || old.Recipe != cmd.Args[0]) {
			continue
		}
		if old.Outcome.Status != statusSuccess {
			return old.Recipe, nil
		}
		passed[old.Recipe] = true
	}
	return "", nil
}
