package bootstrap

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// fence matches a block of commands of docs/install.md: its indentation, its tag and its lines.
var fence = regexp.MustCompile("(?ms)^( *)```sh ?([a-z]*)\n(.*?)^ *```$")

// blocks writes the commands of the section without Nix into a directory, a file a block. A tagged block holds what a
// person fills in; the test fills it in here, and must know every tag.
func blocks(t *testing.T, filled map[string]string) string {
	t.Helper()
	root, err := testbed.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## Without Nix\n")
	all := fence.FindAllStringSubmatch(section, -1)
	if !found || len(all) < 8 {
		t.Fatalf("install.md has %d blocks of commands without Nix", len(all))
	}
	dir, used := t.TempDir(), map[string]bool{}
	for i, block := range all {
		indent, tag, commands := block[1], block[2], block[3]
		if indent != "" {
			commands = regexp.MustCompile("(?m)^"+indent).ReplaceAllString(commands, "")
		}
		if tag != "" {
			instead, known := filled[tag]
			if !known {
				t.Fatalf("install.md has a block %q that the test cannot fill in", tag)
			}
			if tag == "names" {
				sameNames(t, commands, instead)
			}
			commands, used[tag] = instead, true
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d-%s", i, tag)), []byte(commands), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for tag := range filled {
		if !used[tag] {
			t.Errorf("install.md has no block %q", tag)
		}
	}
	return dir
}

// sameNames fails unless the test fills in the very names that a person fills in.
func sameNames(t *testing.T, asked, filled string) {
	t.Helper()
	names := func(text string) []string {
		var found []string
		for _, match := range regexp.MustCompile(`\b([A-Z_]+)=`).FindAllStringSubmatch(text, -1) {
			found = append(found, match[1])
		}
		slices.Sort(found)
		return found
	}
	if asked, filled := names(asked), names(filled); !slices.Equal(asked, filled) {
		t.Errorf("install.md asks for the names %v, the test fills in %v", asked, filled)
	}
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
	}()
	return listener.Addr().String()
}

// needHost skips where the host's directories cannot be put aside.
func needHost(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("installing takes root")
	}
	probe := exec.Command("unshare", "--mount", "sh", "-c",
		"d=$(mktemp -d) && mount -t tmpfs none $d && mkdir $d/u $d/w && mount -t overlay o -o lowerdir=/etc,upperdir=$d/u,workdir=$d/w /etc")
	if out, err := probe.CombinedOutput(); err != nil {
		t.Skipf("this machine lets nobody mount an overlay, which the installation needs to leave no trace: %s", out)
	}
}

// install runs the blocks and returns what they printed when they are done. Everything ends with the test.
func install(t *testing.T, dir string, env []string) string {
	t.Helper()
	root, err := testbed.Root()
	if err != nil {
		t.Fatal(err)
	}
	data, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", filepath.Join(data, "host"))
	cmd.Dir = root
	cmd.Env = append(os.Environ(), append(env, "BLOCKS="+dir, "LAYERS="+t.TempDir(), "PATH="+data+":/usr/local/bin:"+os.Getenv("PATH"), "GOWORK=off")...)
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	installed, ended := make(chan string, 1), make(chan string, 1)
	go func() {
		var all strings.Builder
		for lines := bufio.NewScanner(output); lines.Scan(); {
			fmt.Fprintln(&all, lines.Text())
			if lines.Text() == "installed" {
				installed <- all.String()
			}
		}
		ended <- all.String()
	}()
	done := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		done <- writer.CloseWithError(err)
	}()
	t.Cleanup(func() {
		if err := input.Close(); err != nil {
			t.Error(err)
		}
		<-done
		text := <-ended
		// What the guide says that the journal shows of a build. The services' logs come when they have ended.
		if line := regexp.MustCompile(`cc-ci-runner\.service: .*the stage has ended.*status=success`); !t.Failed() && len(line.FindAllString(text, -1)) < 2 {
			t.Error("the runner's log does not tell of two builds that ended with success")
		}
		if t.Failed() {
			t.Log(text)
		}
	})
	select {
	case text := <-installed:
		return text
	case text := <-ended:
		ended <- text
		t.Fatal("the installation failed")
	case <-time.After(5 * time.Minute):
		t.Fatal("the installation does not end")
	}
	return ""
}

