package gitea

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// forge is a server that knows hooks only, with the traps of the real one.
type forge struct {
	mu    sync.Mutex
	next  int64
	hooks map[string][]map[string]any
	log   []string
}

func newForge(t *testing.T) (*forge, *Client) {
	f := &forge{hooks: map[string][]map[string]any{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/orgs/{org}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("org") != "org" {
			missing(w, r)
			return
		}
		answer(w, 200, map[string]any{"id": 1})
	})
	mux.HandleFunc("GET /api/v1/orgs/{org}/repos", missing)
	mux.HandleFunc("GET /api/v1/users/{user}/repos", func(w http.ResponseWriter, r *http.Request) {
		answer(w, 200, []map[string]any{{"id": 1, "full_name": "ann/one"}, {"id": 2, "full_name": "ann/two"}})
	})
	mux.HandleFunc("/api/v1/", f.serve)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(u, "token", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return f, c
}

func answer(w http.ResponseWriter, code int, value any) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(value) // a client that is gone needs no answer
}

// missing answers as Gitea does, in JSON.
func missing(w http.ResponseWriter, _ *http.Request) {
	answer(w, 404, map[string]string{"message": "not found"})
}

// serve keeps hooks by the address before "/hooks".
func (f *forge) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	place, id, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/api/v1/"), "/hooks")
	if !ok {
		missing(w, r)
		return
	}
	switch r.Method {
	case "GET":
		answer(w, 200, f.hooks[place])
	case "POST":
		var hook map[string]any
		if json.NewDecoder(r.Body).Decode(&hook) != nil {
			answer(w, 422, nil)
			return
		}
		f.next++
		hook["id"] = f.next
		if events := fmt.Sprint(hook["events"]); events == "[pull_request_comment pull_request_only pull_request_sync]" {
			hook["events"] = []string{"pull_request", "pull_request_comment", "pull_request_sync"}
		}
		f.hooks[place] = append(f.hooks[place], hook)
		f.log = append(f.log, "create "+place)
		answer(w, 201, hook)
	case "DELETE":
		f.hooks[place] = slices.DeleteFunc(f.hooks[place], func(h map[string]any) bool {
			return fmt.Sprint("/", h["id"]) == id
		})
		f.log = append(f.log, "delete "+place)
		w.WriteHeader(204)
	default: // PATCH would keep the old secret and forget the events
		w.WriteHeader(500)
	}
}

func TestRegister(t *testing.T) {
	f, c := newForge(t)
	hook := Hook{URL: "https://bridge/hook", Secret: "secret"}
	step := func(entry string, rotate bool, want ...string) {
		t.Helper()
		got, err := c.Register(entry, hook, rotate)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("register %s: %q, want %q (%v)", entry, got, want, err)
		}
	}
	step("org/app", false, "org/app: no hook; repaired")
	step("org/app", false, "org/app: unchanged")
	step("org/app", true, "org/app: secret rotated")
	if want := []string{"create repos/org/app", "create repos/org/app", "delete repos/org/app"}; !slices.Equal(f.log, want) {
		t.Errorf("calls %q, want %q: the new hook comes first", f.log, want)
	}
	step("org", false, "org: no hook; repaired")
	step("ann", false, "ann/one: no hook; repaired", "ann/two: no hook; repaired")

	for place, hooks := range f.hooks {
		if len(hooks) != 1 || hooks[0]["active"] != true || fmt.Sprint(hooks[0]["config"]) != "map[content_type:json secret:secret url:https://bridge/hook]" {
			t.Errorf("%s has the hooks %v", place, hooks)
		}
	}
}

func TestRegisterRepairsDrift(t *testing.T) {
	f, c := newForge(t)
	hook := Hook{URL: "https://bridge/hook", Secret: "secret"}
	config := map[string]any{"url": hook.URL, "content_type": "json"}
	right := []string{"pull_request", "pull_request_comment", "pull_request_sync"}
	foreign := map[string]any{"id": 50, "active": true, "events": []string{"push"}, "config": map[string]any{"url": "https://other"}}
	cases := []struct {
		drift string
		hooks []map[string]any
	}{
		{"hook is not active", []map[string]any{{"id": 1, "active": false, "events": right, "config": config}}},
		{"event pull_request_sync is missing", []map[string]any{{"id": 1, "active": true, "events": right[:2], "config": config}}},
		{"content type is form", []map[string]any{{"id": 1, "active": true, "events": right, "config": map[string]any{"url": hook.URL, "content_type": "form"}}}},
		{"2 hooks", []map[string]any{{"id": 1, "active": true, "events": right, "config": config}, {"id": 2, "active": true, "events": right, "config": config}}},
	}
	f.next = 100
	for _, c2 := range cases {
		f.hooks["repos/org/app"] = append(c2.hooks, foreign)
		drift, err := c.Drift("org/app", hook)
		if err != nil || strings.Join(drift["org/app"], ", ") != c2.drift {
			t.Errorf("drift %v, want %s (%v)", drift, c2.drift, err)
		}
		if got, err := c.Register("org/app", hook, false); err != nil || got[0] != "org/app: "+c2.drift+"; repaired" {
			t.Errorf("%s: %q (%v)", c2.drift, got, err)
		}
		if got, err := c.Register("org/app", hook, false); err != nil || got[0] != "org/app: unchanged" {
			t.Errorf("%s: then %q (%v)", c2.drift, got, err)
		}
		left := f.hooks["repos/org/app"]
		if len(left) != 2 || !slices.ContainsFunc(left, func(h map[string]any) bool { return h["id"] == 50 }) {
			t.Errorf("%s: hooks left %v, want the new one and the foreign one", c2.drift, left)
		}
	}
}
