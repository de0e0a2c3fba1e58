package main

import (
	"errors"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"
	"github.com/drone/runner-go/pipeline/reporter/history"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// The library's history keeps the oldest stages; after two days of work the dashboard showed none of today's.
func TestDashboardShowsTheNewest(t *testing.T) {
	var h ended
	for id := range int64(60) {
		h.add(runtime.StageEnd{Snapshot: &drone.Stage{ID: id}, Build: &drone.Build{}, Origin: &drone.Repo{}})
	}
	h.add(runtime.StageEnd{Snapshot: &drone.Stage{ID: 99}}) // nothing is known of it
	running := []runtime.Running{
		{Stage: &drone.Stage{ID: 60}, Build: &drone.Build{}, Origin: &drone.Repo{}},
		{Stage: &drone.Stage{ID: 61}},
	}
	var ids []int64
	for _, entry := range h.page(t.Context(), running).Entries() {
		ids = append(ids, entry.Stage.ID)
	}
	slices.Sort(ids)
	if len(ids) != maxEnded-1 || ids[0] != 37 || ids[len(ids)-1] != 60 {
		t.Errorf("the dashboard shows %v", ids)
	}
}

// A runner of a capacity above what the dashboard shows has one, too.
func TestDashboardOfManyRunning(t *testing.T) {
	var h ended
	h.add(runtime.StageEnd{Snapshot: &drone.Stage{ID: 99}, Build: &drone.Build{}, Origin: &drone.Repo{}})
	var running []runtime.Running
	for id := range int64(maxEnded + 3) {
		running = append(running, runtime.Running{Stage: &drone.Stage{ID: id}, Build: &drone.Build{}, Origin: &drone.Repo{}})
	}
	entries := h.page(t.Context(), running).Entries()
	if len(entries) == 0 || slices.ContainsFunc(entries, func(e *history.Entry) bool { return e.Stage.ID == 99 }) {
		t.Errorf("the dashboard shows %d stages", len(entries))
	}
}

// DRONE_UI_DISABLE had no effect.
func TestDashboardCanBeDisabled(t *testing.T) {
	server := runtimetest.NewServer(t)
	s := startDaemon(t, server, map[string]string{"DRONE_UI_PASSWORD": "canary-ui", "DRONE_UI_DISABLE": "true"})
	s.until("the endpoint answers", func() bool { status, _ := s.get("/healthz"); return status == http.StatusOK })
	if status, _ := s.get("/"); status != http.StatusNotFound {
		t.Errorf("the dashboard answers with %d", status)
	}
}

// Every step of a build reaches the endpoint on loopback. Connections that it opens and leaves must not take more than a
// fixed number of the runner's files, and give way.
func TestEndpointTakesSoManyConnections(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := bound(tcp)
	accepted := make(chan net.Conn, 3*maxClients)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for range 2 * maxClients {
		c, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }() // nothing was sent
	}
	var open []net.Conn
	for range maxClients {
		open = append(open, <-accepted)
	}
	select {
	case c := <-accepted:
		t.Fatalf("more than %d connections are open, %v", maxClients, errors.Join(c.Close(), listener.Close()))
	case <-time.After(100 * time.Millisecond): // nothing can come: it only gives a defect time to show
	}
	for _, c := range open {
		if err := errors.Join(c.Close(), ignoreClosed(c.Close())); err != nil {
			t.Error(err)
		}
	}
	for range maxClients {
		if err := (<-accepted).Close(); err != nil {
			t.Error(err)
		}
	}
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
	<-over
}

// ignoreClosed forgives a second close.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
