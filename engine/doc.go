// Package engine runs one stage of a build on this host: it sets the stage's directories and cgroup up, runs the
// steps' commands, tears everything down and proves that nothing is left.
//
// Package runtime calls Setup, then Run for each step in the order of their dependencies, and Destroy on every way out.
// Which steps run, in which order and what their results mean for the stage is runtime's; what is to run is in the Spec,
// which engine/compiler makes (spec.go, the place to begin). What can be left behind is known to the Reapers
// (reaper.go): engine/process, engine/swarm and the Workspaces here. Nothing is kept on disk but a lock file for each
// build that runs (lock.go) and the last teardown reports (report.go).
package engine
