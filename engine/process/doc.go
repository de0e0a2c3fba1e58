// Package process runs the commands of builds so that nothing they start can outlive the build.
//
// On Linux each build is a cgroup and each of its steps a child cgroup. A command is born inside its step's cgroup,
// so that no daemon, double fork or cleared environment gets it out of sight: what is in the cgroup is listed,
// counted, limited and killed whole. Where no cgroup may be made, a launcher per command is the subreaper of
// everything that the command starts, and a scan of /proc finds the rest by a marker in the environment.
// [Host.Report] says which of the two this host allows and what it guarantees.
//
// Between the runner and the command stands a stub: the runner's own binary, called with a hidden first argument
// (see [Main]). It receives what to do over an inherited file, never over its environment, makes the mount
// namespace, drops to the build's user and becomes the command.
//
// A build goes through Create, then [Host.Run] and EndStep for each of its steps, and Teardown; package engine calls
// them in this order. Builds, Teardown and Remaining work from what the host shows, not from memory, so that a runner
// that was restarted can end what the one before it had started. What a build makes through a Docker daemon is the
// daemon's child and none of a step's: package engine/swarm removes that.
//
// To read: process.go has the types, host_linux.go opens a Host (hierarchy, tree and cgroup are about cgroups,
// report about what the host lacks), run_linux.go starts a command and waits for it, stub_linux.go and
// launcher_linux.go are the other side of the fork, reaper_linux.go ends steps and builds, strays_linux.go and
// sweep_linux.go end what is in no cgroup. Other systems get process groups only: host_other.go.
package process
