package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// setenv clears every variable of the bridge and sets a working configuration, changed by the given pairs.
func setenv(t *testing.T, pairs ...string) {
	t.Helper()
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, prefix) || name == "CREDENTIALS_DIRECTORY" {
			t.Setenv(name, "") // so that it comes back after the test
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, pair := range append([]string{
		"GITEA_URL=https://git.example.org", "GITEA_TOKEN=gitea-canary", "DRONE_URL=https://drone.example.org/",
		"DRONE_TOKEN=drone-canary", "HOOK_SECRETS=" + strings.Repeat("canary", 6), "CI_REPO=ci/tests", "REPOS=org,ann/app",
	}, pairs...) {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "CREDENTIALS") {
			name = prefix + name
		}
		t.Setenv(name, value)
	}
}

func TestDefaults(t *testing.T) {
	setenv(t)
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Listen != "127.0.0.1:3001" || cfg.Deadline != 2*time.Hour || cfg.Access != "write" || cfg.CIBranch != "main" {
		t.Errorf("defaults %+v", cfg)
	}
	if _, err := cfg.bridge(); err != nil {
		t.Error(err)
	}
}

// TestEyesAreTriedAgainInTime lets Gitea refuse the eyes three times in a row, as when its database is locked: the waits
// leave time for the fourth call within a second of the hook.
func TestEyesAreTriedAgainInTime(t *testing.T) {
	setenv(t)
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	settings, err := cfg.bridge()
	if err != nil {
		t.Fatal(err)
	}
	var waited time.Duration
	for wait, refused := settings.RetryFirst, 0; refused < 3; refused++ {
		waited += wait
		wait = min(2*wait, settings.RetryMax)
	}
	if waited > 800*time.Millisecond {
		t.Errorf("after three refusals the eyes come after %s at the earliest", waited)
	}
}

