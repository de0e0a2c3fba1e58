package testbed

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
)

// Action is what a Proxy does with a request.
type Action int

// The actions. The first is the zero value: the request and its reply pass.
const (
	Pass      Action = iota
	Refuse           // cut the connection; the server never sees the request
	DropReply        // let the server do it, then cut the connection: the reply is lost
	Hang             // keep the request, unseen by the server, until the client gives up or the Proxy stops
	HangReply        // let the server do it, then keep the reply back
)

// Proxy stands between a client and a server on loopback and breaks what it is told to break. The header Host stays
// what the client sent. Requests and replies are passed on as they come, not kept. It knows whole requests only: a
// connection cannot be cut in the middle of a reply.
type Proxy struct {
	server   *http.Server
	listener net.Listener
	forward  *httputil.ReverseProxy
	stopped  chan struct{}
	// served is the server's goroutine; those of requests are the server's own.
	served sync.WaitGroup

	// mu guards what follows.
	mu       sync.Mutex
	rule     func(*http.Request) Action
	requests []string
}

// StartProxy listens on a free loopback port and passes everything on to target, a URL, until a rule says otherwise.
func StartProxy(target string) (*Proxy, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: listener, stopped: make(chan struct{})}
	p.forward = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		FlushInterval: -1, // event streams pass line by line
		ErrorLog:      log.New(io.Discard, "", 0),
	}
	p.server = &http.Server{Handler: http.HandlerFunc(p.serve), ErrorLog: log.New(io.Discard, "", 0)}
	p.served.Go(func() {
		// Serve always returns an error; after Stop it is ErrServerClosed.
		_ = p.server.Serve(listener)
	})
	return p, nil
}

// URL is the proxy's address, without a slash at its end.
func (p *Proxy) URL() string { return "http://" + p.Host() }

// Host is the proxy's address as host:port.
func (p *Proxy) Host() string { return p.listener.Addr().String() }

// Rule sets what happens to each request from now on; nil lets everything pass. Requests that are under way stay under
// the rule with which they came. The rule may be called concurrently, and decides before anything is passed on.
func (p *Proxy) Rule(rule func(*http.Request) Action) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rule = rule
}

// Requests lists all requests so far as "METHOD /path", in the order of their arrival, refused ones too. It keeps them
// all: a Proxy is for one test.
func (p *Proxy) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.requests...)
}

// Stop cuts every connection, also those that are held, and closes the port. Call it once.
func (p *Proxy) Stop() error {
	close(p.stopped)
	err := p.server.Close()
	p.served.Wait()
	return err
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.requests = append(p.requests, r.Method+" "+r.URL.Path)
	rule := p.rule
	p.mu.Unlock()
	action := Pass
	if rule != nil {
		action = rule(r)
	}
	switch action {
	case Pass:
		p.forward.ServeHTTP(w, r)
		return
	case DropReply:
		p.forward.ServeHTTP(&lostReply{header: http.Header{}}, r)
	case Hang:
		p.hold(r)
	case HangReply:
		p.forward.ServeHTTP(&lostReply{header: http.Header{}}, r)
		p.hold(r)
	}
	panic(http.ErrAbortHandler) // the way net/http offers to cut a connection
}

// hold waits until the client or the proxy gives up. It is why Stop closes stopped before the server.
func (p *Proxy) hold(r *http.Request) {
	// The server notices a client that goes away only once the body has been read.
	_, err := io.Copy(io.Discard, r.Body)
	if err != nil && !errors.Is(err, http.ErrBodyReadAfterClose) {
		return
	}
	select {
	case <-r.Context().Done():
	case <-p.stopped:
	}
}

// lostReply takes a reply and throws it away, so that the server comes to its end as if somebody read it.
type lostReply struct{ header http.Header }

func (l *lostReply) Header() http.Header            { return l.header }
func (l *lostReply) Write(data []byte) (int, error) { return len(data), nil }
func (l *lostReply) WriteHeader(int)                {}
