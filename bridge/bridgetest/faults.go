// Package bridgetest holds small Gitea and Drone servers for tests: real HTTP, the parts of the two APIs that the
// bridge uses, and scripted faults.
//
// gitea.go is what a test does to the forge and sees of it, gitea_api.go what the bridge asks of it; drone.go and
// hint.go are the same for the CI server. Where the real servers are odd, these are odd in the same way, and the
// comments name it. They are smaller in that they know one repository and one bot, ask for a token but for no scope,
// answer at once, and send no hooks: a test posts what Comment, PullBody and Hint give it. The bridge's tests in
// scripts/testbed have the real ones.
//
// Everything may be used from several goroutines, and ends with its test.
package bridgetest

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Fault is what happens to one request. The zero Fault is none: the request is handled. One with neither a Status nor
// Drop breaks the connection too.
type Fault struct {
	Status  int    // answer with this status instead of handling the request
	Message string // what the answer says
	Proxy   bool   // the answer is one of a proxy without a server: a few words, no JSON
	Drop    bool   // break the connection instead of answering
	After   bool   // handle the request first: the answer is lost, not the request

	Hold <-chan struct{} // handle the request once this is closed
}

// Faults decides about requests, in the order in which they come. Both servers embed one.
type Faults struct {
	mu     sync.Mutex
	script func(r *http.Request) Fault
	asked  []string
}

// Script installs a function that is called for each request, one at a time; nil ends the faults. The function runs
// before the server's own lock is taken, so it may do things to either server; it must not call Script or Asked of
// the same one.
func (f *Faults) Script(script func(r *http.Request) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = script
}

// Asked returns method and address of every request so far, with its query, also of those that met a fault.
func (f *Faults) Asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

// next notes a request and asks the script about it.
func (f *Faults) next(r *http.Request) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.Method+" "+r.URL.String())
	if f.script == nil {
		return Fault{}
	}
	return f.script(r)
}

// wrap applies the faults to a handler. A request that meets none passes untouched. They come before the token is
// looked at, so a fault can stand for a proxy or for a network as well as for the server.
func (f *Faults) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault := f.next(r)
		if fault.Hold != nil {
			select {
			case <-fault.Hold:
			case <-r.Context().Done():
			}
			fault.Hold = nil
		}
		if fault == (Fault{}) {
			next.ServeHTTP(w, r)
			return
		}
		// The handler writes its answer to nobody: what it did stays done.
		if fault.After {
			next.ServeHTTP(httptest.NewRecorder(), r)
		}
		if fault.Proxy {
			http.Error(w, "404 page not found", fault.Status)
			return
		}
		if fault.Status != 0 {
			reply(w, fault.Status, map[string]string{"message": fault.Message})
			return
		}
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close() // it is to look broken
		}
	})
}

// serve starts a server on a free port of the loopback address that ends with the test.
func serve(t testing.TB, handler http.Handler) string {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// Post sends a body with headers and returns the status. It fails only if there was no answer.
func Post(url string, body []byte, header http.Header) (int, error) {
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header = header.Clone()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
