package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
)

// Config is the daemon's whole configuration. This file is the only one that reads the environment for settings;
// names, types and defaults up to DRONE_ENV_PLUGIN_SKIP_VERIFY are those of drone-runner-exec. docs/configuration.md
// lists every field, and a test compares the two.
//
// A field with the tag `credential` is a secret: readSecrets fills it, and the tag is its file's name among systemd's
// credentials. Nobody changes a Config that a daemon works with; a reload makes a new one.
type Config struct {
	// Debug and Trace set how much is logged; Trace wins. Without either it is logrus's level info.
	Debug bool `envconfig:"DRONE_DEBUG"`
	Trace bool `envconfig:"DRONE_TRACE"`

	// LogFile is an additional log file beside stderr. Its limits, in days, files and megabytes, are lumberjack's, to
	// which 0 means no limit for the first two and its default, 100, for the last.
	LogFile           string `envconfig:"DRONE_LOG_FILE"`
	LogFileMaxAge     int    `envconfig:"DRONE_LOG_FILE_MAX_AGE" default:"1"`
	LogFileMaxBackups int    `envconfig:"DRONE_LOG_FILE_MAX_BACKUPS" default:"1"`
	LogFileMaxSize    int    `envconfig:"DRONE_LOG_FILE_MAX_SIZE" default:"100"`

	// RPC is the Drone server. RPCHost has no scheme and no path. The dumps go to stdout, as drone-runner-exec's did,
	// and so not to the dashboard, which shows the log.
	RPCProto      string `envconfig:"DRONE_RPC_PROTO" default:"http"`
	RPCHost       string `envconfig:"DRONE_RPC_HOST"`
	RPCSecret     hidden `envconfig:"DRONE_RPC_SECRET" credential:"rpc_secret"`
	RPCSkipVerify bool   `envconfig:"DRONE_RPC_SKIP_VERIFY"`
	RPCDumpHTTP   bool   `envconfig:"DRONE_RPC_DUMP_HTTP"`
	RPCDumpBody   bool   `envconfig:"DRONE_RPC_DUMP_HTTP_BODY"`

	// Platform is what the server's queue is asked for. OS and Arch default to this host's; the server compares Kernel
	// and Variant only where the pipeline has them (Drone's scheduler/queue/queue.go).
	PlatformOS      string `envconfig:"DRONE_PLATFORM_OS"`
	PlatformArch    string `envconfig:"DRONE_PLATFORM_ARCH"`
	PlatformKernel  string `envconfig:"DRONE_PLATFORM_KERNEL"`
	PlatformVariant string `envconfig:"DRONE_PLATFORM_VARIANT"`

	// UI is the dashboard; it is on when there is a password. An empty user name is let through with a warning,
	// because drone-runner-exec took it.
	UIDisable  bool   `envconfig:"DRONE_UI_DISABLE"`
	UIUsername string `envconfig:"DRONE_UI_USERNAME"`
	UIPassword hidden `envconfig:"DRONE_UI_PASSWORD" credential:"ui_password"`
	UIRealm    string `envconfig:"DRONE_UI_REALM" default:"MyRealm"`

	// HTTPBind is the endpoint for health, readiness, metrics and the dashboard. The default listens on all
	// interfaces. With RPCHost it also names the runner on this host: see stateName.
	HTTPBind string `envconfig:"DRONE_HTTP_BIND" default:":3000"`

	// These four never had an effect in drone-runner-exec either; setting one is warned about.
	HTTPProto   string `envconfig:"DRONE_HTTP_PROTO"`
	HTTPHost    string `envconfig:"DRONE_HTTP_HOST"`
	ACMEEmail   string `envconfig:"DRONE_ACME_EMAIL"`
	ACMEEnabled bool   `envconfig:"DRONE_ACME_ENABLED"`

	// The runner and what its steps get. Name is the stage's machine on the server. Labels must equal the pipeline's
	// `node` both ways. EnvFile2 is EnvFile as drone-runner-docker spells it. Root is the parent of builds'
	// directories. Symlinks maps what a link points to to its place below a build's directory. MaxProcs counts the
	// steps of the whole runner, not of a stage, whatever the old documentation said; 0 is no limit.
	//
	// Repos, Events and Trusted are whose stages may run here. An offer does not tell whose stage it is, so one that
	// is denied has been accepted by then and ends with an error; no other runner gets it.
	Name     string   `envconfig:"DRONE_RUNNER_NAME"`
	Capacity int      `envconfig:"DRONE_RUNNER_CAPACITY" default:"2"`
	MaxProcs int64    `envconfig:"DRONE_RUNNER_MAX_PROCS"`
	Labels   pairs    `envconfig:"DRONE_RUNNER_LABELS"`
	Environ  pairs    `envconfig:"DRONE_RUNNER_ENVIRON"`
	EnvFile  string   `envconfig:"DRONE_RUNNER_ENVFILE"`
	EnvFile2 string   `envconfig:"DRONE_RUNNER_ENV_FILE"`
	Path     string   `envconfig:"DRONE_RUNNER_PATH"`
	Root     string   `envconfig:"DRONE_RUNNER_ROOT"`
	Symlinks pairs    `envconfig:"DRONE_RUNNER_SYMLINKS"`
	Repos    globList `envconfig:"DRONE_LIMIT_REPOS"`
	Events   globList `envconfig:"DRONE_LIMIT_EVENTS"`
	Trusted  bool     `envconfig:"DRONE_LIMIT_TRUSTED"`

	// Plugins: extensions that are asked for secrets and for variables by HTTP. The tokens sign the requests.
	SecretEndpoint   string `envconfig:"DRONE_SECRET_PLUGIN_ENDPOINT"`
	SecretToken      hidden `envconfig:"DRONE_SECRET_PLUGIN_TOKEN" credential:"secret_plugin_token"`
	SecretSkipVerify bool   `envconfig:"DRONE_SECRET_PLUGIN_SKIP_VERIFY"`
	EnvEndpoint      string `envconfig:"DRONE_ENV_PLUGIN_ENDPOINT"`
	EnvToken         hidden `envconfig:"DRONE_ENV_PLUGIN_TOKEN" credential:"env_plugin_token"`
	EnvSkipVerify    bool   `envconfig:"DRONE_ENV_PLUGIN_SKIP_VERIFY"`

	// NetrcCloneOnly hides the clone's credentials from the other steps. With Gitea they are the OAuth token of
	// whoever activated the repository (Drone's service/netrc/netrc.go), and so worth all of that person's
	// repositories.
	NetrcCloneOnly bool `envconfig:"DRONE_NETRC_CLONE_ONLY" default:"true"`

	// Lint says what the linter's warnings are: `warn` puts them into the first step's log, `strict` makes them errors
	// of the stage.
	Lint string `envconfig:"DRONE_RUNNER_LINT" default:"warn"`

	// State is where the journal, the log spool and the teardown reports lie, in a directory below it for each runner
	// (stateName). A restarted runner needs the one that it had.
	State string `envconfig:"DRONE_RUNNER_STATE"`

	// Grace is how long a step's processes may take to end after SIGTERM, before SIGKILL.
	Grace time.Duration `envconfig:"DRONE_RUNNER_GRACE" default:"10s"`

	// DrainTimeout is how long running builds may go on after the runner was told to stop. The units' TimeoutStopSec=
	// must be longer than it and a teardown.
	DrainTimeout time.Duration `envconfig:"DRONE_RUNNER_DRAIN_TIMEOUT" default:"1h"`

	// TeardownTimeout bounds a build's teardown; what is left then is reported. It is Docker's share: lastLook comes
	// on top.
	TeardownTimeout time.Duration `envconfig:"DRONE_RUNNER_TEARDOWN_TIMEOUT" default:"2m"`

	// StepLeftovers says what happens to processes that outlive their step: keep (until the stage ends, for a server
	// that one step starts and the next one uses) or kill.
	StepLeftovers string `envconfig:"DRONE_RUNNER_STEP_LEFTOVERS" default:"keep"`

	// Leftovers (ignore, warn, fail) says what it means when a pipeline did not clean up and the runner did; Leaks
	// (warn, fail), when something survived the teardown.
	Leftovers string `envconfig:"DRONE_RUNNER_LEFTOVERS" default:"warn"`
	Leaks     string `envconfig:"DRONE_RUNNER_LEAKS" default:"fail"`

	// Keep exempts repositories (owner/name, globs) from teardown, because their pipelines deploy for real. What they
	// leave is reported.
	Keep globList `envconfig:"DRONE_RUNNER_KEEP"`

	// LogLimit is how much of a step's log is stored: head and tail, with a line between them that says how much is
	// missing. The default is what drone-runner-exec kept of the tail. The live log has no limit.
	LogLimit byteSize `envconfig:"DRONE_RUNNER_LOG_LIMIT" default:"5MiB"`

	// Limits of one build; zero means none. Memory (with swap), CPUs and PIDs are the build's cgroup's, and hold only
	// where the host has the controllers: doctor and the log of the start tell. StepTimeout and Disk are watched by
	// the engine in every mode. A reload changes them: Memory, CPUs and PIDs for builds that begin later, the others
	// from each build's next step on.
	Memory      byteSize      `envconfig:"DRONE_RUNNER_MEMORY"`
	CPUs        float64       `envconfig:"DRONE_RUNNER_CPUS"`
	PIDs        int64         `envconfig:"DRONE_RUNNER_PIDS"`
	StepTimeout time.Duration `envconfig:"DRONE_RUNNER_STEP_TIMEOUT"`
	Disk        byteSize      `envconfig:"DRONE_RUNNER_DISK"`

	// User runs the steps: a name, a uid, or a range of uids of which every running build gets its own. It needs a
	// runner that is root. Empty is the runner's own user.
	User string `envconfig:"DRONE_RUNNER_USER"`

	// PrivateTmp gives each build a /tmp of its own, where the host allows mount namespaces, and with it a read-only
	// /sys/fs/cgroup and, where builds have Docker sockets of their own, such a /run/docker.sock.
	PrivateTmp bool `envconfig:"DRONE_RUNNER_PRIVATE_TMP" default:"true"`

	// Docker says what steps get of Docker: the host's socket (host, or empty, which also says so in the log), one of
	// their own for each build (proxy), or nothing from us (none). All settings from here on have an effect with proxy
	// only; package engine/swarm explains them. Networks, Mounts and Caps are what builds may use although it is not
	// theirs.
	Docker         string   `envconfig:"DRONE_RUNNER_DOCKER"`
	DockerEndpoint string   `envconfig:"DRONE_RUNNER_DOCKER_ENDPOINT" default:"unix:///var/run/docker.sock"`
	DockerPolicy   string   `envconfig:"DRONE_RUNNER_DOCKER_POLICY" default:"own"`
	DockerNetworks textList `envconfig:"DRONE_RUNNER_DOCKER_NETWORKS" default:"proxy"`
	DockerMounts   textList `envconfig:"DRONE_RUNNER_DOCKER_MOUNTS" default:"/etc/localtime,/etc/timezone"`
	DockerCaps     textList `envconfig:"DRONE_RUNNER_DOCKER_CAPS"`
	SwarmNodes     textList `envconfig:"DRONE_RUNNER_SWARM_NODES"`
	SwarmCerts     string   `envconfig:"DRONE_RUNNER_SWARM_CERTS"`

	// AppPattern and AppEnvDirs find apps that a build deployed past its socket: a regular expression for their
	// domains, and where their <domain>.env files lie. Empty finds none. The pattern is permission to remove what
	// matches, so it must match nothing that people deploy.
	AppPattern string   `envconfig:"DRONE_RUNNER_APP_PATTERN"`
	AppEnvDirs textList `envconfig:"DRONE_RUNNER_APP_ENV_DIRS"`
}

