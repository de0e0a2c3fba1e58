//go:build linux

package swarmtest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/client"
)

// TestObjectsWithoutNames lists a container that the daemon is about to remove, which has no name any more.
func TestObjectsWithoutNames(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		answer := "[]"
		switch path := strings.TrimPrefix(r.URL.Path, "/v1.41"); path {
		case "/containers/json":
			answer = `[{"Id":"c1","Names":null},{"Id":"c2","Names":["/box"]}]`
		case "/volumes":
			answer = "{}"
		}
		_, _ = w.Write([]byte(answer)) // the test sees what it gets
	}))
	defer server.Close()
	docker, err := client.New(client.WithHost("tcp://" + server.Listener.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := (&Daemon{Client: docker}).Objects(t.Context())
	if err != nil || len(objects) != 2 || !objects["container c1"] || !objects["container box"] {
		t.Errorf("listed %v, %v", objects, err)
	}
	if err := docker.Close(); err != nil {
		t.Error(err)
	}
}
