package swarm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
)

const (
	// redialTimeout is how long a call waits for a daemon that is starting again. dockerd needs a few seconds, and more
	// with many containers; a client that waits longer than this is better told.
	redialTimeout = 30 * time.Second
	redialPoll    = 100 * time.Millisecond

	// nodeTimeout bounds one look at another node, nodeRetry is how long one that failed is left alone. Over ssh a look may
	// have to log in and start a program first, on hosts that are busy with builds. Without nodeRetry each of a teardown's
	// many looks would wait for a node that is cut off.
	nodeTimeout = 5 * time.Second
	sshTimeout  = 20 * time.Second
	nodeRetry   = 10 * time.Second
)

// userAgent is how the runner's own calls look in the daemon's log.
const userAgent = "cc-ci-runner"

// node is one daemon of the Swarm, shared by the teardowns of all builds.
type node struct {
	endpoint string
	timeout  time.Duration // of one look

	// mu guards what the last look at a node that did not answer found: the next ones do not wait for it again. It is held
	// during a look.
	mu      sync.Mutex
	failure error
	until   time.Time
	id      string // the Swarm's name for it, once known

	// docker is for the runner's own calls; over unix:// they fail at once while the daemon is away, and teardown tries
	// again by itself. dial opens a plain connection, and waits there. Both over TLS or ssh where the endpoint says so.
	docker *client.Client
	dial   func(context.Context) (net.Conn, error)
}

// try looks at a node, but not at one that has just failed to answer, and never for long. Looks at one node take turns.
// The manager is looked at without it, except for its id: without the manager nothing can be torn down, so it is worth
// every wait.
func (n *node) try(ctx context.Context, look func(context.Context) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failure != nil && time.Now().Before(n.until) {
		return n.failure
	}
	limited, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	err := look(limited)
	if err != nil && ctx.Err() != nil {
		return err // the caller's time was over, which says nothing about the node
	}
	n.failure, n.until = err, time.Now().Add(nodeRetry)
	return err
}

// swarmID is the Swarm's name for the node, or empty while nobody knows it. It never changes while the node stays in the
// Swarm, so it is asked once.
func (n *node) swarmID(ctx context.Context) string {
	n.mu.Lock()
	id := n.id
	n.mu.Unlock()
	if id != "" {
		return id
	}
	// One that does not answer is reported by whoever looks for objects on it.
	_ = n.try(ctx, func(ctx context.Context) error {
		info, err := n.docker.Info(ctx, client.InfoOptions{})
		// try holds the lock.
		n.id = info.Info.Swarm.NodeID
		return err
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.id
}

// leadsTo says whether the endpoint names a node of the Swarm's list by its host name or address. For what is written in
// another way, an alias of ssh's for one, only the node itself could tell.
func (n *node) leadsTo(v swarm.Node) bool {
	u, err := url.Parse(n.endpoint)
	return err == nil && u.Hostname() != "" && (u.Hostname() == v.Description.Hostname || u.Hostname() == v.Status.Addr)
}

// connect prepares a connection to a daemon: unix://, tcp:// (with the certificates, where there are any) or ssh://. It
// reads the certificates and connects to nothing. The client agrees with the daemon about the API's version at its first
// call, so daemons from Docker 20.10 on will do.
func connect(endpoint, certs string) (*node, error) {
	scheme, addr, ok := strings.Cut(endpoint, "://")
	n := &node{endpoint: endpoint, timeout: nodeTimeout}
	var err error
	opts := []client.Opt{client.WithUserAgent(userAgent)}
	switch {
	case ok && scheme == "unix":
		n.dial = func(ctx context.Context) (net.Conn, error) { return redial(ctx, "unix", addr) }
		opts = append(opts, client.WithHost(endpoint))
	case ok && scheme == "tcp":
		opts = append(opts, client.WithHost(endpoint))
		if certs != "" {
			opts = append(opts, client.WithTLSClientConfig(
				filepath.Join(certs, "ca.pem"), filepath.Join(certs, "cert.pem"), filepath.Join(certs, "key.pem")))
		}
	case ok && scheme == "ssh":
		n.timeout = sshTimeout
		if n.dial, err = sshDialer(endpoint); err != nil {
			return nil, err
		}
		// A name that nobody looks up: every connection is one of ssh.
		opts = append(opts, client.WithHost("http://docker"))
	default:
		return nil, fmt.Errorf("connect to Docker: the endpoint %q must begin with unix://, tcp:// or ssh://", endpoint)
	}
	if n.dial != nil {
		opts = append(opts, client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
			if scheme == "unix" { // the client's own calls fail at once; whoever makes them decides about waiting
				return new(net.Dialer).DialContext(ctx, "unix", addr)
			}
			return n.dial(ctx)
		}))
	}
	docker, err := client.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Docker at %s: %w", endpoint, err)
	}
	n.docker = docker
	// tcp:// alone: the client makes the TLS connection, by the certificates that it has read.
	if n.dial == nil {
		dial := docker.Dialer()
		n.dial = func(ctx context.Context) (net.Conn, error) { return dial(ctx) }
	}
	return n, nil
}

// patient is a client of the node whose calls wait for a daemon that is starting again.
func (n *node) patient() (*client.Client, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return n.dial(ctx) }
	opts := []client.Opt{client.WithUserAgent(userAgent), client.WithHost("http://docker"), client.WithDialContext(dial)}
	docker, err := client.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Docker at %s: %w", n.endpoint, err)
	}
	return docker, nil
}

// redial connects to a daemon and waits for one that is starting again: its socket is gone (ENOENT), or there and nobody
// listens (ECONNREFUSED). Other errors, a missing permission for one, do not get better by waiting.
func redial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, redialTimeout)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(redialPoll):
		}
	}
}
