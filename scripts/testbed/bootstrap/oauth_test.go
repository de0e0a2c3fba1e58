package bootstrap

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"code.gitea.io/sdk/gitea"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// script runs scripts/bootstrap-drone-oauth and keeps what it printed and what its programs were called with.
type script struct {
	dir, program, calls string
	env                 []string
}

// newScript puts a curl before the real one that notes its arguments and its environment.
func newScript(t *testing.T, user *testbed.User, env ...string) *script {
	t.Helper()
	root, err := testbed.Root()
	if err != nil {
		t.Fatal(err)
	}
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &script{dir: dir, program: filepath.Join(root, "scripts", "bootstrap-drone-oauth"), calls: filepath.Join(dir, "calls")}
	note := fmt.Sprintf("#!/bin/sh\n{ printf '%%s\\n' \"$*\"; env; } >>%s\nexec %s \"$@\"\n", s.calls, curl)
	if err := os.WriteFile(filepath.Join(dir, "curl"), []byte(note), 0o700); err != nil {
		t.Fatal(err)
	}
	s.env = append([]string{
		"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir,
		"GITEA_URL=" + bed.Gitea.URL(), "DRONE_URL=" + bed.Drone.URL(), "GITEA_USER=" + user.Name,
	}, env...)
	return s
}

// run returns what the script printed; an error holds it too.
func (s *script) run(ctx context.Context, mode string) (string, error) {
	cmd := exec.CommandContext(ctx, s.program, mode)
	cmd.Env, cmd.Dir = s.env, s.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return string(out), err
}