// defaultBind is the endpoint's default; since it is also Gitea's, a busy one is only a warning when nobody asked for
// it. (To ask for the default itself looks like not asking.)
const defaultBind = ":3000"

// loadConfig reads the environment. The error holds one line per fault, each naming its variable; the warnings are for
// the log.
//
// It takes the secrets out of the process's environment, so a second call would not find them: environment.load puts
// them back first.
func loadConfig() (config *Config, warnings []string, err error) {
	config = &Config{}
	faults := readVariables(config)
	faults = append(faults, readSecrets(config)...)
	config.setDefaults()
	faults = append(faults, config.validate()...)
	if len(faults) > 0 {
		return nil, nil, errors.Join(faults...)
	}
	if config.Environ, err = mergeEnvFiles(config); err != nil {
		return nil, nil, err
	}
	return config, config.warnings(os.Environ()), nil
}

// readVariables fills the struct from the environment. envconfig stops at the first value that it cannot parse, so a
// faulty variable is set aside and the rest is read again: an admin learns of every fault at once. Each round unsets
// one variable, so it ends.
func readVariables(config *Config) []error {
	var faults []error
	for {
		err := envconfig.Process("", config)
		var parse *envconfig.ParseError
		if !errors.As(err, &parse) {
			if err != nil {
				faults = append(faults, err)
			}
			return faults
		}
		reason := parse.Err
		var hinted *formatError
		if !errors.As(parse.Err, &hinted) {
			// Of the settings with a plain type that can fail to parse none is a secret, so the value may be shown.
			reason = fmt.Errorf("%q is not a %s", parse.Value, typeHint(parse.TypeName))
		}
		faults = append(faults, fmt.Errorf("%s: %w", parse.KeyName, reason))
		if err := os.Unsetenv(parse.KeyName); err != nil {
			return append(faults, err)
		}
	}
}

