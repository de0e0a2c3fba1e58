// Package engine runs one stage of a build on this host: it sets the stage's directories and cgroup up, runs the
// steps' commands, tears everything down and proves that nothing is left.
package engine
