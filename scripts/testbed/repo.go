package testbed

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"code.gitea.io/sdk/gitea"
)

// Repo is a repository of the Gitea server, as it was when it was made. Drone knows it by the same owner and name.
type Repo struct {
	ID          int64
	Owner, Name string
	CloneURL    string
	Private     bool
}

// Slug is owner/name.
func (r Repo) Slug() string { return r.Owner + "/" + r.Name }

// RepoSpec describes a repository to be made.
type RepoSpec struct {
	Owner   string // an organisation; the user when empty
	Name    string
	Private bool
	Files   map[string]string // path to content, the first commit on main; without any the repository is empty
}

// Commit describes a commit to be pushed.
type Commit struct {
	Branch  string // main when empty
	Message string
	Files   map[string]string // path to content; what is not named stays
}

// NewRepo makes a repository, with one commit on the branch main if there are files. That commit is built by nobody:
// Drone is activated later.
func (u *User) NewRepo(ctx context.Context, spec RepoSpec) (Repo, error) {
	client, err := u.Client(ctx)
	if err != nil {
		return Repo{}, err
	}
	option := gitea.CreateRepoOption{Name: spec.Name, Private: spec.Private, DefaultBranch: "main"}
	var made *gitea.Repository
	// An organisation's repository wants another call of the API.
	if spec.Owner == "" {
		made, _, err = client.CreateRepo(option)
	} else {
		made, _, err = client.CreateOrgRepo(spec.Owner, option)
	}
	if err != nil {
		return Repo{}, fmt.Errorf("create repository %s: %w", spec.Name, err)
	}
	repo := repoOf(made)
	if len(spec.Files) == 0 {
		return repo, nil
	}
	if _, err := u.Push(ctx, repo, Commit{Message: "first commit", Files: spec.Files}); err != nil {
		return Repo{}, err
	}
	// Gitea looks for webhooks some time after the push. A hook registered before that would be told of this commit.
	return repo, until(ctx, 100*time.Millisecond, "gitea to take note of the push", func() (bool, error) {
		feed, _, err := client.ListRepoActivityFeeds(repo.Owner, repo.Name, gitea.ListRepoActivityFeedsOptions{})
		pushed := func(activity *gitea.Activity) bool { return activity.OpType == "commit_repo" }
		return slices.ContainsFunc(feed, pushed), err
	})
}

// repoOf keeps what this package needs of Gitea's long answer.
func repoOf(made *gitea.Repository) Repo {
	return Repo{ID: made.ID, Owner: made.Owner.UserName, Name: made.Name, CloneURL: made.CloneURL, Private: made.Private}
}

// Push commits files on a branch with git and returns the commit's id. A branch that does not exist starts from the
// default branch. It is git over HTTP, as people push: it runs Gitea's hooks and makes its webhooks. It returns when
// the server has the commit; webhooks follow, some time after.
func (u *User) Push(ctx context.Context, repo Repo, commit Commit) (string, error) {
	if commit.Branch == "" {
		commit.Branch = "main"
	}
	// Below the bed's directory, with which it goes if this process is killed.
	dir, err := os.MkdirTemp(u.gitea.dir, "push-")
	if err != nil {
		return "", err
	}
	git := gitCommand{dir: dir, user: u}
	sha, err := git.push(ctx, repo.CloneURL, commit)
	if err != nil {
		err = fmt.Errorf("push to %s of %s: %w", commit.Branch, repo.Slug(), err)
	}
	return sha, errors.Join(err, os.RemoveAll(dir))
}

// gitCommand runs git in one directory on behalf of one user. Neither the system's nor the caller's configuration of
// git has a say.
type gitCommand struct {
	dir  string
	user *User
}

