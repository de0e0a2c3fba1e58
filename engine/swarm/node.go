package swarm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/client"
)

const (
	// redialTimeout is how long a call waits for a daemon that is starting again.
	redialTimeout = 30 * time.Second
	redialPoll    = 100 * time.Millisecond

	// nodeTimeout bounds one look at another node, nodeRetry is how long one that failed is left alone.
	nodeTimeout = 5 * time.Second
	nodeRetry   = 10 * time.Second
)

// node is one daemon of the Swarm.
type node struct {
	endpoint string

	// mu guards what the last look at a node that did not answer found: the next ones do not wait for it again.
	mu      sync.Mutex
	failure error
	until   time.Time
	id      string // the Swarm's name for it, once known

	docker *client.Client
	dial   func(context.Context) (net.Conn, error)
}

// try looks at a node, but not at one that has just failed to answer, and never for long.
func (n *node) try(ctx context.Context, look func(context.Context) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failure != nil && time.Now().Before(n.until) {
		return n.failure
	}
	limited, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	n.failure = look(limited)
	n.until = time.Now().Add(nodeRetry)
	return n.failure
}

// swarmID is the Swarm's name for the node, or empty while nobody knows it.
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
		n.id = info.Info.Swarm.NodeID
		return err
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.id
}

// connect prepares a connection to a daemon: unix://, tcp:// (with the certificates, where there are any) or ssh://.
func connect(endpoint, certs string) (*node, error) {
	scheme, addr, ok := strings.Cut(endpoint, "://")
	n := &node{endpoint: endpoint}
	opts := []client.Opt{client.WithUserAgent("cc-ci-runner")}
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
		n.dial = func(ctx context.Context) (net.Conn, error) { return dialSSH(ctx, addr) }
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
	if n.dial == nil {
		dial := docker.Dialer()
		n.dial = func(ctx context.Context) (net.Conn, error) { return dial(ctx) }
	}
	return n, nil
}

// redial connects to a daemon and waits for one that is starting again.
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

// sshConn is a connection to a remote daemon over the standard streams of ssh, the way Docker's own client does it.
type sshConn struct {
	io.Reader
	io.WriteCloser
	cmd *exec.Cmd
}

// dialSSH asks the remote host to join its Docker socket to the command's streams.
func dialSSH(ctx context.Context, addr string) (net.Conn, error) {
	host, port, found := strings.Cut(strings.TrimSuffix(addr, "/"), ":")
	if host == "" || strings.HasPrefix(host, "-") {
		return nil, fmt.Errorf("connect to Docker over ssh: bad host %q", addr)
	}
	args := []string{"-o", "BatchMode=yes", "-o", "ConnectTimeout=10"}
	if found {
		args = append(args, "-p", port)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "ssh", append(args, "--", host, "docker", "system", "dial-stdio")...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("connect to Docker over ssh: %w", err)
	}
	return &sshConn{out, in, cmd}, nil
}

// Close implements net.Conn. How ssh ends once its streams are closed says nothing.
func (c *sshConn) Close() error {
	err := c.WriteCloser.Close()
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// CloseWrite ends the sending half.
func (c *sshConn) CloseWrite() error { return c.WriteCloser.Close() }

// The rest of net.Conn: a command's streams have no addresses, and deadlines come from contexts.
func (c *sshConn) LocalAddr() net.Addr              { return &net.UnixAddr{Net: "ssh"} }
func (c *sshConn) RemoteAddr() net.Addr             { return &net.UnixAddr{Net: "ssh"} }
func (c *sshConn) SetDeadline(time.Time) error      { return nil }
func (c *sshConn) SetReadDeadline(time.Time) error  { return nil }
func (c *sshConn) SetWriteDeadline(time.Time) error { return nil }
