package swarm_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// listen serves a daemon on a socket until end is called.
func (d daemon) listen(t *testing.T, path string) (end func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	check(t, err)
	server := &http.Server{Handler: d}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	return func() {
		check(t, server.Close())
		<-done
	}
}

// TestCallsWaitForDocker makes a call that needs a look at an object first, while Docker is away: it waits for Docker to
// come back, as calls do that go straight through.
func TestCallsWaitForDocker(t *testing.T) {
	d := with("/containers/box/json", map[string]any{"Id": "id", "Name": "/box",
		"Config": map[string]any{"Labels": map[string]any{"cc-ci.build": "b1"}}})
	d["/containers/id/stop"] = "stopped"
	dir := t.TempDir()
	docker := filepath.Join(dir, "docker.sock")
	end := d.listen(t, docker)
	log := logrus.New()
	log.SetOutput(io.Discard)
	s, err := swarm.Open(t.Context(), swarm.Config{Mode: swarm.ModeProxy, Endpoint: "unix://" + docker, Policy: proxy.Own,
		TeardownTimeout: time.Minute, SocketDir: dir + "/run", LedgerDir: dir + "/ledger", Log: logrus.NewEntry(log)})
	check(t, err)
	socket, err := s.Attach(t.Context(), swarm.Build{Name: "b1"})
	check(t, err)
	end()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	answered := make(chan string, 1)
	go func() {
		resp, err := client.Post("http://docker/containers/box/stop", "", nil)
		if err != nil {
			answered <- err.Error()
			return
		}
		text, _ := io.ReadAll(resp.Body) // only for the test's message
		_ = resp.Body.Close()
		answered <- resp.Status + " " + string(text)
	}()
	var answer string
	select {
	case answer = <-answered:
		t.Error("the call did not wait: ", answer)
	case <-time.After(300 * time.Millisecond): // it waits; should it not have begun, it finds the daemon and tells nothing
	}
	end = d.listen(t, docker)
	if answer == "" {
		if answer = <-answered; answer != "200 OK \"stopped\"\n" {
			t.Error("the call ended with ", answer)
		}
	}
	_ = s.Detach(t.Context(), "b1") // closes the socket; that the daemon lists nothing is not asked here
	client.CloseIdleConnections()
	end()
	check(t, s.Close())
}
