package process

import (
	"io"
	"strconv"
	"syscall"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// Config is what an operator decides about every build of a [Host].
type Config struct {
	// Name is the folder that holds this runner's builds in the cgroup tree. Two runners on one host need two names,
	// or each would sweep the other's builds. Empty means "cc-ci".
	Name string

	// Ended begins the names of runners whose builds are this one's to find and to end as well, once they have ended
	// themselves: those that run one build and have no successor that would look (`cc-ci-runner exec` puts its PID
	// behind such a beginning). Empty means none.
	Ended string

	// Grace is how long a process may live after SIGTERM before it is killed. Zero means ten seconds. A teardown takes
	// at least so long where something ignores the signal.
	Grace time.Duration

	// User is whom the steps run as: empty for the runner's own user, a name, a uid, or a range of uids
	// ("20000-20099") of which every running build gets one to itself.
	User string

	// WithoutGroups are groups that the User's steps do not get, though it is a member: those that may use the host's Docker
	// socket, where builds are not to. A User whose own group is one of them, or a range with a uid of its number, is refused.
	WithoutGroups []int

	// Limits hold for each build as a whole.
	Limits Limits

	// KeepLeftovers lets what a step leaves running live until the build ends; otherwise EndStep kills it. Pipelines
	// written for the old runner count on it: a server that one step starts serves the next.
	KeepLeftovers bool

	// ShareMounts leaves the steps in the host's mount namespace: they share its /tmp, Binds have no effect, and the
	// cgroups can be written to by whoever has the right.
	ShareMounts bool

	// Mode forces one way of containment, and Open fails if it does not work here. Empty means the best one that does.
	Mode Mode

	// Helper is a program that calls [Main]. Empty means this very binary, by /proc/self/exe: that stays the one which
	// runs when an upgrade replaces the file, so both sides of an order are of one version.
	Helper string

	// outputGrace is how long after a command's end its output may still be held open by others before the step goes
	// on without them.
	outputGrace time.Duration
}

// UserError is why steps cannot run as Config.User. Open returns it, for whoever wants to name the setting.
type UserError struct{ Err error }

func (e *UserError) Error() string { return e.Err.Error() }

// Unwrap is for errors.Is and errors.As.
func (e *UserError) Unwrap() error { return e.Err }

// Limits of one build; zero means unlimited. They hold for all steps of the build together, which may run at once.
type Limits struct {
	// Memory is in bytes, swap included. A build beyond it loses a process to the kernel, see Exit.OOM.
	Memory int64
	// CPUs is how many processors' worth of time the build may use.
	CPUs float64
	// PIDs is how many processes and threads may exist at once. The stub before a command counts too while it lives, with
	// the few threads that a Go program has.
	PIDs int64
}

// Build is one build as this package needs to know it.
type Build struct {
	// Name is the cgroup's name; it holds no slash, begins with no dot, and is not used again while the build exists.
	Name string

	// Root is the build's own directory. Home, Workspace and Tmp lie below it. They must exist, and what is in Root is given
	// to the build's user by Create. Tmp is what the steps see as /tmp.
	Root, Home, Workspace, Tmp string

	// Binds are mounted in the steps' mount namespace.
	Binds []Bind

	// Keep lets the build's processes live on after EndStep and Teardown. For repositories that deploy with a
	// background process on purpose.
	Keep bool
}

// Bind shows the file or directory Source as Target, which must exist unless it lies below a /tmp of the build's own.
type Bind struct {
	Source, Target string
	ReadOnly       bool
}

// Command is one program call of a step. No shell looks at it.
type Command struct {
	// Build was given to Create. Step is any text; the first command with it makes the step's cgroup.
	Build, Step string

	// Args is the program and its arguments. A program without a slash is looked up in the PATH of Env.
	Args []string

	// Dir is the working directory, an absolute path in the file system as the step sees it.
	Dir string

	// Env is the whole environment, but for the marker (see [MarkerEnv]). Nothing of the runner's own is added.
	Env []string

	// Output takes stdout and stderr, in the order in which they were written, from one goroutine. It is not written to
	// after Run has returned. A Write that blocks holds the command up as a full pipe would. Nil drops everything.
	Output io.Writer
}

// Exit is how a command ended and what it used.
type Exit struct {
	// Code is the exit code; 128+n for a process ended by signal n, as shells have it.
	Code int

	// Signal is what ended the process, or zero.
	Signal syscall.Signal

	// OOM says that the kernel killed a process of the step for want of memory while the command ran.
	OOM bool

	// CPUSeconds is the processor time of the command and all it started; of commands of one step that run at once,
	// each counts the others' too. PeakMemory is the highest use in bytes of the whole step so far, not of this command.
	// Zero where the host cannot tell.
	CPUSeconds float64
	PeakMemory int64

	// Leftovers are the processes of the step that were still alive when the command had ended.
	Leftovers []leftover.Item
}

// MarkerEnv and KeptMarkerEnv name the variable, added to every command's environment, whose value is the runner's
// and the build's name (NAME/BUILD). Processes that left their cgroup, or never had one, are found by it. Those of a
// build with Keep carry the second, so that no later sweep takes them for a leak.
const (
	MarkerEnv     = "CC_CI_BUILD"
	KeptMarkerEnv = "CC_CI_KEPT_BUILD"
)

const (
	defaultName = "cc-ci"

	// defaultGrace is what `docker stop` gives a container.
	defaultGrace = 10 * time.Second

	// defaultOutputGrace covers `> >(tee log)`, which a shell does not wait for. Every command that leaves something
	// behind with its output open ends so much later, so it is short.
	defaultOutputGrace = time.Second
)

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = defaultName
	}
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if c.outputGrace == 0 {
		c.outputGrace = defaultOutputGrace
	}
	if c.Helper == "" {
		c.Helper = "/proc/self/exe"
	}
	return c
}

func itoa(n int) string { return strconv.Itoa(n) }
