// Package proxy is the Docker socket of one build.
//
// It passes the Docker API through to the daemon and, on the way, puts the build's label on everything that is
// created, writes it into the ledger, narrows lists and prunes to the build's own objects, and refuses what would
// reach beyond them. Streams pass untouched.
//
// The walk: Start listens and ServeHTTP takes a call. call.go takes a request apart and sends it on; routes.go is the
// table of the API's calls, each with the function that judges it; what is not in the table is refused. owner.go finds
// out whose an object is. container.go, service.go, data.go (secrets and configs), network.go, volume.go, image.go and
// mounts.go judge and label what is made; hold.go keeps a network until its tasks are gone. lists.go and events.go narrow
// what is read. guard.go looks into archives on their way. pin_linux.go and namespace_linux.go give the daemon paths that a
// build cannot change any more.
//
// Three habits keep it safe under the policy Own. The daemon gets what was judged and nothing else: calls are put
// together anew from the parts that were read. What is not known is refused, because daemons newer than this code have
// more ways out. And a name becomes an id when it is judged, because a name can change hands before it is used.
//
// It holds against clients of the socket, not against root on the host, who can go past it. engine/swarm starts one
// Proxy a build; the object formats are those of Docker's API (docs.docker.com/reference/api/engine).
package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
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
	"golang.org/x/sync/semaphore"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
)

// LabelBuild is the label that says whose an object is: its value is the build's name. LabelPrefix is reserved: labels
// that a build sets with it are dropped, without a word, because clients send back labels that they have read.
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
// Keep only records: for pipelines whose objects are meant to stay. A policy of another name does what Open does, so
// whoever reads a configuration has to check it.
const (
	Own  Policy = "own"
	Open Policy = "open"
	Keep Policy = "keep"
)

// maxSocketPath is what the kernel's address of a unix socket holds: 108 bytes with the zero at the end, see unix(7).
const maxSocketPath = 107

// maxConns is how many connections a build may have open; further ones wait. Each takes two of the runner's files, and
// memory. `docker run` needs three: one to make calls, one for the container's streams, one to wait for its end.
const maxConns = 1024

// maxBodies is how many bytes the JSON bodies of a build's calls may take at a time, see bodyCost; further ones wait. That is
// one of the largest that engine/swarm lets pass, or thousands of usual ones.
const maxBodies = 256 << 20

// Config is what the socket of one build needs to know. Nothing of it changes after Start.
type Config struct {
	Build  string
	Labels map[string]string // further labels, without LabelPrefix

	Socket   string // where to listen
	UID, GID int    // who may connect, beside root; a runner that is not root keeps the socket to itself

	Policy                 Policy
	Root, Workspace, Tmp   string   // the build's directories; Tmp is what its steps see as /tmp, or empty
	Networks, Mounts, Caps []string // what the policy allows beyond the build's own

	// Docker is for the socket's own looks at objects, Dial for what the build's calls are sent over. The Ledger stays
	// open until Close has returned. Whoever made the three closes them.
	Docker *client.Client
	Dial   func(context.Context) (net.Conn, error)
	Ledger *ledger.Ledger
	Log    *logrus.Entry

	// Namespace is the daemon's mount namespace where that is not the runner's (see the function of that name).
	Namespace string

	// Stack is told the name of each stack of which the build makes a service, before the daemon is. It is called from
	// several calls at once and must not wait. May be nil.
	Stack func(name string)

	// HoldTimeout bounds how long the removal of a network waits for the tasks that still sit on it; then the daemon gets
	// the call all the same.
	HoldTimeout time.Duration

	// BodyLimit bounds the JSON bodies that are read whole, in bytes; a larger one is answered by 413. Archives and
	// streams have no limit: they are never held in memory.
	BodyLimit int64
}

// Proxy serves one build's socket from Start to Close.
type Proxy struct {
	Config
	labels  map[string]string // what every object gets
	routes  []route
	pins    *pins
	reverse *httputil.ReverseProxy
	backend *http.Transport // to the daemon
	server  *http.Server    // to the build
	cancel  context.CancelFunc
	calls   sync.WaitGroup // of ServeHTTP
	served  chan error     // what the server ended with

	sealed atomic.Bool

	// bodies is the memory that bodies of calls may take, in bytes: those of all connections together could take hundreds
	// of gigabytes.
	bodies *semaphore.Weighted

	// known remembers the ids of containers and of commands in them that were judged already: a client that follows logs
	// or runs many commands asks about one container again and again. Knowing an id too long does no harm.
	known sync.Map // of knownID to found

	// conns are the open connections of clients; mu guards it.
	mu    sync.Mutex
	conns map[*conn]bool
	slots chan struct{} // one for each of them
}

