package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// manager stands where systemd does: it collects what the daemon says.
type manager struct {
	// environ makes a daemon believe that systemd has started it.
	environ []string

	mu   sync.Mutex
	said []string
}

// newManager listens until the test's end.
func newManager(t *testing.T, watchdog time.Duration) *manager {
	t.Helper()
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{environ: []string{"NOTIFY_SOCKET=" + socket.LocalAddr().String(), fmt.Sprint("WATCHDOG_USEC=", watchdog.Microseconds())}}
	var reading sync.WaitGroup
	reading.Go(func() {
		message := make([]byte, 4096)
		for {
			n, err := socket.Read(message)
			if err != nil {
				return // closed at the test's end
			}
			m.mu.Lock()
			m.said = append(m.said, string(message[:n]))
			m.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = socket.Close() // the test is over
		reading.Wait()
	})
	return m
}

// count says how many messages hold a text.
func (m *manager) count(text string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, said := range m.said {
		if strings.Contains(said, text) {
			n++
		}
	}
	return n
}

// The daemon is ready without its server, keeps the watchdog fed, says how it stands, and tells a drain from a stop.
func TestSystemdIsTold(t *testing.T) {
	t.Parallel()
	m := newManager(t, 6*time.Second)
	server := runtimetest.NewServer(t, runtimetest.Poll(time.Second))
	server.Down()
	s := startDaemon(t, server, nil, m.environ...)
	told := func(text string) {
		t.Helper()
		s.until("systemd is told "+text, func() bool { return m.count(text) > 0 })
	}
	told("READY=1")
	told("STATUS=the server ")
	server.Heal()
	told("STATUS=0 of 2 builds running")
	job := server.Enqueue(runtimetest.Job{Config: yaml("echo begun; sleep 1000")})
	s.until("the step runs", s.begun(job, "begun"))
	told("STATUS=1 of 2 builds running")
	s.signal(syscall.SIGUSR2)
	told("STATUS=draining; 1 of 2 builds running")
	fed := m.count("WATCHDOG=1")
	s.until("the watchdog is fed", func() bool { return m.count("WATCHDOG=1") > fed+1 })
	if m.count("STOPPING=1") > 0 {
		t.Error("a drain says that the service is stopping")
	}
	s.signal(syscall.SIGTERM)
	told("STOPPING=1\nEXTEND_TIMEOUT_USEC=37") // an hour's drain and a little more than two minutes of teardown
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if ready := m.count("READY=1"); ready != 1 {
		t.Errorf("ready is said %d times", ready)
	}
}
