package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// setEnv makes the process's environment hold the two required variables and vars, and nothing else of ours.
func setEnv(t *testing.T, vars map[string]string) {
	t.Helper()
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "DRONE_") || name == "CREDENTIALS_DIRECTORY" || name == "STATE_DIRECTORY" {
			unset(t, name)
		}
	}
	all := map[string]string{"DRONE_RPC_HOST": "drone.example.org", "DRONE_RPC_SECRET": "canary-rpc-secret"}
	for name := range variableNames() {
		if _, ok := all[name]; !ok {
			unset(t, name)
		}
	}
	for name, value := range vars {
		all[name] = value
	}
	for name, value := range all {
		t.Setenv(name, value)
	}
}

// unset unsets the variable until the test ends.
func unset(t *testing.T, name string) {
	t.Helper()
	t.Setenv(name, "")
	if err := os.Unsetenv(name); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, vars map[string]string) *Config {
	t.Helper()
	setEnv(t, vars)
	config, _, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestDefaults(t *testing.T) {
	c := load(t, nil)
	got := []any{c.RPCProto, c.HTTPBind, c.UIRealm, c.Capacity, c.LogFileMaxAge, c.LogFileMaxBackups, c.LogFileMaxSize,
		c.NetrcCloneOnly, c.LogLimit, c.Grace, c.DrainTimeout, c.TeardownTimeout, c.StepLeftovers, c.Leftovers, c.Leaks, c.Repos == nil}
	want := []any{"http", ":3000", "MyRealm", 2, 1, 1, 100,
		true, byteSize(5 << 20), 10 * time.Second, time.Hour, 2 * time.Minute, "keep", "warn", "fail", true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the defaults are %v, want %v", got, want)
	}
	if c.Name == "" || c.PlatformArch == "" || c.PlatformOS == "" || c.Root == "" || c.State == "" {
		t.Errorf("a default that depends on the host is missing: %+v", c)
	}
}

func TestEveryFaultIsNamed(t *testing.T) {
	setEnv(t, map[string]string{
		"DRONE_RPC_HOST":              "",
		"DRONE_RPC_SECRET":            "",
		"DRONE_RPC_PROTO":             "gopher",
		"DRONE_RUNNER_CAPACITY":       "many",
		"DRONE_RUNNER_GRACE":          "10",
		"DRONE_RUNNER_MEMORY":         "lots",
		"DRONE_RUNNER_LABELS":         "no colon",
		"DRONE_RUNNER_ENVIRON":        `A:"open`,
		"DRONE_LIMIT_REPOS":           "[",
		"DRONE_DEBUG":                 "perhaps",
		"DRONE_RUNNER_CPUS":           "-1",
		"DRONE_RUNNER_LEAKS":          "shrug",
		"DRONE_RUNNER_STEP_LEFTOVERS": "sell",
		"DRONE_HTTP_BIND":             "3000",
		"DRONE_LOG_FILE_MAX_SIZE":     "-1",
		"DRONE_ENV_PLUGIN_ENDPOINT":   "plugin.example.org",
		"DRONE_RUNNER_SYMLINKS":       "/srv:../out",
	})
	_, _, err := loadConfig()
	if err == nil {
		t.Fatal("a faulty configuration was accepted")
	}
	lines := strings.Split(err.Error(), "\n")
	want := []string{"DRONE_RPC_HOST", "DRONE_RPC_SECRET", "DRONE_RPC_PROTO", "DRONE_RUNNER_CAPACITY", "DRONE_RUNNER_GRACE",
		"DRONE_RUNNER_MEMORY", "DRONE_RUNNER_LABELS", "DRONE_RUNNER_ENVIRON", "DRONE_LIMIT_REPOS", "DRONE_DEBUG", "DRONE_RUNNER_CPUS",
		"DRONE_RUNNER_LEAKS", "DRONE_RUNNER_STEP_LEFTOVERS", "DRONE_HTTP_BIND", "DRONE_LOG_FILE_MAX_SIZE", "DRONE_ENV_PLUGIN_ENDPOINT",
		"DRONE_RUNNER_SYMLINKS"}
	for _, name := range want {
		n := 0
		for _, line := range lines {
			if strings.HasPrefix(line, name+": ") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s has %d lines of its own, want 1, in:\n%s", name, n, err)
		}
	}
	if len(lines) != len(want) {
		t.Errorf("%d lines for %d faults:\n%s", len(lines), len(want), err)
	}
}

// TestSmallestLimitOfCPUs: the kernel refuses less than a hundredth, which would fail every build.
func TestSmallestLimitOfCPUs(t *testing.T) {
	for cpus, good := range map[string]bool{"0": true, "0.01": true, "1.5": true, "0.009": false, "-1": false, "NaN": false} {
		setEnv(t, map[string]string{"DRONE_RPC_HOST": "drone.example.org", "DRONE_RPC_SECRET": "secret", "DRONE_RUNNER_CPUS": cpus})
		_, _, err := loadConfig()
		if (err == nil) != good || !good && !strings.Contains(err.Error(), "DRONE_RUNNER_CPUS: ") {
			t.Errorf("DRONE_RUNNER_CPUS=%s: %v", cpus, err)
		}
	}
}

func TestMapsMayHoldColonsAndCommas(t *testing.T) {
	c := load(t, map[string]string{
		"DRONE_RUNNER_ENVIRON": `URL:https://example.org:8443/x, LIST:"a,b" ,QUOTE:"say ""hi""",EMPTY:,PLAIN:v`,
	})
	want := pairs{"URL": "https://example.org:8443/x", "LIST": "a,b", "QUOTE": `say "hi"`, "EMPTY": "", "PLAIN": "v"}
	if !reflect.DeepEqual(c.Environ, want) {
		t.Errorf("parsed %v, want %v", c.Environ, want)
	}
}

func TestEmptyLimitDeniesAll(t *testing.T) {
	if c := load(t, map[string]string{"DRONE_LIMIT_REPOS": ""}); c.Repos == nil || len(c.Repos) != 0 {
		t.Errorf("a limit that is set but empty is %#v, want an empty list", c.Repos)
	}
}

func TestEnvFilesWinOverEnviron(t *testing.T) {
	for _, name := range []string{"DRONE_RUNNER_ENVFILE", "DRONE_RUNNER_ENV_FILE"} {
		file := filepath.Join(t.TempDir(), "env")
		if err := os.WriteFile(file, []byte("A=from file\nB=2\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := load(t, map[string]string{"DRONE_RUNNER_ENVIRON": "A:from environ,C:3", name: file})
		if want := (pairs{"A": "from file", "B": "2", "C": "3"}); !reflect.DeepEqual(c.Environ, want) {
			t.Errorf("%s: %v, want %v", name, c.Environ, want)
		}
	}
}

// A file that cannot be parsed may hold secrets: the error must not quote it.
func TestErrorsDoNotQuoteFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("canary-secret-line without an equals sign !!\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	setEnv(t, map[string]string{"DRONE_RUNNER_ENVFILE": file})
	_, _, err := loadConfig()
	if err == nil || !strings.Contains(err.Error(), "DRONE_RUNNER_ENVFILE") || strings.Contains(err.Error(), "canary") {
		t.Errorf("the error is %v", err)
	}
}

func TestSecretsComeFromFilesAndCredentials(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"rpc_secret": "from the credential\n", "file": "from the file\n", "empty": "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	odd := t.TempDir()
	if err := os.Mkdir(filepath.Join(odd, "rpc_secret"), 0o700); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		vars map[string]string
		want string
		err  string
	}{
		{"variable", nil, "canary-rpc-secret", ""},
		{"file", map[string]string{"DRONE_RPC_SECRET": "", "DRONE_RPC_SECRET_FILE": filepath.Join(dir, "file")}, "from the file", ""},
		{"credential", map[string]string{"DRONE_RPC_SECRET": "", "CREDENTIALS_DIRECTORY": dir}, "from the credential", ""},
		{"variable before credential", map[string]string{"CREDENTIALS_DIRECTORY": dir}, "canary-rpc-secret", ""},
		{"both", map[string]string{"DRONE_RPC_SECRET_FILE": filepath.Join(dir, "file")}, "", "set one of the two"},
		{"empty file", map[string]string{"DRONE_RPC_SECRET": "", "DRONE_RPC_SECRET_FILE": filepath.Join(dir, "empty")}, "", "is empty"},
		{"unreadable credential", map[string]string{"DRONE_RPC_SECRET": "", "CREDENTIALS_DIRECTORY": odd}, "", "DRONE_RPC_SECRET: read its credential: "},
		{"no file", map[string]string{"DRONE_RPC_SECRET": "", "DRONE_RPC_SECRET_FILE": filepath.Join(dir, "none")}, "", "no such file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			setEnv(t, test.vars)
			config, _, err := loadConfig()
			switch {
			case test.err == "" && err != nil:
				t.Fatal(err)
			case test.err != "":
				if err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "canary") {
					t.Errorf("the error is %v, want one with %q", err, test.err)
				}
			case string(config.RPCSecret) != test.want:
				t.Errorf("the secret is not the one that was expected")
			}
			if value, ok := os.LookupEnv("DRONE_RPC_SECRET"); ok && value != "" {
				t.Error("the secret is still in the environment")
			}
		})
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	c := load(t, nil)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if text := sprint(verb, c); strings.Contains(text, "canary") {
			t.Errorf("%s prints the secret", verb)
		}
	}
}

