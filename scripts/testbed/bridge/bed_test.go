package bridge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"
	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

const (
	patience   = 150 * time.Second
	hookSecret = "e2e-hook-secret-canary-0123456789abcdef"
)

// bridge is a running cc-ci-bridge with a repository of its own that it looks after.
type bridge struct {
	*testing.T
	ctx    context.Context
	repo   testbed.Repo
	env    map[string]string
	dir    string
	listen string

	statusURL string
	tap       *tap
	cmd       *exec.Cmd
	exited    chan error
}

// newBridge makes a repository (of the organisation unless spec names a user's), starts the bridge and registers the
// hook.
func newBridge(t *testing.T, spec testbed.RepoSpec, env map[string]string) *bridge {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	b := &bridge{T: t, ctx: ctx, dir: t.TempDir(), env: map[string]string{}, listen: "127.0.0.1:0"}
	spec.Files = map[string]string{"compose.yml": "services: {}"}
	var err error
	b.repo, err = the.maint.NewRepo(ctx, spec)
	b.check(err)
	b.check(the.maint.AddCollaborator(ctx, b.repo, the.wim, gitea.AccessModeWrite))
	b.check(the.maint.AddCollaborator(ctx, b.repo, the.rita, gitea.AccessModeRead))
	b.check(the.maint.AddCollaborator(ctx, b.repo, the.bot, gitea.AccessModeAdmin))
	for name, value := range map[string]string{
		"STATUS_LISTEN": "127.0.0.1:0", "STATE_DIR": filepath.Join(b.dir, "state"), "LOG_LEVEL": "debug",
		"GITEA_URL": the.bed.Gitea.URL(), "GITEA_TOKEN": the.bot.Token, "ADMIN_TOKEN": the.maint.Token,
		"HOOK_SECRETS": hookSecret, "DRONE_URL": the.bed.Drone.URL(), "DRONE_TOKEN": the.token, "CI_REPO": the.ci.Slug(),
		"REPOS": b.repo.Slug(), "POLL": "50ms", "POLL_MAX": "200ms", "SETTLE": "500ms", "GRACE": "0s", "QUIET": "0s",
	} {
		b.env[name] = value
	}
	for name, value := range env {
		b.env[name] = value
	}
	b.start()
	b.tap = newTap(t, "http://"+b.listen)
	b.env["HOOK_URL"] = b.tap.url + "/hook"
	if out, err := b.tool("register"); err != nil || !strings.Contains(out, "no hook; repaired") {
		t.Fatalf("register: %v: %s", err, out)
	}
	t.Cleanup(func() {
		b.kill()
		the.hand.decide(b.repo.Name, "success") // what still runs
		if t.Failed() {
			for _, name := range []string{"log", "state/audit.jsonl"} {
				text, _ := os.ReadFile(filepath.Join(b.dir, name)) // without it there is less to see
				t.Logf("the bridge's %s:\n%s", name, text[max(0, len(text)-4000):])
			}
		}
	})
	return b
}

func (b *bridge) environment() []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir, "CC_CI_BRIDGE_LISTEN=" + b.listen}
	for name, value := range b.env {
		env = append(env, "CC_CI_BRIDGE_"+name+"="+value)
	}
	return env
}

var upPattern = regexp.MustCompile(`msg="the bridge is up" listen="([^"]+)" status="([^"]+)"`)

// start runs the bridge and waits until it is ready. Later starts use the address of the first.
func (b *bridge) start() {
	b.Helper()
	path := filepath.Join(b.dir, "log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	b.check(err)
	info, err := log.Stat()
	b.check(err)
	b.cmd = exec.Command(the.program)
	b.cmd.Env, b.cmd.Stderr, b.cmd.Stdout = b.environment(), log, log
	b.check(b.cmd.Start())
	b.check(log.Close())
	b.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan error) { exited <- cmd.Wait() }(b.cmd, b.exited)
	b.until("the bridge is ready", func() bool {
		select {
		case err := <-b.exited:
			text, _ := os.ReadFile(path) // shown as far as it is there
			b.Fatalf("the bridge exited: %v\n%s", err, text)
		default:
		}
		text, err := os.ReadFile(path)
		b.check(err)
		up := upPattern.FindSubmatch(text[info.Size():])
		if up == nil {
			return false
		}
		b.listen = string(up[1])
		b.statusURL = "http://" + string(up[2])
		return b.get(b.statusURL+"/readyz") == "ready\n"
	})
}

