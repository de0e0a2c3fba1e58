//go:build linux

// Package swarmtest gives tests a real one-node Swarm: a Docker daemon of their own, on a private socket and data
// root, with a small image, started when the first test asks and stopped when the test binary ends.
package swarmtest

import (
	"os"
	"sync"
	"testing"
)

// Variable asks for the tests that need Docker; without it they are skipped.
const Variable = "CC_CI_TEST_DOCKER"

// FullVariable asks for the long forms of repeated tests.
const FullVariable = "CC_CI_TEST_FULL"

// Lazy starts a Daemon on first use. A test package keeps one, calls Need in its tests and Stop after m.Run.
type Lazy struct {
	once   sync.Once
	daemon *Daemon
	err    error
}

// Need returns the package's daemon. It skips the test unless Variable is set, and fails it when Docker was asked
// for and cannot be had.
func (l *Lazy) Need(t testing.TB) *Daemon {
	t.Helper()
	if os.Getenv(Variable) != "1" {
		t.Skip("needs a Docker daemon: set " + Variable + "=1 (as root) to run it")
	}
	l.once.Do(func() { l.daemon, l.err = Start(t.Context()) })
	if l.err != nil {
		t.Fatal("start a Docker daemon for tests: ", l.err)
	}
	return l.daemon
}

// Stop ends the daemon, if one was started, and removes everything it wrote.
func (l *Lazy) Stop() error {
	if l.daemon == nil {
		return nil
	}
	return l.daemon.Stop()
}

// Count is how often a repeated test runs: the short count, or the full one when FullVariable is set.
func Count(short, full int) int {
	if os.Getenv(FullVariable) == "1" {
		return full
	}
	return short
}
