package swarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// sshDialer reads an endpoint ssh://[user@]host[:port]; keys and known hosts are those of the runner's user. A host that
// begins with a dash would be an option for ssh, and such options run commands.
func sshDialer(endpoint string) (func(context.Context) (net.Conn, error), error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("connect to Docker over ssh: the endpoint %q is not ssh://user@host:port", endpoint)
	}
	// BatchMode: nobody is there to be asked for a password or about an unknown host.
	args := []string{"-o", "BatchMode=yes", "-o", "ConnectTimeout=10"}
	if user := u.User.Username(); user != "" {
		args = append(args, "-l", user)
	}
	if u.Port() != "" {
		args = append(args, "-p", u.Port())
	}
	args = append(args, "--", u.Hostname(), "docker", "system", "dial-stdio")
	return func(ctx context.Context) (net.Conn, error) { return dialSSH(ctx, args) }, nil
}

// sshLinger is how long the output of an ssh that has ended is waited for. A process of its own may hold it open for ever:
// the master of shared connections (ControlPersist in ssh_config(5)), or a ProxyCommand.
const sshLinger = time.Second

// sshConn is a connection to a remote daemon over the standard streams of ssh, the way Docker's own client does it (cli,
// cli/connhelper). One reader and one writer may use it at the same time, as an http.Transport does.
type sshConn struct {
	io.WriteCloser
	out    io.Reader
	cmd    *exec.Cmd
	reason bytes.Buffer // what ssh complains about; to be read when it has ended
	ended  sync.Once
	heard  bool // the daemon has answered
}

// dialSSH asks the remote host to join its Docker socket to the command's streams. It returns before ssh has logged in:
// whether that works shows at the first read. The connection outlives ctx, as one of a net.Dialer does; Close ends it.
func dialSSH(ctx context.Context, args []string) (net.Conn, error) {
	c := &sshConn{cmd: exec.CommandContext(context.WithoutCancel(ctx), "ssh", args...)}
	var err error
	if c.WriteCloser, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	c.cmd.Stderr = &c.reason
	c.cmd.WaitDelay = sshLinger
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("connect to Docker over ssh: %w", err)
	}
	return c, nil
}

// Read implements net.Conn. A connection that ends before the daemon has answered says what ssh complained about.
func (c *sshConn) Read(b []byte) (int, error) {
	n, err := c.out.Read(b)
	c.heard = c.heard || n > 0
	if err != nil && !c.heard {
		c.wait()
		err = fmt.Errorf("connect to Docker over ssh: %s: %w", strings.TrimSpace(c.reason.String()), err)
	}
	return n, err
}

// wait waits for the command, once, whoever calls first. How ssh ends once its streams are closed says nothing.
func (c *sshConn) wait() { c.ended.Do(func() { _ = c.cmd.Wait() }) }

// Close implements net.Conn.
func (c *sshConn) Close() error {
	err := c.WriteCloser.Close()
	// ssh would wait for the far end, which may not answer any more.
	_ = c.cmd.Process.Kill() // it may have ended by itself
	c.wait()
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
