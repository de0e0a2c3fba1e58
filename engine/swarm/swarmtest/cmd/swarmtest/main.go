//go:build linux

// Command swarmtest runs a Docker Swarm of one node for whoever starts it: it prints one line of JSON when the Swarm
// is ready, and stops it and removes everything it wrote when its standard input ends or a signal comes.
//
// When it is started in a mount namespace and a network namespace of its own, nothing of the host's own Docker is
// used or touched: neither its containerd, nor its bridges, nor its firewall rules.
//
// The demo runs it: scripts/testbed is a module of its own and does not import the runner's packages.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// ready is what is printed. Whoever starts the command waits for the line; one that ends without it has said why on its
// standard error.
type ready struct {
	Socket string `json:"socket"`
	Host   string `json:"host"`  // the same as an endpoint
	Image  string `json:"image"` // an image that is there; there is no registry
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "swarmtest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		// It ends with the input. The process does not wait for it: a signal may come first.
		_, _ = io.Copy(io.Discard, in)
	}()
	if err := seclude(); err != nil {
		return err
	}
	daemon, err := swarmtest.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, daemon.Stop()) }()
	err = json.NewEncoder(out).Encode(ready{Socket: daemon.Socket, Host: daemon.Host, Image: swarmtest.Image})
	if err == nil {
		<-ctx.Done()
	}
	return err
}

// seclude makes namespaces that are not the parent's fit for a daemon: the network gets a loopback device, and the
// host's containerd goes out of sight, so that the daemon starts its own, and so does the lock of tests.
func seclude() error {
	if network, err := own("net"); err != nil || !network {
		return err
	}
	if mounts, err := own("mnt"); err != nil || !mounts {
		return err
	}
	// The lock is for daemons that share a network; this one need not wait for theirs.
	for _, dir := range []string{"/run/containerd", "/run/lock"} {
		err := os.MkdirAll(dir, 0o711)
		if err == nil {
			err = unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0711")
		}
		if err != nil {
			return fmt.Errorf("hide %s: %w", dir, err)
		}
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	loopback, err := unix.NewIfreq("lo")
	if err == nil {
		loopback.SetUint16(unix.IFF_UP)
		err = unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback)
	}
	if err := errors.Join(err, unix.Close(socket)); err != nil {
		return fmt.Errorf("bring the loopback device up: %w", err)
	}
	return nil
}

// own says whether a namespace of this process is another than its parent's: whether whoever started it used unshare(1).
// Where the parent is in the same new namespace this says no, and the daemon uses what it finds there.
func own(kind string) (bool, error) {
	mine, err := os.Readlink("/proc/self/ns/" + kind)
	if err != nil {
		return false, err
	}
	parents, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", os.Getppid(), kind))
	return mine != parents, err
}
