package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge"
)

// prefix begins the name of every variable.
const prefix = "CC_CI_BRIDGE_"

// config is every setting of the bridge. docs/configuration.md lists the same variables with the same defaults.
type config struct {
	// Listen is where hooks arrive; a socket passed by systemd replaces it.
	Listen string `envconfig:"CC_CI_BRIDGE_LISTEN" default:"127.0.0.1:3001"`
	// StatusListen is where /healthz, /readyz and /metrics are served; empty switches them off.
	StatusListen string `envconfig:"CC_CI_BRIDGE_STATUS_LISTEN" default:"127.0.0.1:3002"`
	// MaxConnections is how many connections for hooks are open at the same time.
	MaxConnections int `envconfig:"CC_CI_BRIDGE_MAX_CONNECTIONS" default:"256"`
	// StateDir holds the journal and the audit log.
	StateDir string `envconfig:"CC_CI_BRIDGE_STATE_DIR" default:"/var/lib/cc-ci-bridge"`
	// LogLevel is debug, info, warning or error.
	LogLevel string `envconfig:"CC_CI_BRIDGE_LOG_LEVEL" default:"info"`

	// GiteaURL is the address of Gitea, as the bridge and the builds reach it.
	GiteaURL string `envconfig:"CC_CI_BRIDGE_GITEA_URL"`
	// GiteaToken is the bot's token.
	GiteaToken string `envconfig:"CC_CI_BRIDGE_GITEA_TOKEN" secret:"true"`
	// AdminToken is used by register only, and by doctor to look at hooks.
	AdminToken string `envconfig:"CC_CI_BRIDGE_ADMIN_TOKEN" secret:"true"`
	// HookURL is the address under which Gitea reaches POST /hook.
	HookURL string `envconfig:"CC_CI_BRIDGE_HOOK_URL"`
	// HookSecrets sign Gitea's hooks, separated by commas or lines; register uses the first.
	HookSecrets string `envconfig:"CC_CI_BRIDGE_HOOK_SECRETS" secret:"true"`

	// DroneURL is the address of Drone, as the bridge and people reach it.
	DroneURL string `envconfig:"CC_CI_BRIDGE_DRONE_URL"`
	// DroneToken starts and cancels builds.
	DroneToken string `envconfig:"CC_CI_BRIDGE_DRONE_TOKEN" secret:"true"`
	// DroneSecret signs Drone's webhook to POST /drone; empty switches the hint off.
	DroneSecret string `envconfig:"CC_CI_BRIDGE_DRONE_WEBHOOK_SECRET" secret:"true"`
	// CIRepo is the repository whose pipeline is run, as owner/name in Drone.
	CIRepo string `envconfig:"CC_CI_BRIDGE_CI_REPO"`
	// CIBranch is the branch that the pipeline is taken from.
	CIBranch string `envconfig:"CC_CI_BRIDGE_CI_BRANCH" default:"main"`

	// Repos may ask for builds: owners, or owner/name.
	Repos []string `envconfig:"CC_CI_BRIDGE_REPOS"`
	// Recipes lists the recipes of repositories that hold several, as owner/name:one|two.
	Recipes map[string]string `envconfig:"CC_CI_BRIDGE_RECIPES"`
	// Access is write, collaborator or list.
	Access string `envconfig:"CC_CI_BRIDGE_ACCESS" default:"write"`
	// Users may start runs when Access is list.
	Users []string `envconfig:"CC_CI_BRIDGE_USERS"`
	// Teams may start runs when Access is list, as organisation/team.
	Teams []string `envconfig:"CC_CI_BRIDGE_TEAMS"`
	// PushPolicy is pinned or refuse.
	PushPolicy string `envconfig:"CC_CI_BRIDGE_PUSH_POLICY" default:"pinned"`
	// Quiet is how close before a comment a stranger's push makes the bridge ask for the commit by name.
	Quiet time.Duration `envconfig:"CC_CI_BRIDGE_QUIET" default:"60s"`
	// MaxAge is the age from which a comment is answered, not run.
	MaxAge time.Duration `envconfig:"CC_CI_BRIDGE_MAX_AGE" default:"6h"`

	// Deadline ends a run that does not end by itself.
	Deadline time.Duration `envconfig:"CC_CI_BRIDGE_DEADLINE" default:"2h"`
	// GiveUp is how long an unreachable server is asked before the author is told.
	GiveUp time.Duration `envconfig:"CC_CI_BRIDGE_GIVE_UP" default:"1h"`
	// Settle is how long a build whose reply was lost is looked for before it is asked for again. One that Drone
	// denies for four times as long counts as gone.
	Settle time.Duration `envconfig:"CC_CI_BRIDGE_SETTLE" default:"15s"`
	// Poll is the first interval of asking for a build's state.
	Poll time.Duration `envconfig:"CC_CI_BRIDGE_POLL" default:"1s"`
	// PollMax is the longest interval of asking for a build's state.
	PollMax time.Duration `envconfig:"CC_CI_BRIDGE_POLL_MAX" default:"15s"`
	// CatchUp is the interval of reading comments whose hook was lost.
	CatchUp time.Duration `envconfig:"CC_CI_BRIDGE_CATCH_UP" default:"3m"`
	// Grace is the age below which a comment is left to its hook.
	Grace time.Duration `envconfig:"CC_CI_BRIDGE_GRACE" default:"30s"`
	// Keep is how long finished requests stay in the journal.
	Keep time.Duration `envconfig:"CC_CI_BRIDGE_KEEP" default:"2160h"`

	// Queue is how many requests are alive at the same time.
	Queue int `envconfig:"CC_CI_BRIDGE_QUEUE" default:"200"`
	// UserBurst is how many commands a user may send at once.
	UserBurst int `envconfig:"CC_CI_BRIDGE_USER_BURST" default:"10"`
	// UserEvery is how often a user gets another command.
	UserEvery time.Duration `envconfig:"CC_CI_BRIDGE_USER_EVERY" default:"30s"`
	// PullBurst is how many runs a pull request may start at once.
	PullBurst int `envconfig:"CC_CI_BRIDGE_PULL_BURST" default:"5"`
	// PullEvery is how often a pull request gets another run.
	PullEvery time.Duration `envconfig:"CC_CI_BRIDGE_PULL_EVERY" default:"1m"`
	// RepoBurst is how many runs a repository may start at once.
	RepoBurst int `envconfig:"CC_CI_BRIDGE_REPO_BURST" default:"20"`
	// RepoEvery is how often a repository gets another run.
	RepoEvery time.Duration `envconfig:"CC_CI_BRIDGE_REPO_EVERY" default:"15s"`
}