// Start listens on the build's socket. The socket lives until Close, not until ctx ends: it has to outlast the
// steps, a cancelled build's too. It makes the socket's directory, and removes a socket that a killed runner left there.
func Start(ctx context.Context, cfg Config) (*Proxy, error) {
	p := &Proxy{Config: cfg, labels: map[string]string{}, conns: map[*conn]bool{}, slots: make(chan struct{}, maxConns),
		served: make(chan error, 1), bodies: semaphore.NewWeighted(max(maxBodies, bodyCost(cfg.BodyLimit+1)))}
	// Reserved, so that a build can neither set them on its objects nor take them away.
	for k, v := range cfg.Labels {
		p.labels[LabelPrefix+strings.TrimPrefix(k, LabelPrefix)] = v
	}
	p.labels[LabelBuild] = cfg.Build
	p.routes, p.pins = table(), newPins(cfg)
	// Kept connections save a client such as docker-compose, which makes many small calls, a dial each.
	p.backend = &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return roomy(cfg.Dial(ctx)) },
		DisableCompression:  true, // the client asks for it or not; answers pass as they are
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     30 * time.Second,
		ReadBufferSize:      copyBuffer,
		WriteBufferSize:     copyBuffer + chunkFrame,
	}
	errorLog := log.New(serverLog{cfg.Log}, "", 0)
	p.reverse = p.newReverse(errorLog)
	listener, err := listen(cfg)
	if err != nil {
		return nil, fmt.Errorf("open the Docker socket of %s: %w", cfg.Build, err)
	}
	// The calls' context: what ctx carries, without its end.
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel = cancel
	// No limit on a whole call: `docker logs -f`, builds and pulls last as long as they last.
	p.server = &http.Server{
		Handler:           p,
		ReadHeaderTimeout: time.Minute,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          errorLog,
	}
	go func() {
		p.served <- p.server.Serve(&tracked{Listener: listener, p: p, over: base.Done()})
		close(p.served) // so that a second Close does not wait
	}()
	return p, nil
}

// listen makes the socket and gives it to the build's user. Closing the listener removes the file.
func listen(cfg Config) (net.Listener, error) {
	if len(cfg.Socket) > maxSocketPath {
		return nil, fmt.Errorf("the path %s is longer than a socket's may be (%d): choose a shorter directory", cfg.Socket, maxSocketPath)
	}
	dir := filepath.Dir(cfg.Socket)
	// Who may pass cannot list: sockets of other builds lie in directories beside this one.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // whatever the umask: the build's user has to get through
		return nil, err
	}
	// net.Listen does not take over the file of a socket that nobody listens on.
	if err := os.Remove(cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", cfg.Socket)
	if err != nil {
		return nil, err
	}
	// To connect takes the right to write. Until it is given away below, root alone has it.
	err = os.Chmod(cfg.Socket, 0o600)
	if os.Geteuid() == 0 {
		err = errors.Join(err, os.Chown(cfg.Socket, cfg.UID, cfg.GID))
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// serverLog takes what net/http says of itself (a daemon that broke an answer off, a panic) into the runner's log: left
// alone it would write to standard error, past the log's form and level.
type serverLog struct{ entry *logrus.Entry }

// Write implements io.Writer.
func (l serverLog) Write(b []byte) (int, error) {
	l.entry.Warnf("Docker socket: %s", bytes.TrimSpace(b))
	return len(b), nil
}

// Seal refuses every further call, so that nothing new is made while the build's objects are removed. Streams that are
// open stay open until Close, and a call that was judged already may still make something: teardown looks until nothing
// new comes.
func (p *Proxy) Seal() { p.sealed.Store(true) }

// Close ends every call and stream, removes the socket and waits until nothing of the proxy runs any more. Clients see
// the end of their streams. Pins stay, for containers may use them; Unpin removes them.
func (p *Proxy) Close() error {
	// First, so that calls which wait for the tasks on a network give up.
	p.cancel()
	err := p.server.Close()
	if served := <-p.served; !errors.Is(served, http.ErrServerClosed) && !errors.Is(served, net.ErrClosed) {
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
	// Close of a server does not wait for its handlers.
	p.calls.Wait()
	p.backend.CloseIdleConnections()
	return err
}

// roomy asks for a large send buffer on a new connection, so that the reader at its other end is not woken for every few
// pages of a stream. The kernel gives what it allows (net.core.wmem_max).
func roomy(c net.Conn, err error) (net.Conn, error) {
	if b, ok := c.(interface{ SetWriteBuffer(int) error }); ok && err == nil {
		_ = b.SetWriteBuffer(sendBuffer) // a stream is slower without, and no less right
	}
	return c, err
}

// ServeHTTP decides about one call and carries it out. It returns when the answer, or the stream, has ended.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.calls.Add(1)
	defer p.calls.Done()
	c, err := p.newCall(w, r)
	if err == nil && p.sealed.Load() {
		err = &invalid{http.StatusServiceUnavailable, "the build is over: its Docker objects are being removed"}
	}
	if err == nil {
		defer c.free(0)
		err = c.serve()
	}
	if err != nil {
		p.answer(w, r, err)
	}
}

// tracked remembers the connections it accepts, because a server forgets those that were taken over: without, a stream
// would outlive Close.
type tracked struct {
	net.Listener
	p    *Proxy
	over <-chan struct{} // closed when Close begins
}

// conn embeds the concrete type so that half-closing still works through it: ReverseProxy looks for CloseWrite, which
// net.Conn does not have.
type conn struct {
	*net.UnixConn
	p *Proxy
}

// Accept implements net.Listener.
func (t *tracked) Accept() (net.Conn, error) {
	select {
	case t.p.slots <- struct{}{}:
	case <-t.over:
		return nil, net.ErrClosed
	}
	c, err := roomy(t.Listener.Accept())
	if err != nil {
		<-t.p.slots
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
	if c.p.conns[c] { // it may be closed more than once
		delete(c.p.conns, c)
		<-c.p.slots
	}
	c.p.mu.Unlock()
	return c.UnixConn.Close()
}
