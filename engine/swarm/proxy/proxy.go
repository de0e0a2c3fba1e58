// Package proxy is the Docker socket of one build.
//
// It passes the Docker API through to the daemon and, on the way, puts the build's label on everything that is
// created, writes it into the ledger, narrows lists and prunes to the build's own objects, and refuses what would
// reach beyond them. Streams pass untouched.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/client"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
)

// LabelBuild is the label that says whose an object is. LabelPrefix is reserved: labels that a build sets with it
// are dropped.
//
// Images have a label of their own. Containers inherit their image's labels: under LabelBuild, whatever somebody ran
// later from an image that a build made would look like that build's, and be removed as its leftover.
const (
	LabelPrefix = "cc-ci."
	LabelBuild  = LabelPrefix + "build"
	LabelImage  = LabelPrefix + "image"
)

// Policy says how much of the daemon a build may use.
type Policy string

// The policies. Own lets a build see and touch only what it made. Open labels and records, and refuses nothing.
// Keep only records: for pipelines whose objects are meant to stay.
const (
	Own  Policy = "own"
	Open Policy = "open"
	Keep Policy = "keep"
)

// maxSocketPath is what the kernel's address of a unix socket holds.
const maxSocketPath = 107

// Config is what the socket of one build needs to know.
type Config struct {
	Build  string
	Labels map[string]string // further labels, without LabelPrefix

	Socket   string // where to listen
	UID, GID int    // who may connect

	Policy                 Policy
	Root, Workspace, Tmp   string   // the build's directories; Tmp is what its steps see as /tmp, or empty
	Networks, Mounts, Caps []string // what the policy allows beyond the build's own

	Docker *client.Client
	Dial   func(context.Context) (net.Conn, error)
	Ledger *ledger.Ledger
	Log    *logrus.Entry

	// Namespace is the daemon's mount namespace where that is not the runner's (see the function of that name).
	Namespace string

	// Stack is told the name of each stack of which the build makes a service. May be nil.
	Stack func(name string)

	// HoldTimeout bounds how long the removal of a network waits for the tasks that still sit on it.
	HoldTimeout time.Duration

	// BodyLimit bounds the JSON bodies that are read whole.
	BodyLimit int64
}

// Proxy serves one build's socket from Start to Close.
type Proxy struct {
	Config
	labels  map[string]string
	routes  []route
	pins    *pins
	reverse *httputil.ReverseProxy
	backend *http.Transport
	server  *http.Server
	cancel  context.CancelFunc
	calls   sync.WaitGroup
	served  chan error

	sealed atomic.Bool
	known  sync.Map // of knownID to found

	mu    sync.Mutex
	conns map[*conn]bool
}

// Start listens on the build's socket. The socket lives until Close, not until ctx ends: it has to outlast the
// steps, a cancelled build's too.
func Start(ctx context.Context, cfg Config) (*Proxy, error) {
	p := &Proxy{Config: cfg, labels: map[string]string{}, conns: map[*conn]bool{}, served: make(chan error, 1)}
	for k, v := range cfg.Labels {
		p.labels[LabelPrefix+strings.TrimPrefix(k, LabelPrefix)] = v
	}
	p.labels[LabelBuild] = cfg.Build
	p.routes, p.pins = table(), newPins(cfg)
	p.backend = &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return roomy(cfg.Dial(ctx)) },
		DisableCompression:  true,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     30 * time.Second,
		ReadBufferSize:      copyBuffer,
		WriteBufferSize:     copyBuffer + chunkFrame,
	}
	p.reverse = p.newReverse()
	listener, err := listen(cfg)
	if err != nil {
		return nil, fmt.Errorf("open the Docker socket of %s: %w", cfg.Build, err)
	}
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel = cancel
	p.server = &http.Server{
		Handler:           p,
		ReadHeaderTimeout: time.Minute,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          nil,
	}
	go func() {
		p.served <- p.server.Serve(&tracked{Listener: listener, p: p})
		close(p.served) // so that a second Close does not wait
	}()
	return p, nil
}

// listen makes the socket and gives it to the build's user.
func listen(cfg Config) (net.Listener, error) {
	if len(cfg.Socket) > maxSocketPath {
		return nil, fmt.Errorf("the path %s is longer than a socket's may be (%d): choose a shorter directory", cfg.Socket, maxSocketPath)
	}
	dir := filepath.Dir(cfg.Socket)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // whatever the umask: the build's user has to get through
		return nil, err
	}
	if err := os.Remove(cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", cfg.Socket)
	if err != nil {
		return nil, err
	}
	err = os.Chmod(cfg.Socket, 0o600)
	if os.Geteuid() == 0 {
		err = errors.Join(err, os.Chown(cfg.Socket, cfg.UID, cfg.GID))
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Seal refuses every further call, so that nothing new is made while the build's objects are removed. Streams that are
// open stay open until Close.
func (p *Proxy) Seal() { p.sealed.Store(true) }

// Close ends every call and stream, removes the socket and waits until nothing of the proxy runs any more.
func (p *Proxy) Close() error {
	p.cancel()
	err := p.server.Close()
	if served := <-p.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	p.mu.Lock()
	open := make([]*conn, 0, len(p.conns))
	for c := range p.conns {
		open = append(open, c)
	}
	p.mu.Unlock()
	for _, c := range open {
		// Taken-over connections are unknown to the server; one that ended by itself meanwhile is no error.
		if closeErr := c.Close(); closeErr != nil && !errors.Is(closeErr, net.ErrClosed) {
			err = errors.Join(err, closeErr)
		}
	}
	p.calls.Wait()
	p.backend.CloseIdleConnections()
	return err
}

// roomy asks for a large send buffer on a new connection, so that the reader at its other end is not woken for every few
// pages of a stream. The kernel gives what it allows.
func roomy(c net.Conn, err error) (net.Conn, error) {
	if b, ok := c.(interface{ SetWriteBuffer(int) error }); ok && err == nil {
		_ = b.SetWriteBuffer(sendBuffer) // a stream is slower without, and no less right
	}
	return c, err
}

// ServeHTTP decides about one call and carries it out.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.calls.Add(1)
	defer p.calls.Done()
	c, err := p.newCall(w, r)
	if err == nil && p.sealed.Load() {
		err = &invalid{http.StatusServiceUnavailable, "the build is over: its Docker objects are being removed"}
	}
	if err == nil {
		err = c.serve()
	}
	if err != nil {
		p.answer(w, r, err)
	}
}

// tracked remembers the connections it accepts, because a server forgets those that were taken over.
type tracked struct {
	net.Listener
	p *Proxy
}

// conn embeds the concrete type so that half-closing still works through it.
type conn struct {
	*net.UnixConn
	p *Proxy
}

// Accept implements net.Listener.
func (t *tracked) Accept() (net.Conn, error) {
	c, err := roomy(t.Listener.Accept())
	if err != nil {
		return nil, err
	}
	tc := &conn{UnixConn: c.(*net.UnixConn), p: t.p}
	t.p.mu.Lock()
	t.p.conns[tc] = true
	t.p.mu.Unlock()
	return tc, nil
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.p.mu.Lock()
	delete(c.p.conns, c)
	c.p.mu.Unlock()
	return c.UnixConn.Close()
}
