package compiler

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// repository is a real repository to clone from.
type repository struct {
	t   *testing.T
	dir string
}

func newRepository(t *testing.T) *repository {
	t.Helper()
	r := &repository{t, t.TempDir()}
	r.git("init", "-q", "-b", "main")
	for _, text := range []string{"one", "two", "three", "four"} {
		r.commit(text)
	}
	return r
}

func (r *repository) git(args ...string) string {
	r.t.Helper()
	return runGit(r.t, r.dir, gitEnvironment(r.t.TempDir()), args)
}

// commit adds a commit that changes a file of its own, and returns its name.
func (r *repository) commit(text string) string {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, text), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.git("add", ".")
	r.git("commit", "-q", "-m", text)
	return r.git("rev-parse", "HEAD")
}

func gitEnvironment(home string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com", "GIT_TERMINAL_PROMPT=0",
	}
}

func runGit(t *testing.T, dir string, env, args []string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %q: %s\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// clone runs the commands as the runner would, and returns a function that asks git about the result.
func (r *repository) clone(args cloneArgs) func(args ...string) string {
	r.t.Helper()
	args.Remote = "file://" + r.dir
	commands, _, err := cloneCommands(args)
	if err != nil {
		r.t.Fatal(err)
	}
	dir, env := r.t.TempDir(), gitEnvironment(r.t.TempDir())
	for _, c := range commands {
		if c.Args[0] != "git" {
			r.t.Fatalf("runs %q", c.Args)
		}
		runGit(r.t, dir, env, c.Args[1:])
	}
	return func(args ...string) string {
		r.t.Helper()
		return runGit(r.t, dir, env, args)
	}
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestCloneOfBranch(t *testing.T) {
	r := newRepository(t)
	sha := r.git("rev-parse", "HEAD~1")
	git := r.clone(cloneArgs{Ref: "refs/heads/main", Branch: "main", Commit: sha})
	equal(t, "commit", git("rev-parse", "HEAD"), sha)
	equal(t, "branch", git("symbolic-ref", "HEAD"), "refs/heads/main")
	equal(t, "history", git("rev-list", "--count", "HEAD"), "3")
}

func TestCloneDepthReachesACommitBehindTheTip(t *testing.T) {
	r := newRepository(t)
	sha := r.git("rev-parse", "HEAD~2")
	git := r.clone(cloneArgs{Ref: "refs/heads/main", Branch: "main", Commit: sha, Depth: 1})
	equal(t, "commit", git("rev-parse", "HEAD"), sha)
	equal(t, "history", git("rev-list", "--count", "HEAD"), "1")
}

func TestCloneOfTag(t *testing.T) {
	r := newRepository(t)
	r.git("tag", "-a", "v1", "-m", "v1", "HEAD~1")
	sha := r.git("rev-parse", "HEAD~1")
	git := r.clone(cloneArgs{Ref: "refs/tags/v1", Branch: "main", Commit: sha, Depth: 2})
	equal(t, "commit", git("rev-parse", "HEAD"), sha)
	equal(t, "history", git("rev-list", "--count", "HEAD"), "2")
}

func TestCloneFetchesTagsWhereAsked(t *testing.T) {
	r := newRepository(t)
	r.git("branch", "other", "HEAD~3")
	r.git("checkout", "-q", "other")
	r.commit("elsewhere")
	r.git("tag", "elsewhere")
	for wanted, want := range map[bool]string{false: "", true: "elsewhere"} {
		git := r.clone(cloneArgs{Ref: "refs/heads/main", Branch: "main", Tags: wanted})
		equal(t, "tags", git("tag"), want)
	}
}

// A depth would cut the history off that the two sides share, and the merge would fail.
func TestCloneMergesPullRequest(t *testing.T) {
	r := newRepository(t)
	r.git("checkout", "-q", "-b", "topic", "HEAD~2")
	sha := r.commit("change")
	r.git("update-ref", "refs/pull/7/head", sha)
	// A tag with the target's name must not be checked out in its place.
	r.git("tag", "main", "HEAD~1")
	git := r.clone(cloneArgs{Ref: "refs/pull/7/head", Branch: "main", Commit: sha, Depth: 1})
	equal(t, "branch", git("symbolic-ref", "HEAD"), "refs/heads/main")
	equal(t, "the change", git("rev-parse", "HEAD^2"), sha)
	equal(t, "the target", git("rev-parse", "HEAD^1"), r.git("rev-parse", "refs/heads/main"))
	equal(t, "files", git("ls-files"), "change\nfour\none\nthree\ntwo")
}

// Names that a shell would run are only names.
func TestCloneOfHostileNames(t *testing.T) {
	r := newRepository(t)
	sha := r.git("rev-parse", "HEAD")
	names := hostileButLegal()
	if os.Getenv("CC_CI_TEST_FULL") != "1" {
		names = names[:6]
	}
	for i, name := range names {
		ref := []string{"refs/heads/", "refs/tags/"}[i%2] + strings.ReplaceAll(name, "/tmp/pwn", "pwn")
		r.git("update-ref", ref, sha)
		git := r.clone(cloneArgs{Ref: ref, Branch: strings.TrimPrefix(ref, "refs/heads/"), Commit: sha})
		equal(t, ref, git("rev-parse", "HEAD"), sha)
		equal(t, "files after "+ref, git("status", "--porcelain", "--ignored"), "")
	}
}

// `git init` leaves a branch `master` or `main` that is still empty; the clone's may have the same name.
func TestCloneOfTheBranchThatInitNames(t *testing.T) {
	r := newRepository(t)
	sha := r.git("rev-parse", "HEAD")
	r.git("update-ref", "refs/pull/1/head", sha)
	for _, branch := range []string{"master", "main"} {
		r.git("update-ref", "refs/heads/"+branch, sha)
		for _, ref := range []string{"refs/heads/" + branch, "refs/pull/1/head"} {
			git := r.clone(cloneArgs{Ref: ref, Branch: branch, Commit: sha})
			equal(t, ref, git("symbolic-ref", "HEAD"), "refs/heads/"+branch)
		}
	}
}