// typeHint is an envconfig type for people, with an example.
func typeHint(name string) string {
	switch name {
	case "bool":
		return "boolean (true or false)"
	case "int", "int64":
		return "whole number"
	case "float64":
		return "number (such as 1.5)"
	case "time.Duration":
		return "duration (such as 90s, 10m or 1h)"
	}
	return name
}

// readSecrets fills each field with a `credential` tag that its variable left empty: from the file that NAME_FILE
// names, else from $CREDENTIALS_DIRECTORY, where systemd's LoadCredential puts it. Afterwards the variable is dropped
// from this process's environment, so that no child inherits it; what /proc/PID/environ shows is
// process.HideEnvironment's.
func readSecrets(config *Config) []error {
	var faults []error
	value := reflect.ValueOf(config).Elem()
	for i := range value.NumField() {
		tag := value.Type().Field(i).Tag
		credential := tag.Get("credential")
		if credential == "" {
			continue
		}
		name := tag.Get("envconfig")
		text, err := readSecret(name, credential)
		if err != nil {
			faults = append(faults, err)
		}
		if text != "" {
			value.Field(i).SetString(text)
		}
		if err := os.Unsetenv(name); err != nil {
			faults = append(faults, err)
		}
	}
	return faults
}

// secretNames are the variables that hold secrets. It goes by the tag, so that a new secret cannot be forgotten.
func secretNames() (names []string) {
	config := reflect.TypeFor[Config]()
	for i := range config.NumField() {
		if tag := config.Field(i).Tag; tag.Get("credential") != "" {
			names = append(names, tag.Get("envconfig"))
		}
	}
	return names
}

