package compiler

import (
	"strconv"
	"strings"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

// cloneArgs is what a clone depends on. The words come from the server, and by it from whoever named a branch or a tag: git
// allows `x;id` for one.
type cloneArgs struct {
	Remote  string
	Ref     string
	Branch  string
	Commit  string
	Depth   int
	Retries int
	Tags    bool
}

// cloneCommands are the calls of git that check a build's commit out, and what to say about them. No shell sees any
// of the names in them, and all of them are checked. They are made after runner-go's clone script, so that a
// repository looks to a step as it always did; depth, retries and tags are keys which that runner read and did not use.
func cloneCommands(a cloneArgs) (commands []engine.Command, notes []string, err error) {
	if a.Branch == "" {
		a.Branch = strings.TrimPrefix(a.Ref, "refs/heads/")
	}
	if err := checkRemote(a.Remote); err != nil {
		return nil, nil, err
	}
	if err := checkCommit(a.Commit); err != nil {
		return nil, nil, err
	}
	commands = []engine.Command{
		// Any name for the branch that is still empty will do; without one git explains itself over ten lines.
		git("-c", "init.defaultBranch=main", "init"),
		git("remote", "add", "origin", a.Remote),
	}
	var rest []engine.Command
	switch {
	case strings.HasPrefix(a.Ref, "refs/tags/"):
		rest, err = a.tag()
	case isPullRequest(a.Ref):
		rest, err = a.pullRequest()
		if a.Depth > 0 {
			notes = append(notes, "clone.depth is not used for pull requests: merging needs the history that both sides share")
		}
	default:
		rest, err = a.branch()
	}
	if err != nil {
		return nil, nil, err
	}
	return append(commands, rest...), notes, nil
}

// isPullRequest knows the names of GitHub and Gitea, of Bitbucket, and of GitLab.
func isPullRequest(ref string) bool {
	for _, prefix := range []string{"refs/pull/", "refs/pull-requests/", "refs/merge-requests/"} {
		if strings.HasPrefix(ref, prefix) {
			return true
		}
	}
	return false
}

// tag fetches the tag alone, and checks out what came; the branch it was made on does not matter.
func (a cloneArgs) tag() ([]engine.Command, error) {
	if err := checkRef("tag", a.Ref); err != nil {
		return nil, err
	}
	return []engine.Command{
		a.fetch(a.Depth, "+"+a.Ref+":"),
		git("checkout", "-qf", "FETCH_HEAD"),
	}, nil
}

// branch fetches the branch and checks the commit out. A shallow fetch asks for the commit itself: the branch may
// have moved on by more commits than the depth, and then it would not be there.
func (a cloneArgs) branch() ([]engine.Command, error) {
	if err := checkRef("branch", a.Branch); err != nil {
		return nil, err
	}
	source, commit := "+refs/heads/"+a.Branch+":", a.Commit
	// Only a full name can be fetched (git-fetch(1), <refspec>).
	if a.Depth > 0 && len(commit) >= 40 {
		source = "+" + commit + ":refs/remotes/origin/" + a.Branch
	}
	if commit == "" {
		commit = "FETCH_HEAD"
	}
	return []engine.Command{
		a.fetch(a.Depth, source),
		git("checkout", commit, "-b", a.Branch),
	}, nil
}

// pullRequest merges the commit into the target. The branch is named in full, for a tag may have the same name.
func (a cloneArgs) pullRequest() ([]engine.Command, error) {
	if err := checkRef("branch", a.Branch); err != nil {
		return nil, err
	}
	if err := checkRef("pull request", a.Ref); err != nil {
		return nil, err
	}
	// The build's commit and not FETCH_HEAD, to which somebody may have pushed after the build was made.
	commit := a.Commit
	if commit == "" {
		commit = "FETCH_HEAD"
	}
	return []engine.Command{
		a.fetch(0, "+refs/heads/"+a.Branch+":"),
		git("checkout", "-b", a.Branch, "refs/remotes/origin/"+a.Branch),
		a.fetch(0, a.Ref+":"),
		git("merge", commit),
	}, nil
}

// fetch is the only call that talks to the server, and so the only one worth trying again.
func (a cloneArgs) fetch(depth int, refspec string) engine.Command {
	args := []string{"fetch"}
	if depth > 0 {
		args = append(args, "--depth="+strconv.Itoa(depth))
	}
	if a.Tags {
		args = append(args, "--tags")
	}
	command := git(append(args, "origin", refspec)...)
	command.Retries = a.Retries
	return command
}

// git is a call of git, printed as it is called.
func git(args ...string) engine.Command {
	return engine.Command{Args: append([]string{"git"}, args...), Trace: "git " + strings.Join(args, " ")}
}