// hides fails if a secret is in what the script printed, or in an argument or the environment of a program it called.
func (s *script) hides(t *testing.T, output string, secrets ...string) {
	t.Helper()
	calls, err := os.ReadFile(s.calls)
	if err != nil || len(calls) == 0 {
		t.Fatalf("no calls were noted: %v", err)
	}
	for i, secret := range secrets {
		if secret == "" {
			t.Fatalf("secret %d is empty", i)
		}
		if strings.Contains(output, secret) {
			t.Errorf("secret %d is printed", i)
		}
		if strings.Contains(string(calls), secret) {
			t.Errorf("secret %d is an argument or in the environment of curl", i)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// end is what the script is about: the state that two runs must agree on.
type end struct {
	token  string
	active bool
	hooks  int
}

func stateOf(ctx context.Context, t *testing.T, user *testbed.User, repo testbed.Repo, file string) end {
	t.Helper()
	state := end{token: read(t, file)}
	found, err := bed.Drone.Client(ctx, state.token).Repo(repo.Owner, repo.Name)
	if err != nil {
		t.Fatalf("the token is not good: %v", err)
	}
	state.active = found.Active
	client, err := user.Client(ctx)
	if err != nil {
		t.Fatal(err)
	}
	hooks, _, err := client.ListRepoHooks(repo.Owner, repo.Name, gitea.ListHooksOptions{})
	if err != nil {
		t.Fatal(err)
	}
	state.hooks = len(hooks)
	return state
}

// TestLoginTwice shows that a second run finds everything done: same token, one hook, no consent asked for.
func TestLoginTwice(t *testing.T) {
	ctx := t.Context()
	user, repo := world(ctx, t, "bot")
	secrets := t.TempDir()
	password, token := filepath.Join(secrets, "password"), filepath.Join(secrets, "token")
	if err := os.WriteFile(password, []byte(user.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newScript(t, user, "CI_REPO="+repo.Slug(), "DRONE_TOKEN_FILE="+token, "GITEA_PASSWORD_FILE="+password)
	var states [2]end
	for i, want := range [][]string{
		{user.Name + " has consented", user.Name + " is logged in to", token + " is written", repo.Slug() + " is activated"},
		{user.Name + " is logged in to", token + " is up to date", repo.Slug() + " is active"},
	} {
		output, err := s.run(ctx, "login")
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range want {
			if !strings.Contains(output, line) {
				t.Errorf("run %d does not say %q:\n%s", i+1, line, output)
			}
		}
		if i == 1 && strings.Contains(output, "consented") {
			t.Errorf("the second run consents again:\n%s", output)
		}
		states[i] = stateOf(ctx, t, user, repo, token)
		s.hides(t, output, user.Password, states[i].token)
	}
	if states[0] != states[1] || !states[0].active || states[0].hooks != 1 {
		t.Errorf("active and hooks are %v %d, then %v %d; same token: %v", states[0].active, states[0].hooks, states[1].active,
			states[1].hooks, states[0].token == states[1].token)
	}
	if info, err := os.Stat(token); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file is %v, %v", info.Mode(), err)
	}
	left, err := filepath.Glob(filepath.Join(s.dir, "tmp.*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestRotatedToken does what docs/operations.md says of the bot's Drone token: the old one ends, the script brings the new one.
func TestRotatedToken(t *testing.T) {
	ctx := t.Context()
	user, repo := world(ctx, t, "rotating")
	secrets := t.TempDir()
	file, password := filepath.Join(secrets, "token"), filepath.Join(secrets, "password")
	if err := os.WriteFile(password, []byte(user.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newScript(t, user, "CI_REPO="+repo.Slug(), "DRONE_TOKEN_FILE="+file, "GITEA_PASSWORD_FILE="+password)
	if _, err := s.run(ctx, "login"); err != nil {
		t.Fatal(err)
	}
	old := read(t, file)
	root, err := testbed.Root()
	if err != nil {
		t.Fatal(err)
	}
	text := read(t, filepath.Join(root, "docs", "operations.md"))
	command := regexp.MustCompile(`(?m)^    (curl .*rotate=true.*)$`).FindStringSubmatch(text)
	if command == nil {
		t.Fatal("operations.md has no command that rotates the token")
	}
	cmd := exec.CommandContext(ctx, "bash", "-ec", command[1])
	cmd.Env = append(os.Environ(), s.env...)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("rotating: %v, and %d bytes are printed, want none", err, len(out))
	}
	if _, err := bed.Drone.Client(ctx, old).Self(); err == nil {
		t.Error("the old token is still good")
	}
	output, err := s.run(ctx, "login")
	if err != nil || !strings.Contains(output, file+" is written") {
		t.Fatalf("the new token is not written: %v %s", err, output)
	}
	if self, err := bed.Drone.Client(ctx, read(t, file)).Self(); err != nil || self.Login != user.Name || read(t, file) == old {
		t.Errorf("the new token: %v", err)
	}
	s.hides(t, output, user.Password, old, read(t, file))
}

// TestLoginFaults: one sentence each, which says what to do and no secret.
func TestLoginFaults(t *testing.T) {
	ctx := t.Context()
	user, repo := world(ctx, t, "clumsy")
	token := filepath.Join(t.TempDir(), "token")
	for name, c := range map[string]struct {
		env  []string
		want string
	}{
		"wrong password": {[]string{"GITEA_PASSWORD=canary-of-a-password"}, "Gitea refuses the password of " + user.Name},
		"no password":    {nil, "GITEA_PASSWORD is not set"},
		"empty file":     {[]string{"GITEA_PASSWORD_FILE=/dev/null"}, "/dev/null cannot be read or is empty"},
		"no such repository": {[]string{"GITEA_PASSWORD=" + user.Password, "CI_REPO=" + user.Name + "/none"},
			"Drone does not see " + user.Name + "/none; does it exist, and does " + user.Name + " administer it?"},
		"not a repository": {[]string{"GITEA_PASSWORD=" + user.Password, "CI_REPO=../admin"}, "../admin is not owner/name"},
		"no server":        {[]string{"GITEA_PASSWORD=" + user.Password, "GITEA_URL=http://127.0.0.1:1"}, "http://127.0.0.1:1 cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, user, append([]string{"CI_REPO=" + repo.Slug(), "DRONE_TOKEN_FILE=" + token}, c.env...)...)
			output, err := s.run(ctx, "login")
			if err == nil || !strings.Contains(output, c.want) {
				t.Errorf("wants %q, got %v %s", c.want, err, output)
			}
			if strings.Contains(output, user.Password) || strings.Contains(output, "canary") {
				t.Error("the password is printed")
			}
		})
	}
}

// TestApp registers a Drone at Gitea: once, and again only for a new secret when the old one is lost.
func TestApp(t *testing.T) {
	ctx := t.Context()
	user, _ := world(ctx, t, "owner")
	file := filepath.Join(t.TempDir(), "client")
	s := newScript(t, user, "GITEA_PASSWORD="+user.Password, "DRONE_CLIENT_SECRET_FILE="+file, "DRONE_URL=https://drone.example.org")
	var ids, secrets []string
	for i := range 3 {
		if i == 2 { // the secret is lost
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
		output, err := s.run(ctx, "app")
		if err != nil {
			t.Fatal(err)
		}
		_, id, _ := strings.Cut(output, "client id: ")
		ids, secrets = append(ids, strings.TrimSpace(id)), append(secrets, read(t, file))
		s.hides(t, output, user.Password, secrets[i])
	}
	if ids[0] == "" || ids[0] != ids[1] || ids[1] != ids[2] {
		t.Errorf("client ids %q", ids)
	}
	if secrets[0] != secrets[1] || secrets[1] == secrets[2] {
		t.Error("the secret must stay while it is there, and be a new one when it was lost")
	}
	client, err := user.Client(ctx)
	if err != nil {
		t.Fatal(err)
	}
	apps, _, err := client.ListOauth2(gitea.ListOauth2Option{})
	if err != nil || len(apps) != 1 || apps[0].RedirectURIs[0] != "https://drone.example.org/login" {
		t.Errorf("applications: %v %v", apps, err)
	}
}