func TestWarnings(t *testing.T) {
	setEnv(t, map[string]string{
		"DRONE_RUNNER_CAPACTIY": "3", "DRONE_ACME_ENABLED": "true", "DRONE_UI_PASSWORD": "x", "DRONE_RUNNER_CAPACITY": "3",
	})
	_, warnings, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(warnings, "\n")
	for _, want := range []string{"DRONE_RUNNER_CAPACTIY is not a variable", "DRONE_ACME_ENABLED has no effect", "DRONE_UI_USERNAME is empty"} {
		if !strings.Contains(text, want) {
			t.Errorf("no warning says %q in:\n%s", want, text)
		}
	}
	if len(warnings) != 3 {
		t.Errorf("%d warnings, want 3:\n%s", len(warnings), text)
	}
}

// typeWords are what the reference may call each type of field.
func typeWords(field reflect.Type) []string {
	switch field.String() {
	case "bool":
		return []string{"bool"}
	case "int", "int64":
		return []string{"number", "days", "MB"}
	case "float64":
		return []string{"number"}
	case "time.Duration":
		return []string{"duration"}
	case "main.byteSize":
		return []string{"size"}
	case "main.hidden":
		return []string{"secret"}
	case "main.pairs":
		return []string{"map"}
	case "main.globList":
		return []string{"list of globs"}
	case "main.textList":
		return []string{"list"}
	}
	return []string{"text", "path", "URL", "address", "regular expression", "name, uid or range", "`http` or `https`", "`warn` or `strict`",
		"`keep` or `kill`", "`ignore`, `warn` or `fail`", "`warn` or `fail`", "`host`, `proxy` or `none`", "`own` or `open`"}
}