// load reads the environment and the secrets' files and checks everything. Unknown and unreadable variables are told
// first, alone: what is wrong with the rest may be their doing.
func load() (*config, error) {
	cfg := new(config)
	if err := errors.Join(cfg.strangers(os.Environ()), cfg.parse()); err != nil {
		return nil, err
	}
	return cfg, errors.Join(cfg.readSecrets(os.Getenv), cfg.validate())
}

// parse reads the variables. The library stops at the first that it cannot read, so that one is taken away and the
// rest is read again: all of them are told at once.
func (c *config) parse() error {
	var f faults
	for {
		err := envconfig.Process("", c)
		var bad *envconfig.ParseError
		if !errors.As(err, &bad) {
			return errors.Join(append(f, err)...)
		}
		f.check(false, strings.TrimPrefix(bad.KeyName, prefix), "%q is not %s", bad.Value, kind(bad.TypeName))
		if err := os.Unsetenv(bad.KeyName); err != nil {
			return errors.Join(append(f, err)...)
		}
	}
}

// kind is a type for people.
func kind(name string) string {
	switch name {
	case "time.Duration":
		return "a time such as 90s, 5m or 2h"
	case "int":
		return "a whole number"
	}
	return "a list of the form owner/name:one|two,owner/other:three"
}

// strangers finds variables that look like settings and are none: a misspelt one would leave its default in force.
func (c *config) strangers(environ []string) error {
	known := map[string]bool{}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[config]()) {
		known[field.Tag.Get("envconfig")] = true
	}
	for name := range c.secrets() {
		known[name+"_FILE"] = true
	}
	var f faults
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if short, ours := strings.CutPrefix(name, prefix); ours {
			f.check(known[name], short, "is no setting of the bridge: look for a spelling mistake, docs/configuration.md lists all")
		}
	}
	slices.SortFunc(f, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(f...)
}

