package drone_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/drone"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/safehttp"
)

func client(t *testing.T) (*bridgetest.Drone, *drone.Client) {
	server := bridgetest.NewDrone(t, "ci/tests")
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return server, drone.New(u, server.Token, "ci/tests", "main")
}

// TestFindPages looks for a build behind more than one page of newer ones.
func TestFindPages(t *testing.T) {
	_, c := client(t)
	since := time.Now().Add(-time.Minute)
	for i := range 250 {
		if _, err := c.Create(map[string]string{drone.ParamID: fmt.Sprintf("7-%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range []int64{0, 149, 150, 249} {
		b, err := c.Find(fmt.Sprintf("7-%d", i), since)
		if err != nil || len(b) != 1 || b[0].Number != i+1 {
			t.Errorf("found builds %v, want %d (%v)", b, i+1, err)
		}
	}
	if b, err := c.Find("7-1000", since); err != nil || len(b) != 0 {
		t.Errorf("found builds %v that nobody made (%v)", b, err)
	}
	if b, err := c.Find("7-0", time.Now().Add(time.Minute)); err != nil || len(b) != 0 {
		t.Errorf("found builds %v behind the first page of older builds (%v)", b, err)
	}
}

// TestTwins shows that of two builds with one id the older comes first.
func TestTwins(t *testing.T) {
	_, c := client(t)
	for range 2 {
		if _, err := c.Create(map[string]string{drone.ParamID: "7-1"}); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := c.Find("7-1", time.Now().Add(-time.Minute)); err != nil || len(b) != 2 || b[0].Number != 1 || b[1].Number != 2 {
		t.Errorf("found builds %v, want 1 and 2 (%v)", b, err)
	}
}

// TestPassing tells what Drone will say again from what may pass.
func TestPassing(t *testing.T) {
	cases := map[string]bool{"404 Not Found": false, "404 sql: no rows in result set": false, "404 ": true, "401 Unauthorized": true,
		"404 dial tcp: connection refused": true, "404 token is expired": true, "502 ": true, "500 database is locked": true}
	for answer, want := range cases {
		server, c := client(t)
		server.Script(func(*http.Request) (f bridgetest.Fault) {
			code, message, _ := strings.Cut(answer, " ")
			f.Message = message
			_, err := fmt.Sscan(code, &f.Status)
			if err != nil {
				t.Error(err)
			}
			return f
		})
		if _, err := c.Create(nil); err == nil || drone.Passing(err) != want {
			t.Errorf("%s: %v passes: %v, want %v", answer, err, drone.Passing(err), want)
		}
	}
}

func TestDone(t *testing.T) {
	for status, want := range map[string]bool{"": false, "pending": false, "running": false, "blocked": false, "waiting_on_dependencies": false,
		"success": true, "failure": true, "killed": true, "error": true, "declined": true, "skipped": true, "a later word": true} {
		if got := (drone.Build{Status: status}).Done(); got != want {
			t.Errorf("%q is done: %v, want %v", status, got, want)
		}
	}
}

func TestCreateCancelGet(t *testing.T) {
	server, c := client(t)
	server.Begin("null")
	if b, err := c.Create(nil); err != nil || b.Number != 0 {
		t.Errorf("null became build %d (%v)", b.Number, err)
	}
	server.Begin("pending")
	b, err := c.Create(map[string]string{"branch": "evil", "commit": "evil"})
	if err != nil || b.Number != 1 || server.Builds()[0].Target != "main" {
		t.Errorf("build %+v on branch %q (%v)", b, server.Builds()[0].Target, err)
	}
	for range 2 {
		if err := c.Cancel(1); err != nil {
			t.Error(err)
		}
	}
	if b, err = c.Get(1); err != nil || b.Status != "killed" {
		t.Errorf("build is %s (%v)", b.Status, err)
	}
	if _, err = c.Get(9); safehttp.Status(err) != http.StatusNotFound {
		t.Errorf("build 9: %v, want 404", err)
	}
	server.Token = "another"
	if _, err = c.Check(); safehttp.Status(err) != http.StatusUnauthorized || strings.Contains(err.Error(), "canary") {
		t.Errorf("refused token: %v", err)
	}
}
