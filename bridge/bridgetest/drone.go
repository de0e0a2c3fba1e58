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

// Drone is a CI server with one repository.
type Drone struct {
	URL   string
	Token string
	Faults

	mu     sync.Mutex
	builds []*sdk.Build
	first  string // status of new builds
}

// NewDrone starts a server for the repository at owner/name; new builds are pending.
func NewDrone(t testing.TB, repo string) *Drone {
	d := &Drone{Token: "drone-token-canary", first: sdk.StatusPending}
	base := "/api/repos/" + repo
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/user", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, sdk.User{Login: "bot"}) })
	mux.HandleFunc("GET "+base, func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, map[string]any{"active": true, "slug": repo, "permissions": map[string]bool{"write": true}})
	})
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

// Begin makes new builds start in the given status.
func (d *Drone) Begin(status string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.first = status
}

// Builds returns a copy of every build.
func (d *Drone) Builds() []sdk.Build {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []sdk.Build
	for _, b := range d.builds {
		all = append(all, *b)
	}
	return all
}

// Set changes a build's status; a status that ends it sets its times and its one step.
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

func (d *Drone) find(w http.ResponseWriter, r *http.Request) *sdk.Build {
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil || n < 1 || n > len(d.builds) {
		reply(w, 404, map[string]string{"message": "Not Found"})
		return nil
	}
	return d.builds[n-1]
}

func (d *Drone) get(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.find(w, r); b != nil {
		reply(w, 200, b)
	}
}

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

// reply writes a JSON answer.
func reply(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(value) // a client that is gone needs no answer
}
