package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
)

// Spec is one stage in the form in which this host runs it: made by engine/compiler, changed by nobody afterwards.
// Every path in it is absolute. Its JSON form, printed by `cc-ci-runner compile`, leaves out the values of secrets
// and of masked files.
type Spec struct {
	// Build is the stage's name on this host (see BuildName). Cgroups, directories, mounts and the labels of Docker
	// objects carry it, so that what a crash left can be found and removed.
	Build string `json:"build"`

	// Labels say whose build it is, for what can be labelled: repo, number, stage.
	Labels map[string]string `json:"labels,omitempty"`

	// Repo is the repository's full name (owner/name), matched by the setting that exempts repositories from teardown.
	Repo string `json:"repo"`

	// Root is the stage's own directory (mode 0700, or 0711 around closed ones: see process.Host.Create). Teardown removes it.
	Root string `json:"root"`

	// Home, Workspace, Scripts and Tmp lie below Root: $HOME, the steps' working directory, where the step scripts are
	// written, and what a step sees as /tmp where the host allows mount namespaces.
	Home      string `json:"home"`
	Workspace string `json:"workspace"`
	Scripts   string `json:"scripts"`
	Tmp       string `json:"tmp"`

	// Files exist from Setup to Destroy.
	Files []*File `json:"files,omitempty"`

	// Links are symbolic links made by Setup: the key is where the link lies (below Root), the value what it points to.
	Links map[string]string `json:"links,omitempty"`

	// Steps in the pipeline's order; a step that no event matches is not among them.
	Steps []*Step `json:"steps"`

	// Warnings are said at the top of the first step's log: keys without effect, refused parameters, missing secrets.
	Warnings []string `json:"warnings,omitempty"`

	// Mask are the values that no log of this stage may show, beside every Secret's: the netrc password, for one.
	Mask []string `json:"-"`
}

// Step is one step of a stage.
type Step struct {
	// Name is unique within the stage.
	Name string `json:"name"`

	// DependsOn are the names of the steps that must have ended before this one starts. The compiler fills it for
	// serial pipelines too, so that the graph is the only order there is.
	DependsOn []string `json:"depends_on,omitempty"`

	// Detach lets the steps that depend on this one start at once; it ends with the stage.
	Detach bool `json:"detach,omitempty"`

	// IgnoreFailure keeps the stage green when this step fails (`failure: ignore`).
	IgnoreFailure bool `json:"ignore_failure,omitempty"`

	// Run says in which state of the stage the step runs.
	Run RunPolicy `json:"run"`

	// Commands run one after the other until one fails. A step of the YAML has one (its script), the clone has
	// several calls of git.
	Commands []Command `json:"commands,omitempty"`

	// Dir is the working directory.
	Dir string `json:"dir"`

	// Env is the step's whole environment except for Secrets and for what is only known when it starts.
	// Nothing of the runner's own environment is added to it.
	Env map[string]string `json:"environment,omitempty"`

	// Secrets are set last, over Env, and masked in the logs.
	Secrets []Secret `json:"secrets,omitempty"`

	// Files exist only while this step runs (the clone's netrc).
	Files []*File `json:"files,omitempty"`

	// Notes are said at the top of this step's log.
	Notes []string `json:"notes,omitempty"`
}

// Command is one program call; no shell looks at it.
type Command struct {
	// Args is the program and its arguments. A program without a slash is looked up in the step's PATH.
	Args []string `json:"args"`

	// Trace is printed as `+ TRACE` before the call; empty prints nothing (a script traces itself).
	Trace string `json:"trace,omitempty"`

	// Retries is how often a failing call is tried again, after a pause that grows.
	Retries int `json:"retries,omitempty"`
}

// Secret is one environment variable whose value is masked in the logs.
type Secret struct {
	// Env is the variable, Name the secret's own name, Value what both stand for.
	Env   string `json:"env"`
	Name  string `json:"name"`
	Value string `json:"-"`
}

// File is a regular file that the engine writes for a build.
type File struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"`
	Data []byte `json:"-"`
}

// RunPolicy says in which state of the stage a step runs.
type RunPolicy string

// The policies; the zero value is not valid. A step that never runs is not in the Spec.
const (
	RunOnSuccess RunPolicy = "on-success"
	RunOnFailure RunPolicy = "on-failure"
	RunAlways    RunPolicy = "always"
)

// State is how a step's commands ended.
type State struct {
	// ExitCode is the exit code; 128+n for a process ended by signal n.
	ExitCode int

	// Reason says more than the code where the runner knows more.
	Reason Reason

	// Leftovers are the processes that the step left running, as `pid command age`.
	Leftovers []string

	// CPUSeconds and PeakMemory (bytes) are what the step used; zero where the host cannot tell.
	CPUSeconds float64
	PeakMemory int64
}

// Reason tells the ends of a step apart.
type Reason string

// The reasons. Exited stands for an ordinary exit code.
const (
	Exited      Reason = ""
	Signaled    Reason = "signal"
	OutOfMemory Reason = "out of memory"
	TimedOut    Reason = "timeout"
	Cancelled   Reason = "cancelled"
	Stopped     Reason = "runner stopped"
	DiskFull    Reason = "disk limit"
	StageEnded  Reason = "with the stage"
)

// BuildName is the name on this host of a server's stage. It depends on nothing but its arguments, so that a runner
// that was restarted finds what the one before it left. The server is the address as configured, with its scheme.
func BuildName(server string, stage int64) string {
	sum := sha256.Sum256([]byte(server))
	return fmt.Sprintf("cc-ci-%s-%s", hex.EncodeToString(sum[:4]), strconv.FormatInt(stage, 10))
}
