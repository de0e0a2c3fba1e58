// Package bridgetest holds small Gitea and Drone servers for tests: real HTTP, the parts of the two APIs that the
// bridge uses, and scripted faults.
package bridgetest

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Fault is what happens to one request.
type Fault struct {
	Status  int    // answer with this status instead of handling the request
	Message string // what the answer says
	Drop    bool   // break the connection instead of answering
	After   bool   // handle the request first
}

// Faults decides about requests, in the order in which they come.
type Faults struct {
	mu     sync.Mutex
	script func(r *http.Request) Fault
	asked  []string
}

// Script installs a function that is called for each request, one at a time; nil ends the faults.
func (f *Faults) Script(script func(r *http.Request) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = script
}

// Asked returns method and address of every request so far.
func (f *Faults) Asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

func (f *Faults) next(r *http.Request) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.Method+" "+r.URL.String())
	if f.script == nil {
		return Fault{}
	}
	return f.script(r)
}

// wrap applies the faults to a handler.
func (f *Faults) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault := f.next(r)
		if fault == (Fault{}) {
			next.ServeHTTP(w, r)
			return
		}
		if fault.After {
			next.ServeHTTP(httptest.NewRecorder(), r)
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

// serve starts a server that ends with the test.
func serve(t testing.TB, handler http.Handler) string {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// Post sends a body with headers and returns the status.
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