// push works on a history of one commit: what is to be pushed is all that the server lacks.
func (g gitCommand) push(ctx context.Context, url string, commit Commit) (string, error) {
	if _, err := g.run(ctx, "init", "-q", "-b", commit.Branch); err != nil {
		return "", err
	}
	if err := g.checkout(ctx, url, "refs/heads/"+commit.Branch); err != nil {
		return "", err
	}
	for name, content := range commit.Files {
		path := filepath.Join(g.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	// A commit without a change is good for a push of its own.
	for _, args := range [][]string{
		{"add", "--all"}, {"commit", "-q", "--allow-empty", "-m", commit.Message},
		{"push", "-q", url, "HEAD:refs/heads/" + commit.Branch},
	} {
		if _, err := g.run(ctx, args...); err != nil {
			return "", err
		}
	}
	return g.run(ctx, "rev-parse", "HEAD")
}

// checkout takes the remote's branch, else its default branch; an empty repository has neither. It asks first, because
// a fetch of what is not there is an error like any other.
func (g gitCommand) checkout(ctx context.Context, url, branch string) error {
	remote, err := g.run(ctx, "ls-remote", url, branch, "HEAD")
	if err != nil {
		return err
	}
	for _, ref := range []string{branch, "HEAD"} {
		if !strings.Contains(remote+"\n", "\t"+ref+"\n") {
			continue
		}
		if _, err := g.run(ctx, "fetch", "-q", "--depth=1", url, ref); err != nil {
			return err
		}
		_, err := g.run(ctx, "reset", "-q", "--hard", "FETCH_HEAD")
		return err
	}
	return nil
}

// run runs one git command. The password travels in the environment, so that it never appears in a list of processes.
func (g gitCommand) run(ctx context.Context, args ...string) (string, error) {
	// git asks for the variables GIT_CONFIG_* since 2.31; they stand for a file of configuration.
	basic := base64.StdEncoding.EncodeToString([]byte(g.user.Name + ":" + g.user.Password))
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = g.dir
	cmd.Env = append(baseEnv(g.dir),
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.extraHeader", "GIT_CONFIG_VALUE_0=Authorization: Basic "+basic,
		"GIT_AUTHOR_NAME="+g.user.Name, "GIT_AUTHOR_EMAIL="+g.user.Email,
		"GIT_COMMITTER_NAME="+g.user.Name, "GIT_COMMITTER_EMAIL="+g.user.Email)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, tail(problem.String(), 10))
	}
	return strings.TrimSpace(out.String()), nil
}

// Tag puts a tag on a commit or branch. Gitea tells Drone, which makes a build of the event tag.
func (u *User) Tag(ctx context.Context, repo Repo, tag, target string) error {
	client, err := u.Client(ctx)
	if err != nil {
		return err
	}
	if _, _, err := client.CreateTag(repo.Owner, repo.Name, gitea.CreateTagOption{TagName: tag, Target: target}); err != nil {
		return fmt.Errorf("tag %s of %s: %w", tag, repo.Slug(), err)
	}
	return nil
}

// Fork makes the user's own fork of a repository, under the same name.
func (u *User) Fork(ctx context.Context, repo Repo) (Repo, error) {
	client, err := u.Client(ctx)
	if err != nil {
		return Repo{}, err
	}
	made, _, err := client.CreateFork(repo.Owner, repo.Name, gitea.CreateForkOption{})
	if err != nil {
		return Repo{}, fmt.Errorf("fork %s: %w", repo.Slug(), err)
	}
	return repoOf(made), nil
}

// NewPullRequest asks base's main branch to take head, which is a branch, or owner:branch for a fork. Its commits are
// also in base, under refs/pull/N/head, from where Drone's builds and the bridge take them.
func (u *User) NewPullRequest(ctx context.Context, base Repo, head, title string) (*gitea.PullRequest, error) {
	client, err := u.Client(ctx)
	if err != nil {
		return nil, err
	}
	pull, _, err := client.CreatePullRequest(base.Owner, base.Name,
		gitea.CreatePullRequestOption{Head: head, Base: "main", Title: title})
	if err != nil {
		return nil, fmt.Errorf("open pull request %q on %s: %w", title, base.Slug(), err)
	}
	return pull, nil
}

// Comment comments on an issue or a pull request. The hooks for it are called in their own time, before or after this
// returns.
func (u *User) Comment(ctx context.Context, repo Repo, index int64, body string) (*gitea.Comment, error) {
	client, err := u.Client(ctx)
	if err != nil {
		return nil, err
	}
	comment, _, err := client.CreateIssueComment(repo.Owner, repo.Name, index, gitea.CreateIssueCommentOption{Body: body})
	if err != nil {
		return nil, fmt.Errorf("comment on %s#%d: %w", repo.Slug(), index, err)
	}
	return comment, nil
}

// Comments lists the comments of an issue or a pull request, oldest first.
func (u *User) Comments(ctx context.Context, repo Repo, index int64) ([]*gitea.Comment, error) {
	client, err := u.Client(ctx)
	if err != nil {
		return nil, err
	}
	comments, _, err := client.ListIssueComments(repo.Owner, repo.Name, index, gitea.ListIssueCommentOptions{})
	return comments, err
}

// AddCollaborator gives user access to a repository.
func (u *User) AddCollaborator(ctx context.Context, repo Repo, user *User, access gitea.AccessMode) error {
	client, err := u.Client(ctx)
	if err != nil {
		return err
	}
	_, err = client.AddCollaborator(repo.Owner, repo.Name, user.Name, gitea.AddCollaboratorOption{Permission: &access})
	if err != nil {
		return fmt.Errorf("add %s to %s: %w", user.Name, repo.Slug(), err)
	}
	return nil
}