// readSecret is one secret from its file or credential, without the line's end that editors add; empty where there is
// none, or where the variable itself holds it. A named file must hold something, a credential need not be there:
// systemd gives a unit those that it has.
func readSecret(name, credential string) (string, error) {
	file := os.Getenv(name + "_FILE")
	switch dir := os.Getenv("CREDENTIALS_DIRECTORY"); {
	case os.Getenv(name) != "" && file != "":
		return "", fmt.Errorf("%s_FILE: %s is set too; set one of the two", name, name)
	case os.Getenv(name) != "":
		return "", nil
	case file == "" && dir != "":
		data, err := os.ReadFile(filepath.Join(dir, credential))
		if errors.Is(err, os.ErrNotExist) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("%s: read its credential: %w", name, err)
		}
		return strings.TrimSpace(string(data)), nil
	case file == "":
		return "", nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s_FILE: %w", name, err)
	}
	text := strings.TrimSpace(string(data))
	if text == "" {
		return "", fmt.Errorf("%s_FILE: %s is empty; put the secret into it", name, file)
	}
	return text, nil
}

// setDefaults fills what depends on the host. It runs before validate, which sees the settings as they will be used.
func (c *Config) setDefaults() {
	if c.PlatformOS == "" {
		c.PlatformOS = runtime.GOOS
	}
	if c.PlatformArch == "" {
		c.PlatformArch = runtime.GOARCH
	}
	if c.Name == "" {
		// Without a host name the server shows an empty machine, which harms nothing.
		c.Name, _ = os.Hostname()
	}
	if c.Root == "" {
		c.Root = os.TempDir()
	}
	if c.State == "" {
		c.State = defaultState()
	}
}

