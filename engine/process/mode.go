package process

import "fmt"

// Mode is a way to contain a build. Where cgroups can be had, the mode is named after them and after who the runner is:
// not being root costs the limits on hybrid hosts, and elsewhere depends on what the service manager delegates.
type Mode string

// The modes, best first. Hybrid hosts have version 1 controllers and an empty version 2 tree beside them: a build is
// killed through version 2 and limited through version 1. Hosts with version 1 only get Subreaper. ProcessGroup is for
// other systems than Linux, and nothing chooses it there.
const (
	CgroupRoot      Mode = "cgroup-v2-root"
	CgroupDelegated Mode = "cgroup-v2-delegated"
	HybridRoot      Mode = "hybrid-root"
	HybridDelegated Mode = "hybrid-delegated"
	Subreaper       Mode = "subreaper"
	ProcessGroup    Mode = "process-group"
)

// String is the mode's name as doctor and the metrics show it.
func (m Mode) String() string { return string(m) }

// Guarantee is one sentence for an operator: what holds in this mode. It says what is killed; whether a hostile step is
// held back is Report.Isolated, and depends on the steps' user.
func (m Mode) Guarantee() string {
	switch m {
	case CgroupRoot:
		return "each build is a cgroup that is killed whole, limited and counted"
	case CgroupDelegated:
		return "each build is a cgroup that is killed whole, limited and counted as far as controllers are delegated"
	case HybridRoot:
		return "each build is a cgroup that is killed whole; limits go through the version 1 controllers"
	case HybridDelegated:
		return "each build is a cgroup that is killed whole; limits cannot be enforced without root"
	case Subreaper:
		return "no cgroup can be made here: a build's processes are followed and killed one by one, what runs as " +
			"another user is reported but cannot be killed, and limits cannot be enforced"
	case ProcessGroup:
		return "only a command's own process group is killed; use this to try a pipeline, not to serve builds"
	}
	return "unknown mode"
}

// Attempt is one mode that was tried and why it was not chosen. Err is for an operator, who can often mend it.
type Attempt struct {
	Mode Mode
	Err  error
}

// Report is what Open found out about this host. The runner logs it at start, and `doctor` prints it.
type Report struct {
	Mode Mode

	// Attempts are the better modes that do not work here.
	Attempts []Attempt

	// Cgroup is the directory that holds the builds' cgroups; empty without cgroups.
	Cgroup string

	// Controllers are those of memory, pids and cpu that limit and count builds, of either version, in alphabetic order.
	Controllers []string

	// PrivateMounts says that steps get a /tmp of their own and see Binds.
	PrivateMounts bool

	// Isolated says that a hostile step can neither leave its cgroup nor read the runner's memory: the steps do not run
	// as root, and see the cgroups read-only.
	Isolated bool

	// Warnings are sentences about what does not hold here, each with what to do.
	Warnings []string
}

// Lines is the report for a log or a terminal.
func (r Report) Lines() []string {
	lines := []string{fmt.Sprintf("containment: %s: %s", r.Mode, r.Mode.Guarantee())}
	for _, a := range r.Attempts {
		lines = append(lines, fmt.Sprintf("not %s: %v", a.Mode, a.Err))
	}
	return append(lines, r.Warnings...)
}