// TestFaults breaks one setting at a time: one line names the variable, and no secret is shown.
func TestFaults(t *testing.T) {
	for _, pair := range []string{
		"GITEA_URL=", "GITEA_URL=git.example.org", "GITEA_URL=ftp://x", "GITEA_URL=https://user:canary@x", "GITEA_TOKEN=", "DRONE_URL=x",
		"DRONE_TOKEN=", "HOOK_SECRETS=", "HOOK_SECRETS=canary", "HOOK_SECRETS=" + strings.Repeat("x", 40) + ",canary", "HOOK_SECRETS= , ",
		"DRONE_WEBHOOK_SECRET=canary", "CI_REPO=", "CI_REPO=ci", "CI_REPO=ci/tests/x", "CI_BRANCH=", "CI_BRANCH=main;id", "CI_BRANCH=$(id)", "CI_BRANCH=-x",
		"REPOS=", "REPOS=a/b/c", "REPOS=a b", "RECIPES=org/app:../x", "RECIPES=app:one", "RECIPES=org/app:One", "ACCESS=all", "ACCESS=list",
		"RECIPES=ann/other:one", "PUSH_POLICY=run", "QUIET=-1s", "MAX_AGE=0s", "DEADLINE=-1h", "GRACE=1h", "POLL=1m", "QUEUE=0", "USER_BURST=-1",
		"LOG_LEVEL=loud", "STATE_DIR=state", "HOOK_URL=bridge/hook", "LISTEN=", "MAX_CONNECTIONS=0", "CATCH_UP=0s", "SETTLE=0s",
	} {
		t.Run(pair, func(t *testing.T) {
			setenv(t, pair)
			_, err := load()
			if err == nil {
				t.Fatal("accepted")
			}
			name, _, _ := strings.Cut(pair, "=")
			if name == "POLL" {
				name = "POLL_MAX"
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != 1 || !strings.HasPrefix(lines[0], prefix+name+": ") {
				t.Errorf("faults %q, want one line about %s", lines, name)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("a secret is shown: %v", err)
			}
		})
	}
	setenv(t, "GITEA_TOKEN=", "REPOS=", "QUEUE=0")
	if _, err := load(); err == nil || len(strings.Split(err.Error(), "\n")) != 3 {
		t.Errorf("three faults gave %v", err)
	}
	for _, pair := range []string{"USERS=ann", "TEAMS=org/coders"} { // both count with ACCESS=list only
		setenv(t, pair)
		if _, err := load(); err == nil || !strings.HasPrefix(err.Error(), prefix+"ACCESS: must be list") {
			t.Errorf("%s: %v", pair, err)
		}
	}
	setenv(t, "ACCESS=list", "TEAMS=org")
	if _, err := load(); err == nil || !strings.HasPrefix(err.Error(), prefix+"TEAMS: ") {
		t.Errorf("a team without organisation: %v", err)
	}
	setenv(t, "QUEUE=many", "POLL=5", "RECIPES=org/app")
	_, err := load()
	for _, want := range []string{`QUEUE: "many" is not a whole number`, `POLL: "5" is not a time such as 90s, 5m or 2h`,
		`RECIPES: "org/app" is not a list of the form`} {
		if err == nil || strings.Count(err.Error(), "\n") != 2 || !strings.Contains(err.Error(), prefix+want) {
			t.Errorf("%v, want three lines and in them %s", err, want)
		}
	}
	setenv(t, "QUIETT=1h", "REPOS_FILE=x")
	if _, err = load(); err == nil || strings.Count(err.Error(), "is no setting of the bridge") != 2 {
		t.Errorf("misspelt variables: %v", err)
	}
}

func TestSecretsFromFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := write("token", " from-file \n")
	write("gitea_token", "from-credential\n")
	write("hook_secrets", strings.Repeat("a", 32)+"\n"+strings.Repeat("b", 32)+"\n")

	setenv(t, "GITEA_TOKEN=", "GITEA_TOKEN_FILE="+file, "HOOK_SECRETS=", "CREDENTIALS_DIRECTORY="+dir)
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.GiteaToken != "from-file" || len(cfg.hookSecrets()) != 2 || cfg.DroneToken != "drone-canary" {
		t.Errorf("token %q, %d secrets", cfg.GiteaToken, len(cfg.hookSecrets()))
	}
	setenv(t, "GITEA_TOKEN=", "CREDENTIALS_DIRECTORY="+dir)
	if cfg, err = load(); err != nil || cfg.GiteaToken != "from-credential" {
		t.Errorf("credential: %v", err)
	}
	setenv(t, "GITEA_TOKEN_FILE="+file)
	if _, err = load(); err == nil || !strings.Contains(err.Error(), prefix+"GITEA_TOKEN: set either") {
		t.Errorf("both: %v", err)
	}
	setenv(t, "DRONE_TOKEN=", "DRONE_TOKEN_FILE="+filepath.Join(dir, "none"))
	if _, err = load(); err == nil || !strings.Contains(err.Error(), prefix+"DRONE_TOKEN_FILE: ") {
		t.Errorf("no file: %v", err)
	}
}

// TestSecretFields compares the list of secrets with the fields' tags.
func TestSecretFields(t *testing.T) {
	secrets := new(config).secrets()
	tagged := 0
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config]()) {
		if f.Tag.Get("secret") == "" {
			continue
		}
		tagged++
		if secrets[f.Tag.Get("envconfig")] == nil {
			t.Errorf("%s is a secret and has no _FILE", f.Name)
		}
	}
	if tagged != len(secrets) {
		t.Errorf("%d secrets in the list, %d fields are tagged", len(secrets), tagged)
	}
}

// TestDocumentation compares the fields with the tables in docs/configuration.md, both ways.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(CC_CI_BRIDGE_[A-Z_]+)` \\| (?:`([^`]*)`)? ?\\| (.+) \\|$")
	documented := map[string][]string{}
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		documented[m[1]] = m[2:]
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config]()) {
		name := f.Tag.Get("envconfig")
		entry, ok := documented[name]
		if !ok {
			t.Errorf("%s is not documented", name)
			continue
		}
		if entry[0] != f.Tag.Get("default") {
			t.Errorf("%s has the default %q, documented is %q", name, f.Tag.Get("default"), entry[0])
		}
		if strings.HasPrefix(entry[1], "secret: ") != (f.Tag.Get("secret") != "") {
			t.Errorf("%s: code and documentation differ about whether it is a secret", name)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("%s is documented and does not exist", name)
	}
}