// get reads a page of the bridge's; it is empty when there is none.
func (b *bridge) get(url string) string {
	resp, err := http.Get(url)
	if err != nil {
		return ""
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != 200 {
		return ""
	}
	return string(body)
}

// kill ends the bridge at once, as a crash does.
func (b *bridge) kill() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Kill() // it may have ended already
	<-b.exited
	b.cmd = nil
}

// tool runs one of the program's other commands.
func (b *bridge) tool(args ...string) (string, error) {
	cmd := exec.CommandContext(b.ctx, the.program, args...)
	cmd.Env = b.environment()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// pull opens a pull request from a fork and returns its number and head.
func (b *bridge) pull(branch string) (int64, string) {
	b.Helper()
	fork, err := the.fred.Fork(b.ctx, b.repo)
	b.check(err)
	return b.pullFrom(fork, branch)
}

func (b *bridge) pullFrom(fork testbed.Repo, branch string) (int64, string) {
	b.Helper()
	sha, err := the.fred.Push(b.ctx, fork, testbed.Commit{Branch: branch, Message: branch, Files: map[string]string{branch: branch}})
	b.check(err)
	pr, err := the.fred.NewPullRequest(b.ctx, b.repo, "fred:"+branch, branch)
	b.check(err)
	return pr.Index, sha
}

func (b *bridge) comment(user *testbed.User, pr int64, text string) *gitea.Comment {
	b.Helper()
	c, err := user.Comment(b.ctx, b.repo, pr, text)
	b.check(err)
	return c
}

// replies are the bot's comments on a pull request.
func (b *bridge) replies(pr int64) []*gitea.Comment {
	b.Helper()
	all, err := the.maint.Comments(b.ctx, b.repo, pr)
	b.check(err)
	return slices.DeleteFunc(all, func(c *gitea.Comment) bool { return c.Poster.ID != the.bot.ID })
}

// reply waits until the pull request's only reply contains the text.
func (b *bridge) reply(pr int64, text string) *gitea.Comment {
	b.Helper()
	var replies []*gitea.Comment
	b.until(fmt.Sprintf("the reply says %q", text), func() bool {
		replies = b.replies(pr)
		return len(replies) > 0 && strings.Contains(replies[0].Body, text)
	})
	if len(replies) != 1 {
		b.Fatalf("%d replies, want 1", len(replies))
	}
	return replies[0]
}

// builds are the CI repository's builds for one pull request of the test's repository, newest first.
func (b *bridge) builds(pr int64) []*drone.Build {
	b.Helper()
	all, err := the.bed.Drone.Admin(b.ctx).BuildList(the.ci.Owner, the.ci.Name, drone.ListOptions{Page: 1, Size: 100})
	b.check(err)
	return slices.DeleteFunc(all, func(build *drone.Build) bool {
		return build.Params["RECIPE"] != b.repo.Name || build.Params["PR"] != fmt.Sprint(pr)
	})
}

func (b *bridge) reactions(c *gitea.Comment) []string {
	b.Helper()
	client, err := the.maint.Client(b.ctx)
	b.check(err)
	all, _, err := client.GetIssueCommentReactions(b.repo.Owner, b.repo.Name, c.ID)
	b.check(err)
	var names []string
	for _, r := range all {
		names = append(names, r.Reaction)
	}
	return names
}

// status returns the newest state of a commit's cc-ci status, or nothing.
func (b *bridge) status(sha string) string {
	b.Helper()
	client, err := the.maint.Client(b.ctx)
	b.check(err)
	all, _, err := client.ListStatuses(b.repo.Owner, b.repo.Name, sha, gitea.ListStatusesOption{})
	b.check(err)
	newest := &gitea.Status{}
	for _, s := range all {
		if s.Context == "cc-ci/"+b.repo.Name && s.ID > newest.ID {
			newest = s
		}
	}
	return string(newest.State)
}

func (b *bridge) until(what string, ok func() bool) {
	b.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(150 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("waited in vain until %s", what)
		}
	}
}

func (b *bridge) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
