package runtimetest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// deadline is how long the helpers that wait give a condition; it is generous, since it is only used up by failures.
const deadline = time.Minute

// Server is the server. Make one with NewServer; it is closed at the end of the test.
type Server struct {
	// Proto, Host and Secret are what a runner is configured with; URL is Proto://Host.
	Proto, Host, Secret, URL string

	tb    testing.TB
	http  *httptest.Server
	quit  chan struct{} // closed by Close: ends polls, watches and faults that hang
	poll  time.Duration
	cards bool

	closing sync.Once

	mu      sync.Mutex    // guards what follows
	changed chan struct{} // closed and made anew whenever something has changed
	state   state
	scripts []*script // in the order in which they were made
	past    []Request // in the order of their arrival
}

// Option changes how a server is made.
type Option func(*Server)

// Poll sets for how long requests and watches stay open before they are answered with 204: 30 seconds unless set.
func Poll(d time.Duration) Option { return func(s *Server) { s.poll = d } }

// Secret sets the secret that runners must send: `s3cret-of-the-runner` unless set.
func Secret(secret string) Option { return func(s *Server) { s.Secret = secret } }

// Cards makes the server take cards, as newer servers do.
func Cards() Option { return func(s *Server) { s.cards = true } }

// NewServer starts a server on a free port of the loopback.
func NewServer(tb testing.TB, options ...Option) *Server {
	tb.Helper()
	s := &Server{
		Secret:  "s3cret-of-the-runner",
		tb:      tb,
		quit:    make(chan struct{}),
		poll:    30 * time.Second,
		changed: make(chan struct{}),
		state:   newState(),
	}
	for _, option := range options {
		option(s)
	}
	s.http = httptest.NewServer(s.handler())
	s.URL = s.http.URL
	s.Proto, s.Host, _ = strings.Cut(s.URL, "://")
	tb.Cleanup(s.Close)
	return s
}

// Close ends what hangs, then the server. The end of the test does it too. Afterwards connections are refused, which
// is how a server that is gone for good looks; Down is for one that comes back.
func (s *Server) Close() {
	s.closing.Do(func() { close(s.quit) })
	s.http.CloseClientConnections()
	s.http.Close()
}

// Restart loses what a real server keeps in memory (open polls and watches, live logs, cancels that nobody watched)
// and cuts every connection; what it keeps in its database stays.
func (s *Server) Restart() {
	s.mu.Lock()
	s.state.streams = map[int64]*Log{}
	s.state.workers = nil
	s.state.watches = map[chan struct{}]int64{}
	s.mu.Unlock()
	s.http.CloseClientConnections()
}

// handler routes the calls as the real server does (operator/manager/rpc2/server.go). Paths and methods that it does
// not know are 404 and 405 without a record: no client of ours makes them.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	route := func(pattern string, which func(*http.Request, []byte) Call, serve handlerFunc) {
		mux.Handle(pattern, s.intercept(which, serve))
	}
	route("POST /rpc/v2/ping", always(Ping), func(*http.Request, []byte) (any, error) { return nil, nil })
	route("POST /rpc/v2/stage", always(RequestStage), s.serveRequest)
	route("POST /rpc/v2/stage/{id}", always(Accept), s.serveAccept)
	route("GET /rpc/v2/stage/{id}", always(Detail), s.serveDetail)
	route("PUT /rpc/v2/stage/{id}", byStatus(StageRunning, StageFinal), s.serveStage)
	route("PUT /rpc/v2/step/{id}", byStatus(StepRunning, StepFinal), s.serveStep)
	route("POST /rpc/v2/build/{id}/watch", always(Watch), s.serveWatch)
	route("POST /rpc/v2/step/{id}/logs/batch", always(Batch), s.serveBatch)
	route("POST /rpc/v2/step/{id}/logs/upload", always(Upload), s.serveUpload)
	route("POST /rpc/v2/step/{id}/card", always(Card), s.serveCard)
	return mux
}

// touch says that something has changed. The lock is held.
func (s *Server) touch() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Wait waits until ok is true. It looks again whenever the server's state has changed, and fails the test after a
// minute. It belongs into the test's own goroutine, as every helper that waits.
func (s *Server) Wait(what string, ok func() bool) {
	s.tb.Helper()
	late := time.After(deadline)
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-late:
			s.tb.Fatalf("waited a minute in vain for: %s", what)
		}
	}
}