// The reference and the struct must not drift apart, in names, types or defaults.
func TestConfigurationIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	type row struct{ kind, standard string }
	documented := map[string]row{}
	for _, cells := range regexp.MustCompile("(?m)^\\| `(DRONE_[A-Z_]+)` \\| ([^|]+) \\| ([^|]+) \\|").FindAllStringSubmatch(string(text), -1) {
		documented[cells[1]] = row{cells[2], cells[3]}
	}
	fields := reflect.TypeFor[Config]()
	var names []string
	for i := range fields.NumField() {
		tag := fields.Field(i).Tag
		name := tag.Get("envconfig")
		names = append(names, name)
		row, ok := documented[name]
		if !ok {
			t.Errorf("%s has no row in docs/configuration.md", name)
			continue
		}
		if words := typeWords(fields.Field(i).Type); !slices.Contains(words, row.kind) {
			t.Errorf("%s: the documented type is %q, the real one is one of %q", name, row.kind, words)
		}
		if value := tag.Get("default"); value != "" && !strings.Contains(row.standard, "`"+value+"`") {
			t.Errorf("%s: the documented default is %q, the real one is %q", name, row.standard, value)
		}
		if tag.Get("credential") != "" && !strings.Contains(string(text), "`"+name+"_FILE`, credential `"+tag.Get("credential")+"`") {
			t.Errorf("%s: its file and credential are not documented", name)
		}
	}
	for name := range documented {
		if !slices.Contains(names, name) {
			t.Errorf("docs/configuration.md has %s, which the runner does not read", name)
		}
	}
}

// What was left behind and what survived is judged by two variables.
func TestLeakPolicies(t *testing.T) {
	leak := &engine.LeakError{Build: "b", Items: []leftover.Item{{Kind: "volume", Name: "v"}}}
	left := []leftover.Item{{Kind: "service", Name: "s"}}
	for _, c := range []struct {
		leftovers, leaks string
		left             []leftover.Item
		err              error
		warns, fails     string
	}{
		{"ignore", "fail", left, nil, "", ""},
		{"warn", "fail", left, nil, "service s", ""},
		{"fail", "fail", left, nil, "", "service s"},
		{"fail", "fail", nil, nil, "", ""},
		{"warn", "fail", nil, leak, "", "volume v"},
		{"warn", "warn", nil, leak, "LEAKS=warn", ""},
		{"fail", "warn", left, leak, "LEAKS=warn", "service s"},
		{"fail", "fail", left, leak, "service s", "volume v"},
		{"ignore", "warn", left, errors.New("other"), "", "other"},
	} {
		config := &Config{Leftovers: c.leftovers, Leaks: c.leaks}
		warning, err := config.leaks(&engine.Report{Leftovers: c.left}, c.err)
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%+v: error %v", c, err)
		}
		if (warning == "") != (c.warns == "") || !strings.Contains(warning, c.warns) {
			t.Errorf("%+v: warning %q", c, warning)
		}
	}
}
