//go:build linux

package swarmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/client"
)

// startTimeout bounds how long a daemon may take to answer, also on a busy machine.
const startTimeout = 2 * time.Minute

// Daemon is a running Docker daemon that belongs to the tests.
type Daemon struct {
	// Socket is the path of the daemon's API socket; Host is the same as an endpoint.
	Socket, Host string

	// Client speaks to the daemon directly, past every per-build socket.
	Client *client.Client

	dir  string   // all that the daemon writes, its log too
	lock *os.File // held while the daemon runs; nil for the daemons of a Cluster
	args []string // the command
	more []string // arguments until the next restart
	proc *exec.Cmd
	done chan error // how the process ended; whoever takes it puts it back
}

// Start installs Docker from Debian's packages if there is none, starts a daemon, makes it a Swarm manager and
// imports Image. One daemon runs at a time on a host: a second caller waits for the first one's Stop, in another process
// too, because daemons share the host's bridge, its firewall rules and the Swarm's ports. ctx bounds the start alone.
// The caller stops the daemon.
func Start(ctx context.Context) (*Daemon, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can start one")
	}
	if err := Install(ctx, "dockerd", "docker.io"); err != nil {
		return nil, err
	}
	if err := Install(ctx, "busybox", "busybox-static"); err != nil {
		return nil, err
	}
	// Waiting for another package's tests is not a part of startTimeout.
	lock, err := acquire(ctx, lockPath)
	if err != nil {
		return nil, err
	}
	dir, err := succeed(lock)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	d := &Daemon{dir: dir, lock: lock, Socket: filepath.Join(dir, "docker.sock")}
	d.Host = "unix://" + d.Socket
	// The config file is empty: one of the host must not be read, whatever it says.
	d.args = []string{
		"dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, pidFile), "--config-file", filepath.Join(dir, "daemon.json"), "-H", d.Host,
	}
	if err := d.begin(ctx); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	return d, nil
}

// begin makes a fresh data root into a Swarm manager that has Image. Where it fails the caller stops the daemon.
func (d *Daemon) begin(ctx context.Context) error {
	if err := os.WriteFile(filepath.Join(d.dir, "daemon.json"), []byte("{}\n"), 0o600); err != nil {
		return err
	}
	if err := d.launch(ctx); err != nil {
		return err
	}
	// A Swarm of one node: nobody joins, so it listens on loopback, on any port that is free.
	if _, err := d.Client.SwarmInit(ctx, client.SwarmInitOptions{
		ListenAddr: "127.0.0.1:0", AdvertiseAddr: "127.0.0.1",
	}); err != nil {
		return fmt.Errorf("swarm init: %w", err)
	}
	// The ingress network comes a little later; tests that count networks must not see it come.
	if err := d.until(ctx, func(ctx context.Context) error {
		_, err := d.Client.NetworkInspect(ctx, "ingress", client.NetworkInspectOptions{})
		return err
	}); err != nil {
		return err
	}
	return ImportImage(ctx, d.Client)
}

// launch starts the process and waits until it answers. Its process group is its own, so that a Ctrl-C ends the tests, and
// those end it in order.
func (d *Daemon) launch(ctx context.Context) error {
	out, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	d.proc = exec.Command(d.args[0], slices.Concat(d.args[1:], d.more)...)
	d.proc.Stdout, d.proc.Stderr = out, out
	// The daemon gets a signal when the thread that started it ends, be it by a SIGKILL of the tests.
	d.proc.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error, 1)
	d.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan<- error) {
		runtime.LockOSThread() // until the daemon has ended: the thread must not end before
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}(d.proc, d.done)
	if err := errors.Join(<-started, out.Close()); err != nil {
		return err
	}
	if d.Client == nil {
		if d.Client, err = client.New(client.WithHost(d.Host)); err != nil {
			return err
		}
	}
	return d.answers(ctx)
}

// answers waits until the daemon answers a ping.
func (d *Daemon) answers(ctx context.Context) error {
	return d.until(ctx, func(ctx context.Context) error {
		_, err := d.Client.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
		return err
	})
}

// until waits until the daemon does something without an error, or has ended. The error has the end of the daemon's log:
// nothing else would be left of it.
func (d *Daemon) until(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case end := <-d.done:
			d.done <- end
			return fmt.Errorf("dockerd ended (%v): %s", end, d.Log())
		case <-ctx.Done():
			return fmt.Errorf("dockerd does not answer: %w: %s", err, d.Log())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Log is the last 2,000 bytes of the daemon's log, for a test's failure message, or why it cannot be read.
func (d *Daemon) Log() string {
	b, err := os.ReadFile(filepath.Join(d.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// Restart ends the daemon and starts it again on the same data, with these arguments beside its own, until the next
// Restart. It returns when the Swarm has a leader again: the API answers before, and lists nothing of the Swarm.
func (d *Daemon) Restart(ctx context.Context, args ...string) error {
	if err := d.end(syscall.SIGTERM); err != nil {
		return err
	}
	d.more = args
	if err := d.launch(ctx); err != nil {
		return err
	}
	return d.until(ctx, func(ctx context.Context) error {
		_, err := d.Client.NodeList(ctx, client.NodeListOptions{})
		return err
	})
}

// end signals the process and waits for it; after a minute it kills it. A daemon that has ended already is no error.
func (d *Daemon) end(sig syscall.Signal) error {
	if d.proc == nil || d.proc.Process == nil {
		return nil
	}
	if err := d.proc.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-d.done:
		d.done <- err
		return nil // how a daemon that was told to end ended says nothing about the tests
	case <-time.After(time.Minute):
		return errors.Join(errors.New("dockerd ignored its signal for a minute"), d.proc.Process.Kill())
	}
}

// Stop ends the daemon, unmounts what it left below its directory, removes that and lets the next caller start. The lock
// goes last: whoever gets it may take the daemon for ended and its directory for gone.
func (d *Daemon) Stop() error {
	err := d.end(syscall.SIGTERM)
	if d.Client != nil {
		err = errors.Join(err, d.Client.Close())
	}
	err = errors.Join(err, removeTree(d.dir))
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}

// Install makes sure that a program is there, from Debian's package if need be. The package's own service stays off. It
// needs root and, for a package that is missing, Debian's mirror: the only thing here that goes to the network.
func Install(ctx context.Context, program, pkg string) error {
	if _, err := exec.LookPath(program); err == nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, "apt-get", "install", "-y", "--no-install-recommends", pkg)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1") // 1: no service is started
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install %s: %w: %s", pkg, err, strings.TrimSpace(string(out)))
	}
	return nil
}
