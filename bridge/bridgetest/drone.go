package bridgetest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	sdk "github.com/drone/drone-go/drone"
)

// Drone is a CI server with one repository. Builds count from 1, and lists and looks show them as they are kept. It
// runs nothing: a build stays as it began until Set or the bridge's cancel changes it. It has no rights but the
// token's, and sends no webhook.
type Drone struct {
	URL   string
	Token string
	Faults

	mu     sync.Mutex
	builds []*sdk.Build
	first  string // status of new builds
}

// NewDrone starts a server for the repository at owner/name; new builds are pending. The token's account is no
// administrator and may write. Whatever it does not serve is answered with 404.
func NewDrone(t testing.TB, repo string) *Drone {
	d := &Drone{Token: "drone-token-canary", first: sdk.StatusPending}
	base := "/api/repos/" + repo
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/user", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, sdk.User{Login: "bot"}) })
	mux.HandleFunc("GET "+base, func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]any{"active": true, "slug": repo, "permissions": map[string]bool{"write": true}})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { reply(w, 404, map[string]string{"message": "Not Found"}) })
	mux.HandleFunc("POST "+base+"/builds", d.create)
	mux.HandleFunc("GET "+base+"/builds", d.list)
	mux.HandleFunc("GET "+base+"/builds/{n}", d.get)
	mux.HandleFunc("DELETE "+base+"/builds/{n}", d.cancel)
	d.URL = serve(t, d.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+d.Token {
			reply(w, 401, map[string]string{"message": "Unauthorized"})
			return
		}
		mux.ServeHTTP(w, r)
	})))
	return d
}

// Begin makes new builds start in the given status. Three are special, as they are at Drone. "null" is no status: no
// pipeline takes the event, so the answer is 200 and null and nothing is made. "error" is a fault of the YAML: a
// build that has ended, without parameters, so it cannot be found by them. "success" and "failure" have ended with
// the first look.
func (d *Drone) Begin(status string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.first = status
}

// Builds returns a copy of every build, the oldest first; build n is at n-1. Stages are shared with the server.
func (d *Drone) Builds() []sdk.Build {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []sdk.Build
	for _, b := range d.builds {
		all = append(all, *b)
	}
	return all
}

// Set changes a build's status; a status that ends it sets its times and its one step. It then has taken 3m12s, and the
// step that has the build's status is test/run.
func (d *Drone) Set(number int64, status string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.builds[number-1]
	b.Status = status
	switch status {
	case sdk.StatusPending, sdk.StatusRunning, sdk.StatusBlocked:
		return
	}
	b.Started, b.Finished = b.Created, b.Created+192
	b.Stages = []*sdk.Stage{{Name: "test", Status: status, Steps: []*sdk.Step{
		{Name: "fetch", Status: sdk.StatusPassing}, {Name: "run", Status: status}}}}
}

// create makes a build of the query. Parameters are its pairs but for the three that Drone keeps for itself, and of
// several values the first counts. A body is not looked at, nor whether the branch exists.
func (d *Drone) create(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := &sdk.Build{ID: int64(len(d.builds) + 1), Number: int64(len(d.builds) + 1), Status: d.first, Event: "custom",
		Created: time.Now().Unix(), Params: map[string]string{}}
	for key, values := range r.URL.Query() {
		if key != "branch" && key != "commit" && key != "access_token" {
			b.Params[key] = values[0]
		}
	}
	b.Target = r.URL.Query().Get("branch")
	switch d.first {
	case "null":
		reply(w, 200, nil)
		return
	case sdk.StatusError: // an error of the YAML: the build has neither parameters nor stages
		b.Params, b.Error, b.Finished = nil, "yaml: line 3: `did` not find @expected", b.Created
	}
	d.builds = append(d.builds, b)
	reply(w, 200, b)
	if d.first == sdk.StatusPassing || d.first == sdk.StatusFailing {
		b.Started, b.Finished = b.Created, b.Created+1
	}
}

// list shows a page of builds, newest first and at most 100, with their parameters. There is no way to search.
func (d *Drone) list(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))     // 0 is the first page
	size, _ := strconv.Atoi(r.URL.Query().Get("per_page")) // 0 lists nothing
	page, size = max(page, 1), min(size, 100)
	var got []*sdk.Build
	for i := len(d.builds) - 1 - (page-1)*size; i >= 0 && len(got) < size; i-- {
		got = append(got, d.builds[i])
	}
	reply(w, 200, got)
}

// find returns the build that the address names, or answers 404. The caller holds the lock.
func (d *Drone) find(w http.ResponseWriter, r *http.Request) *sdk.Build {
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil || n < 1 || n > len(d.builds) {
		reply(w, 404, map[string]string{"message": "Not Found"})
		return nil
	}
	return d.builds[n-1]
}

// get shows one build with its stages.
func (d *Drone) get(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.find(w, r); b != nil {
		reply(w, 200, b)
	}
}

// cancel kills a build and is answered with 200 also when it had ended, which then stays as it was.
func (d *Drone) cancel(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.find(w, r)
	if b == nil {
		return
	}
	if b.Finished == 0 {
		b.Status, b.Finished = sdk.StatusKilled, time.Now().Unix()
	}
	reply(w, 200, b)
}

// reply writes a JSON answer; both servers' errors are objects with a message.
func reply(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(value) // a client that is gone needs no answer
}