// TestInstallWithoutNix does what docs/install.md says for Debian, against real servers, and then what a person does: a
// push and a !testme end with green builds, and the bot says so.
func TestInstallWithoutNix(t *testing.T) {
	needHost(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	alice, repo := world(ctx, t, "alice")
	bot, err := bed.Gitea.NewUser(ctx, fresh("ci-bot"))
	if err != nil {
		t.Fatal(err)
	}
	if err := alice.AddCollaborator(ctx, repo, bot, gitea.AccessModeAdmin); err != nil {
		t.Fatal(err)
	}
	token, err := bot.NewToken(ctx, "bridge", "read:user", "write:issue",
		"write:repository", "read:organization")
	if err != nil {
		t.Fatal(err)
	}
	hooks := freeAddress(t)
	names := map[string]string{
		"GITEA_URL": bed.Gitea.URL(), "DRONE_URL": bed.Drone.URL(), "GITEA_USER": bot.Name, "CI_REPO": repo.Slug(),
		"GITEA_PASSWORD_FILE": "/run/bot-password", "DRONE_TOKEN_FILE": "/run/drone-token",
		"HOOK_URL": "http://" + hooks + "/hook", "HOOK_LISTEN": hooks, "RUNNER_HTTP": freeAddress(t), "BRIDGE_HTTP": freeAddress(t),
		"BUILDS_DOCKER": "none",
	}
	exports := `printf %s "$TEST_PASSWORD" >/run/bot-password` + "\n"
	for name, value := range names {
		exports += "export " + name + "=" + value + "\n"
	}
	dir := blocks(t, map[string]string{
		"names":  exports,
		"docker": "", // the pipeline needs none
		"secret": `echo "DRONE_RPC_SECRET=$TEST_SECRET" >/etc/cc-ci-runner/secret`,
		"token":  `echo "$TEST_TOKEN" | install -m 0600 /dev/stdin /etc/cc-ci-bridge/gitea_token`,
	})
	printed := install(t, dir, []string{"TEST_PASSWORD=" + bot.Password, "TEST_SECRET=" + bed.Drone.RPCSecret, "TEST_TOKEN=" + token})
	// What the guide says that its proving commands print, and the secrets that none prints.
	for _, proof := range []string{"\nthere\n", "\nok   server:", "\nactive\n", `"ready":true`, repo.Slug() + " is activated",
		"\n" + bot.Name + "\n", "\nready\n", "\n415\n", "; repaired\n", "\nok   Drone"} {
		if !strings.Contains(printed, proof) {
			t.Errorf("the installation does not print %q", proof)
		}
	}
	for i, secret := range []string{bot.Password, bed.Drone.RPCSecret, token} {
		if strings.Contains(printed, secret) {
			t.Errorf("the installation prints secret %d", i)
		}
	}
	if strings.Contains(printed, "\nFAIL ") || strings.Contains(printed, "\nBAD ") {
		t.Errorf("a check of the installation fails:\n%s", printed)
	}

	sha, err := alice.Push(ctx, repo, testbed.Commit{Message: "a change", Files: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	green(ctx, t, repo, testbed.Of(sha))

	if _, err := alice.Push(ctx, repo, testbed.Commit{Branch: "work", Message: "more", Files: map[string]string{"c": "d"}}); err != nil {
		t.Fatal(err)
	}
	pull, err := alice.NewPullRequest(ctx, repo, "work", "more")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alice.Comment(ctx, repo, pull.Index, "!testme"); err != nil {
		t.Fatal(err)
	}
	green(ctx, t, repo, testbed.Event("custom"))
	answered(ctx, t, alice, repo, pull.Index)
}

// green waits for a build and its success.
func green(ctx context.Context, t *testing.T, repo testbed.Repo, which testbed.Condition) {
	t.Helper()
	build, err := bed.Drone.WaitFor(ctx, repo, which)
	if err == nil {
		build, err = bed.Drone.WaitBuild(ctx, repo, build.Number, testbed.Done)
	}
	if err != nil {
		t.Fatal(err)
	}
	if build.Status != "success" {
		t.Fatalf("the build is %s", testbed.Describe(build))
	}
}

// answered waits until the bot's comment says that the run was a success.
func answered(ctx context.Context, t *testing.T, user *testbed.User, repo testbed.Repo, pull int64) {
	t.Helper()
	for {
		comments, err := user.Comments(ctx, repo, pull)
		if err != nil {
			t.Fatal(err)
		}
		for _, comment := range comments {
			if comment.Poster.UserName != user.Name && strings.Contains(comment.Body, "**success**") {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal("the bot does not say that the run was a success")
		case <-time.After(200 * time.Millisecond):
		}
	}
}