// defaultState is systemd's StateDirectory, else the usual place for root or for a user. Of several StateDirectory=
// systemd names all, separated by colons; ours comes first.
func defaultState() string {
	if dir := os.Getenv("STATE_DIRECTORY"); dir != "" {
		first, _, _ := strings.Cut(dir, ":")
		return first
	}
	if os.Getuid() == 0 {
		return "/var/lib/cc-ci-runner"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "cc-ci-runner")
	}
	return filepath.Join(os.Getenv("HOME"), ".local", "state", "cc-ci-runner")
}

// server is the Drone server's address, which builds' names derive from.
func (c *Config) server() string { return c.RPCProto + "://" + c.RPCHost }

// validate returns one error per fault, each opening with the variable's name and ending with what to do. It looks at
// values only: whether a directory can be written or a user exists is found out at the start, and by doctor.
func (c *Config) validate() []error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(c.RPCHost == "", "DRONE_RPC_HOST: is empty; set it to the Drone server's host (and port), such as drone.example.org")
	fault(strings.Contains(c.RPCHost, "/"), "DRONE_RPC_HOST: %q holds a slash; set only host and port, and DRONE_RPC_PROTO for http or https", c.RPCHost)
	fault(c.RPCSecret == "", "DRONE_RPC_SECRET: is empty; set it, or DRONE_RPC_SECRET_FILE, to the server's DRONE_RPC_SECRET")
	fault(!slices.Contains([]string{"http", "https"}, c.RPCProto), "DRONE_RPC_PROTO: %q is neither http nor https", c.RPCProto)
	fault(c.Capacity < 1, "DRONE_RUNNER_CAPACITY: %d is less than 1; set how many pipelines may run at once", c.Capacity)
	fault(c.MaxProcs < 0, "DRONE_RUNNER_MAX_PROCS: %d is negative; 0 means no limit", c.MaxProcs)
	fault(!slices.Contains([]string{"warn", "strict"}, c.Lint), "DRONE_RUNNER_LINT: %q is neither warn nor strict", c.Lint)
	fault(!slices.Contains([]string{"keep", "kill"}, c.StepLeftovers), "DRONE_RUNNER_STEP_LEFTOVERS: %q is neither keep nor kill", c.StepLeftovers)
	fault(!slices.Contains([]string{"ignore", "warn", "fail"}, c.Leftovers), "DRONE_RUNNER_LEFTOVERS: %q is none of ignore, warn, fail", c.Leftovers)
	fault(!slices.Contains([]string{"warn", "fail"}, c.Leaks), "DRONE_RUNNER_LEAKS: %q is neither warn nor fail", c.Leaks)
	fault(!slices.Contains([]string{"", "host", "proxy", "none"}, c.Docker), "DRONE_RUNNER_DOCKER: %q is none of host, proxy, none", c.Docker)
	fault(!slices.Contains([]string{"own", "open"}, c.DockerPolicy), "DRONE_RUNNER_DOCKER_POLICY: %q is neither own nor open", c.DockerPolicy)
	_, err := regexp.Compile(c.AppPattern)
	fault(err != nil, "DRONE_RUNNER_APP_PATTERN: %v", err)
	// The kernel takes no quota below 1 ms of the 100 ms that it counts by.
	fault(c.CPUs != 0 && !(c.CPUs >= 0.01), "DRONE_RUNNER_CPUS: %g is less than 0.01; 0 means no limit", c.CPUs)
	fault(c.PIDs < 0, "DRONE_RUNNER_PIDS: %d is negative; 0 means no limit", c.PIDs)
	fault(c.LogLimit < 1024, "DRONE_RUNNER_LOG_LIMIT: %d bytes is too little; set at least 1KiB", c.LogLimit)
	fault(c.EnvFile != "" && c.EnvFile2 != "" && c.EnvFile != c.EnvFile2,
		"DRONE_RUNNER_ENV_FILE: DRONE_RUNNER_ENVFILE names another file; set one of the two")
	for name, d := range map[string]time.Duration{
		"DRONE_RUNNER_GRACE": c.Grace, "DRONE_RUNNER_DRAIN_TIMEOUT": c.DrainTimeout,
		"DRONE_RUNNER_STEP_TIMEOUT": c.StepTimeout, "DRONE_RUNNER_TEARDOWN_TIMEOUT": c.TeardownTimeout,
	} {
		fault(d < 0, "%s: %s is negative", name, d)
	}
	fault(c.TeardownTimeout == 0, "DRONE_RUNNER_TEARDOWN_TIMEOUT: is 0; set how long a teardown may take, such as 2m")
	return append(faults, c.validateFormats()...)
}

