package bridge_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"
)

// tap stands between Gitea and a bridge: it keeps every hook and can hold hooks back.
type tap struct {
	url     string
	forward *httputil.ReverseProxy

	mu    sync.Mutex
	held  bool
	hooks []hook
}

// hook is one delivery.
type hook struct {
	at     time.Time
	header http.Header
	body   []byte
}

func newTap(t *testing.T, target string) *tap {
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{forward: httputil.NewSingleHostReverseProxy(to)}
	p.forward.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

// ServeHTTP keeps a hook and passes it on, unless hooks are held back.
func (p *tap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // Gitea is gone
	}
	p.mu.Lock()
	p.hooks = append(p.hooks, hook{at, r.Header.Clone(), body})
	held := p.held
	p.mu.Unlock()
	if held {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	p.forward.ServeHTTP(w, r)
}

// hold makes the tap keep hooks to itself, or pass them on again.
func (p *tap) hold(held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = held
}

// find returns the first hook whose body contains the text.
func (p *tap) find(text string) (hook, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hooks {
		if bytes.Contains(h.body, []byte(text)) {
			return h, true
		}
	}
	return hook{}, false
}

// send delivers a hook to a bridge once more and returns the answer's status.
func (h hook) send(target, delivery string) (int, error) {
	req, err := http.NewRequest("POST", target, bytes.NewReader(h.body))
	if err != nil {
		return 0, err
	}
	req.Header = h.header.Clone()
	req.Header.Set("X-Gitea-Delivery", delivery)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
