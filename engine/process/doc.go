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
package process