// validateFormats is the part of validate about values with a form of their own: addresses, paths, names, counts of files.
func (c *Config) validateFormats() []error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	_, port, err := net.SplitHostPort(c.HTTPBind)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	fault(err != nil, "DRONE_HTTP_BIND: %q is not an address; set [HOST]:PORT, such as 127.0.0.1:3000", c.HTTPBind)
	// Not shown: addresses may hold a password.
	for name, endpoint := range map[string]string{
		"DRONE_SECRET_PLUGIN_ENDPOINT": c.SecretEndpoint, "DRONE_ENV_PLUGIN_ENDPOINT": c.EnvEndpoint,
	} {
		u, err := url.Parse(endpoint)
		fault(endpoint != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https"),
			"%s: is not a URL such as https://plugin.example.org", name)
	}
	for name, number := range map[string]int{
		"DRONE_LOG_FILE_MAX_AGE": c.LogFileMaxAge, "DRONE_LOG_FILE_MAX_BACKUPS": c.LogFileMaxBackups, "DRONE_LOG_FILE_MAX_SIZE": c.LogFileMaxSize,
	} {
		fault(number < 0, "%s: %d is negative", name, number)
	}
	for source, target := range c.Symlinks {
		// An absolute target counts from the build's directory, too.
		place := filepath.Clean(strings.TrimLeft(target, "/"))
		fault(place == "." || !filepath.IsLocal(place), "DRONE_RUNNER_SYMLINKS: %s:%s leaves the build's directory; name a place below it", source, target)
	}
	for name := range c.Environ {
		fault(strings.ContainsAny(name, "=\x00"), "DRONE_RUNNER_ENVIRON: %q cannot be the name of a variable", name)
	}
	return faults
}

// warnings are about settings without effect and names that do not exist, in the order of the alphabet. environ is
// os.Environ's list. Only DRONE_RUNNER_ is the runner's own prefix: the other names are shared with the server, whose
// settings may well be in the same environment.
func (c *Config) warnings(environ []string) []string {
	var list []string
	for name, set := range map[string]bool{
		"DRONE_HTTP_PROTO": c.HTTPProto != "", "DRONE_HTTP_HOST": c.HTTPHost != "",
		"DRONE_ACME_EMAIL": c.ACMEEmail != "", "DRONE_ACME_ENABLED": c.ACMEEnabled,
	} {
		if set {
			list = append(list, name+" has no effect: put the runner behind a reverse proxy for TLS")
		}
	}
	known := variableNames()
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "DRONE_RUNNER_") && !known[name] {
			list = append(list, name+" is not a variable of this runner: look for a spelling mistake (docs/configuration.md lists all)")
		}
	}
	if c.UIPassword != "" && c.UIUsername == "" {
		list = append(list, "DRONE_UI_USERNAME is empty: the dashboard is open to an empty user name with the password")
	}
	slices.Sort(list)
	return list
}

// variableNames are all variables that this file reads.
func variableNames() map[string]bool {
	names := map[string]bool{}
	fields := reflect.TypeFor[Config]()
	for i := range fields.NumField() {
		tag := fields.Field(i).Tag
		names[tag.Get("envconfig")] = true
		if tag.Get("credential") != "" {
			names[tag.Get("envconfig")+"_FILE"] = true
		}
	}
	return names
}
