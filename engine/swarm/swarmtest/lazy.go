//go:build linux

// Package swarmtest gives tests a real one-node Swarm: a Docker daemon of their own, on a private socket and data
// root, with a small image, started when the first test asks and stopped when the test binary ends.
//
// Nothing of it is a fake: the daemon is Debian's dockerd, so that refusals, delays and leaks are those of production.
// Two things differ. There is no registry, so images are made on the spot; and where the kernel has no IPVS, services
// have no virtual addresses, so that tests reach tasks by their own addresses or by ports in host mode.
//
// lazy.go is what tests call; daemon.go starts a daemon, and host.go removes what a killed run left; cluster.go makes a
// Swarm of several daemons; image.go makes the images; objects.go lists what is on a daemon. All of it needs root.
package swarmtest

import (
	"os"
	"sync"
	"testing"
)

// Variable asks for the tests that need Docker, by the value 1; without it they are skipped. They need root and change the
// host for as long as they run, which no plain `go test ./...` should.
const Variable = "CC_CI_TEST_DOCKER"

// FullVariable asks for the long forms of repeated tests, by the value 1 as well; see Count.
const FullVariable = "CC_CI_TEST_FULL"

// Lazy starts a Daemon on first use. A test package keeps one, calls Need in its tests and Stop after m.Run. To start one
// takes some seconds, so the tests of a package share it: each removes what it made. The zero value is ready.
type Lazy struct {
	once   sync.Once
	daemon *Daemon
	err    error // of the only start; a second one would fail as well, and cost each test the wait
}

// Need returns the package's daemon. It skips the test unless Variable is set, and fails it when Docker was asked
// for and cannot be had: a test that was asked for must not pass by not running.
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

// Stop ends the daemon, if one was started, and removes everything it wrote. TestMain calls it, for a test's own cleanup
// would end the daemon before the next test.
func (l *Lazy) Stop() error {
	if l.daemon == nil {
		return nil
	}
	return l.daemon.Stop()
}

// Count is how often a repeated test runs: the short count, or the full one when FullVariable is set. The short one is for
// every run of the tests, so it is about a tenth.
func Count(short, full int) int {
	if os.Getenv(FullVariable) == "1" {
		return full
	}
	return short
}
