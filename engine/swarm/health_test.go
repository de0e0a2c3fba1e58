package swarm_test

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
)

// daemon is a small Docker daemon that tells about its state and nothing else.
type daemon map[string]any

// serve answers on a socket below dir and returns the endpoint.
func (d daemon) serve(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "d.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: d}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return "unix://" + path
}

// ServeHTTP answers with the value of the path without its version, a list without what has not the label that is asked
// for; what has no value is not found.
func (d daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Content-Type", "application/json")
	path := strings.TrimPrefix(r.URL.Path, "/v1.41")
	v, ok := d[path]
	if path == "/_ping" {
		v, ok = "OK", true
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		v = map[string]string{"message": "no such thing: " + path}
	}
	var filters struct{ Label map[string]bool }
	_ = json.Unmarshal([]byte(r.URL.Query().Get("filters")), &filters) // none is no filter
	switch list := v.(type) {
	case []any:
		v = filtered(list, filters.Label)
	case map[string]any:
		if volumes, ok := list["Volumes"].([]any); ok {
			v = map[string]any{"Volumes": filtered(volumes, filters.Label)}
		}
	}
	_ = json.NewEncoder(w).Encode(v) // the test sees what it gets
}

// filtered are the objects of a list that have the labels, each given as a key or as key=value.
func filtered(list []any, labels map[string]bool) []any {
	return slices.DeleteFunc(slices.Clone(list), func(v any) bool {
		var o struct {
			Labels map[string]string
			Spec   struct{ Labels map[string]string }
		}
		text, _ := json.Marshal(v) // the test sees what it gets
		_ = json.Unmarshal(text, &o)
		for label := range labels {
			key, want, whole := strings.Cut(label, "=")
			got, has := o.Labels[key]
			if o.Spec.Labels != nil {
				got, has = o.Spec.Labels[key]
			}
			if !has || (whole && got != want) {
				return true
			}
		}
		return false
	})
}

// with is a healthy daemon, changed.
func with(path string, v any) daemon {
	d := daemon{"/info": state("active", true), "/networks/proxy": map[string]any{"Name": "proxy"}, "/tasks": []any{}}
	if d[path] = v; v == nil {
		delete(d, path)
	}
	return d
}

// state is what /info says of the Swarm.
func state(local string, manager bool) map[string]any {
	return map[string]any{"Swarm": map[string]any{"LocalNodeState": local, "ControlAvailable": manager}}
}

func TestHealth(t *testing.T) {
	task := func(state, desired string, age time.Duration) []any {
		return []any{map[string]any{"ID": "t", "ServiceID": "shop_app", "CreatedAt": time.Now().Add(-age).Format(time.RFC3339Nano),
			"DesiredState": desired, "Status": map[string]string{"State": state}}}
	}
	for _, c := range []struct {
		name, want, advice string
		daemon             daemon
	}{
		{"healthy", "", "", with("", 0)},
		{"a task that has just begun", "", "", with("/tasks", task("new", "running", time.Second))},
		{"not in a Swarm", "no-swarm", "docker swarm init", with("/info", state("inactive", false))},
		{"a worker", "no-manager", "docker node promote", with("/info", state("active", false))},
		{"locked", "locked", "docker swarm unlock", with("/info", state("locked", false))},
		{"live-restore", "live-restore", "daemon.json", with("/info", map[string]any{"LiveRestoreEnabled": true})},
		{"no proxy network", "no-network", "docker network create", with("/networks/proxy", nil)},
		{"a full network", "no-addresses", "shop_app", with("/tasks", task("new", "running", time.Minute))},
		{"a task that goes anyway", "", "", with("/tasks", task("new", "remove", time.Minute))},
		{"no leader", "no-leader", "managers", with("/tasks", nil)},
	} {
		t.Run(c.name, func(t *testing.T) { wantProblem(t, c.daemon.serve(t), c.want, c.advice) })
	}
	t.Run("no daemon", func(t *testing.T) {
		wantProblem(t, "unix://"+filepath.Join(t.TempDir(), "none.sock"), "unreachable", "start the daemon")
	})
}

// wantProblem asks for the health of a daemon.
func wantProblem(t *testing.T, endpoint, name, advice string) {
	t.Helper()
	s, err := swarm.Open(t.Context(), swarm.Config{Mode: swarm.ModeProxy, Endpoint: endpoint, Networks: []string{"proxy"}})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Health(t.Context())
	var p *swarm.Problem
	if got := errors.As(err, &p); (name != "") != got || (got && p.Name != name) || (got && !strings.Contains(p.Error(), advice)) {
		t.Errorf("health: %v, want %q with %q", err, name, advice)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