// secrets are the fields with a secret in them, by variable.
func (c *config) secrets() map[string]*string {
	return map[string]*string{
		prefix + "GITEA_TOKEN":          &c.GiteaToken,
		prefix + "ADMIN_TOKEN":          &c.AdminToken,
		prefix + "HOOK_SECRETS":         &c.HookSecrets,
		prefix + "DRONE_TOKEN":          &c.DroneToken,
		prefix + "DRONE_WEBHOOK_SECRET": &c.DroneSecret,
	}
}

// readSecrets fills each secret that is not in its variable from the file that NAME_FILE names, or else from the
// credential that systemd passes, for example gitea_token for CC_CI_BRIDGE_GITEA_TOKEN.
func (c *config) readSecrets(env func(string) string) error {
	var faults []error
	for name, value := range c.secrets() {
		path := env(name + "_FILE")
		if path != "" && *value != "" {
			faults = append(faults, fmt.Errorf("%s: set either it or %s_FILE, not both", name, name))
			continue
		}
		optional := path == ""
		if dir := env("CREDENTIALS_DIRECTORY"); path == "" && dir != "" && *value == "" {
			path = filepath.Join(dir, strings.ToLower(strings.TrimPrefix(name, prefix)))
		}
		if path == "" {
			continue
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) && optional {
			continue
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s_FILE: %w", name, err))
			continue
		}
		*value = strings.TrimSpace(string(text))
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(faults...)
}

// hookSecrets are the secrets that may sign hooks.
func (c *config) hookSecrets() [][]byte {
	var all [][]byte
	for _, s := range strings.FieldsFunc(c.HookSecrets, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		if s = strings.TrimSpace(s); s != "" {
			all = append(all, []byte(s))
		}
	}
	return all
}

// recipes are the recipes by repository.
func (c *config) recipes() map[string][]string {
	all := map[string][]string{}
	for repo, names := range c.Recipes {
		all[repo] = strings.Split(names, "|")
	}
	return all
}

// faults collects what is wrong with the settings, one line each.
type faults []error

// check adds a line about a variable unless ok.
func (f *faults) check(ok bool, name, format string, args ...any) {
	if !ok {
		*f = append(*f, fmt.Errorf(prefix+name+": "+format, args...))
	}
}

// minSecret is the shortest secret that signs hooks, in bytes: as much as SHA-256 gives, so guessing it is no easier
// than guessing a signature.
const minSecret = 32

// validate names every setting that cannot work and says what it should be.
func (c *config) validate() error {
	var f faults
	f.servers(c)
	f.people(c)
	f.numbers(c)
	return errors.Join(f...)
}

// servers checks addresses and secrets. Messages never hold the value: addresses may have passwords in them.
func (f *faults) servers(c *config) {
	for name, value := range map[string]string{"GITEA_URL": c.GiteaURL, "DRONE_URL": c.DroneURL} {
		f.check(isServer(value), name, "set it to the server's address, such as https://server.example.org")
	}
	f.check(c.HookURL == "" || isServer(c.HookURL), "HOOK_URL", "must be an http or https address")
	f.check(c.GiteaToken != "", "GITEA_TOKEN", "set it, or its _FILE, to the bot's token")
	f.check(c.DroneToken != "", "DRONE_TOKEN", "set it, or its _FILE, to the token of the bot's Drone account")
	f.check(len(c.hookSecrets()) > 0, "HOOK_SECRETS", "set it, or its _FILE: without a secret anyone could start builds")
	for i, secret := range c.hookSecrets() {
		f.check(len(secret) >= minSecret, "HOOK_SECRETS", "secret %d is shorter than %d bytes", i+1, minSecret)
	}
	f.check(c.DroneSecret == "" || len(c.DroneSecret) >= minSecret, "DRONE_WEBHOOK_SECRET", "is shorter than %d bytes", minSecret)
	f.check(isFullName(c.CIRepo), "CI_REPO", "set it to the CI repository in Drone, as owner/name")
	f.check(branchPattern.MatchString(c.CIBranch), "CI_BRANCH", "must be a plain branch name: it reaches a shell on the runner")
}

// people checks who may have what run. What would not count is a fault too: whoever set it believes that it does.
func (f *faults) people(c *config) {
	f.check(len(c.Repos) > 0, "REPOS", "list the owners or repositories that may ask for builds")
	for _, entry := range c.Repos {
		f.check(isName(entry) || isFullName(entry), "REPOS", "%q is neither an owner nor owner/name", entry)
	}
	listed := bridge.Config{Repos: c.Repos}
	for repo, names := range c.recipes() {
		f.check(isFullName(repo), "RECIPES", "%q is not owner/name", repo)
		owner, name, _ := strings.Cut(repo, "/")
		f.check(!isFullName(repo) || listed.Allows(owner, name), "RECIPES", "%q is not among REPOS", repo)
		for _, name := range names {
			f.check(bridge.ValidRecipe(name), "RECIPES", "%q is not a recipe's name", name)
		}
	}
	f.check(slices.Contains([]string{bridge.AccessWrite, bridge.AccessCollaborator, bridge.AccessList}, c.Access),
		"ACCESS", "must be write, collaborator or list")
	people := len(c.Users) + len(c.Teams)
	f.check(c.Access != bridge.AccessList || people > 0, "ACCESS", "is list, but USERS and TEAMS are empty")
	f.check(c.Access == bridge.AccessList || people == 0, "ACCESS", "must be list for USERS and TEAMS to count; or remove these")
	for _, team := range c.Teams {
		f.check(isFullName(team), "TEAMS", "%q is not organisation/team", team)
	}
	f.check(c.PushPolicy == bridge.PolicyPinned || c.PushPolicy == bridge.PolicyRefuse, "PUSH_POLICY", "must be pinned or refuse")
}

// numbers checks times, counts and places.
func (f *faults) numbers(c *config) {
	_, err := logrus.ParseLevel(c.LogLevel)
	f.check(err == nil, "LOG_LEVEL", "must be debug, info, warning or error")
	f.check(c.Listen != "", "LISTEN", "set it to host:port")
	f.check(filepath.IsAbs(c.StateDir), "STATE_DIR", "must be an absolute path")
	for name, d := range map[string]time.Duration{
		"MAX_AGE": c.MaxAge, "DEADLINE": c.Deadline, "GIVE_UP": c.GiveUp, "SETTLE": c.Settle, "POLL": c.Poll,
		"CATCH_UP": c.CatchUp, "KEEP": c.Keep, "USER_EVERY": c.UserEvery, "PULL_EVERY": c.PullEvery, "REPO_EVERY": c.RepoEvery,
	} {
		f.check(d > 0, name, "must be longer than 0")
	}
	f.check(c.Quiet >= 0, "QUIET", "must not be negative")
	f.check(c.Grace >= 0 && c.Grace < 5*time.Minute, "GRACE", "must be shorter than 5m")
	f.check(c.PollMax >= c.Poll, "POLL_MAX", "must not be shorter than POLL")
	for name, n := range map[string]int{"MAX_CONNECTIONS": c.MaxConnections, "QUEUE": c.Queue,
		"USER_BURST": c.UserBurst, "PULL_BURST": c.PullBurst, "REPO_BURST": c.RepoBurst} {
		f.check(n > 0, name, "must be at least 1")
	}
	slices.SortFunc(*f, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
}

var (
	namePattern   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	branchPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]*$`)
)

// isName accepts the names of owners.
func isName(s string) bool { return namePattern.MatchString(s) }

// isFullName accepts owner/name.
func isFullName(s string) bool {
	owner, name, ok := strings.Cut(s, "/")
	return ok && isName(owner) && isName(name)
}

// isServer accepts addresses without a password and without a query, which would show up in logs.
func isServer(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && u.RawQuery == ""
}
