package crash

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// moment is where a call of the runner is on its way.
type moment string

const (
	before moment = "before" // the server has not seen it
	middle moment = "in"     // the server has seen a part of its body
	after  moment = "after"  // the server has carried it out; the runner does not know
)

// wire stands between a runner and its server. It shows each call to a tap, and it can be cut.
type wire struct {
	server  *httptest.Server
	forward *httputil.ReverseProxy

	mu  sync.Mutex
	cut bool
	tap func(call string, at moment) (lost bool)

	details [][]byte // the server's answers that hold secrets
}

func newWire(t *testing.T, target string) *wire {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{}
	w.forward = &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		ModifyResponse: w.answered,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:       log.New(io.Discard, "", 0),
	}
	w.server = httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
	w.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	w.server.Start()
	t.Cleanup(func() {
		w.server.CloseClientConnections()
		w.server.Close()
	})
	return w
}

// host is the wire's address as runners want it.
func (w *wire) host() string { return strings.TrimPrefix(w.server.URL, "http://") }

// watch sets the tap: it is called at each moment of each call and says whether the call ends there.
func (w *wire) watch(tap func(call string, at moment) (lost bool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tap = tap
}

// sever cuts every connection and lets none be made until heal.
func (w *wire) sever() {
	w.mu.Lock()
	w.cut = true
	w.mu.Unlock()
	w.server.CloseClientConnections()
}

func (w *wire) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = false
}

func (w *wire) severed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut
}

// lost asks the tap.
func (w *wire) lost(call string, at moment) bool {
	w.mu.Lock()
	tap := w.tap
	w.mu.Unlock()
	return tap != nil && tap(call, at)
}

// callHeader carries a call's name from the request to its answer; the server ignores it.
const callHeader = "X-Crash-Call"

func (w *wire) serve(out http.ResponseWriter, r *http.Request) {
	call := nameOf(r)
	if w.severed() || w.lost(call, before) {
		panic(http.ErrAbortHandler) // the way net/http offers to cut a connection
	}
	r.Header.Set(callHeader, call)
	part := r.ContentLength / 2
	if r.ContentLength < 0 {
		part = 64 << 10 // the length is not known beforehand
	}
	if part > 0 {
		r.Body = &halfway{ReadCloser: r.Body, left: part, reached: func() bool { return w.lost(call, middle) }}
	}
	w.forward.ServeHTTP(out, r)
}

// answered is called when the server has answered.
func (w *wire) answered(response *http.Response) error {
	call := response.Request.Header.Get(callHeader)
	if w.lost(call, after) {
		return http.ErrAbortHandler
	}
	if call != "detail" {
		return nil
	}
	data, err := io.ReadAll(response.Body)
	response.Body = io.NopCloser(bytes.NewReader(data))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.details = append(w.details, data)
	return err
}

// halfway tells when a part of a body has been read.
type halfway struct {
	io.ReadCloser
	left    int64
	reached func() (lost bool)
}

func (h *halfway) Read(p []byte) (int, error) {
	if h.left > 0 && int64(len(p)) > h.left {
		p = p[:h.left]
	}
	n, err := h.ReadCloser.Read(p)
	if h.left > 0 {
		if h.left -= int64(n); h.left <= 0 && h.reached() {
			return 0, io.ErrUnexpectedEOF
		}
	}
	return n, err
}

var rpcCall = regexp.MustCompile(`^(\w+) /rpc/v2/(\w+)(/\d+)?(?:/logs)?(?:/(\w+))?$`)

// nameOf gives a call of the runner a short name: poll, accept, detail, register, beat, end, "begin STEP",
// "finish STEP", batch, upload, watch, ping.
func nameOf(r *http.Request) string {
	parts := rpcCall.FindStringSubmatch(r.Method + " " + r.URL.Path)
	if parts == nil {
		return r.Method + " " + r.URL.Path
	}
	method, noun, id, verb := parts[1], parts[2], parts[3], parts[4]
	switch {
	case verb != "":
		return verb
	case noun == "stage" && id == "":
		return "poll"
	case noun == "stage" && method == http.MethodPost:
		return "accept"
	case noun == "stage" && method == http.MethodGet:
		return "detail"
	case method == http.MethodPut:
		return reportOf(r, noun)
	}
	return noun
}

// reportOf names a report by what it says.
func reportOf(r *http.Request, noun string) string {
	data, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(data))
	var said struct {
		Name, Status string
		Steps        []any
	}
	if err != nil || json.Unmarshal(data, &said) != nil {
		return "unreadable"
	}
	running := said.Status == "running" || said.Status == "pending"
	switch {
	case noun == "step" && running:
		return "begin " + said.Name
	case noun == "step":
		return "finish " + said.Name
	case running && len(said.Steps) > 0:
		return "register"
	case running:
		return "beat"
	}
	return "end"
}
