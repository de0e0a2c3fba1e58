//go:build linux

package swarmtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
)

const (
	// bridge and prefix are the host's end of the nodes' links, and the /24 that they are in: 1 is the host's address, 10
	// and up are the nodes'. They are fixed, so that what a killed run left can be found and removed.
	bridge = "ccci-br0"
	prefix = "10.213.77."

	// heartbeat is shorter than usual (5 s): a node that misses three is down.
	heartbeat = 2 * time.Second
)

// Cluster is a Swarm of several daemons on this host, each in a network namespace of its own: the first is the
// manager, the others are workers. They share the host's kernel, mounts of their own and host names of their own tell
// them apart: volumes and containers are each node's, as on several machines.
type Cluster struct {
	// By number, as Cut and Endpoint count them. None has a lock of its own.
	Nodes []*Daemon
	size  int
	guard *guard
}

// StartCluster starts a Swarm of so many daemons. It is called by a test that holds a Daemon of its package: the
// daemons of one host's tests share a lock. The caller stops it. It changes the host: a bridge, links, namespaces and a
// rule of its firewall, all removed by Stop, or by the guard when the tests are killed.
func StartCluster(ctx context.Context, size int) (*Cluster, error) {
	c := &Cluster{size: size}
	// What is left of a run that was killed together with its guard; usually there is nothing.
	_ = exec.CommandContext(ctx, "sh", "-c", strings.Join(unlink(size), "; ")).Run()
	var err error
	// Before anything is made, so that nothing is ever made that nobody removes.
	if c.guard, err = startGuard(unlink(size)); err != nil {
		return nil, err
	}
	if err := ip(ctx, "link add "+bridge+" type bridge", "addr add "+prefix+"1/24 dev "+bridge, "link set "+bridge+" up"); err != nil {
		return nil, errors.Join(err, c.guard.end())
	}
	// The daemon on the host drops what it does not forward itself, on bridges too.
	if err := command(ctx, "iptables", "-I", "FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT"); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	var starts errgroup.Group
	// At the same time: each takes seconds. A node that does not start leaves its place empty.
	c.Nodes = make([]*Daemon, size)
	for i := range size {
		starts.Go(func() (err error) {
			c.Nodes[i], err = startNode(ctx, i)
			return err
		})
	}
	err = starts.Wait()
	for i := 0; i < size && err == nil; i++ {
		err = c.join(ctx, i)
	}
	if err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// namespace is the name of a node's network namespace and of its end of the link.
func namespace(i int) string { return fmt.Sprintf("ccci-n%d", i) }

// startNode starts one daemon on the cluster's bridge, at the end of a pair of virtual links (veth(4)).
func startNode(ctx context.Context, i int) (*Daemon, error) {
	ns, peer := namespace(i), fmt.Sprintf("ccci-p%d", i)
	err := ip(ctx, "netns add "+ns, "link add "+ns+" type veth peer name "+peer, "link set "+peer+" master "+bridge+" up",
		"link set "+ns+" netns "+ns, "-n "+ns+" addr add "+address(i)+"/24 dev "+ns, "-n "+ns+" link set "+ns+" up",
		"-n "+ns+" link set lo up", "-n "+ns+" route add default via "+prefix+"1")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", dirPrefix)
	if err != nil {
		return nil, err
	}
	d := &Daemon{dir: dir, Socket: filepath.Join(dir, "docker.sock")}
	d.Host = "unix://" + d.Socket
	// Not `ip netns exec`: it mounts /sys anew, without the control groups, and dockerd would not start.
	// A mount namespace of its own gives each daemon its /run/docker, where the namespaces of containers' networks are
	// kept under names that do not depend on the daemon; a UTS namespace a host name, by which nodes are told apart.
	// Without a name server the Swarm knows at once that there is no registry to ask for a newer image.
	script := fmt.Sprintf("hostname %s; mount --make-rprivate /; mount --bind /dev/null /etc/resolv.conf; mkdir -p /run/docker; "+
		"mount -t tmpfs tmpfs /run/docker; exec dockerd --data-root %s/data --exec-root %s/exec --pidfile %s/%s --config-file %s/daemon.json -H %s -H %s --tls=false --bip 10.214.%d.1/24",
		ns, dir, dir, dir, pidFile, dir, d.Host, Endpoint(i), i)
	d.args = []string{"nsenter", "--net=/run/netns/" + ns, "unshare", "--mount", "--uts", "sh", "-c", script}
	if err := os.WriteFile(filepath.Join(dir, "daemon.json"), []byte("{}\n"), 0o600); err != nil {
		return nil, err
	}
	if err := d.launch(ctx); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	return d, nil
}

// Endpoint is where a node answers over its link: plain TCP, so that cutting the link cuts its API off, too.
func Endpoint(i int) string { return "tcp://" + address(i) + ":2375" }

// address is a node's on the bridge. The nodes' own bridges are elsewhere (10.214.N.1/24), or routes would collide.
func address(i int) string { return fmt.Sprintf("%s%d", prefix, 10+i) }

// join makes the first node a manager and the others its workers, one after another: each asks the first for the token.
func (c *Cluster) join(ctx context.Context, i int) error {
	d := c.Nodes[i]
	// Every node has its own images; the Swarm passes none on.
	if err := ImportImage(ctx, d.Client); err != nil {
		return err
	}
	if i == 0 {
		_, err := d.Client.SwarmInit(ctx, client.SwarmInitOptions{ListenAddr: address(0) + ":2377", AdvertiseAddr: address(0),
			Spec: swarm.Spec{Dispatcher: swarm.DispatcherConfig{HeartbeatPeriod: heartbeat}}})
		return err
	}
	r, err := c.Nodes[0].Client.SwarmInspect(ctx, client.SwarmInspectOptions{})
	if err != nil {
		return err
	}
	_, err = d.Client.SwarmJoin(ctx, client.SwarmJoinOptions{
		ListenAddr: address(i) + ":2377", AdvertiseAddr: address(i),
		RemoteAddrs: []string{address(0) + ":2377"}, JoinToken: r.Swarm.JoinTokens.Worker,
	})
	return err
}

// Cut takes a node's link down; Restore brings it up again. The node goes on, and its Socket still answers the test.
func (c *Cluster) Cut(ctx context.Context, i int) error {
	return ip(ctx, fmt.Sprintf("link set ccci-p%d down", i))
}

// Restore undoes Cut.
func (c *Cluster) Restore(ctx context.Context, i int) error {
	return ip(ctx, fmt.Sprintf("link set ccci-p%d up", i))
}

// Stop ends the daemons and removes the links, also of a cluster that has started only half.
func (c *Cluster) Stop() error {
	var err error
	for _, d := range c.Nodes {
		if d != nil { // it did not start
			err = errors.Join(err, d.Stop())
		}
	}
	return errors.Join(err, c.guard.end())
}

// unlink are the commands that remove the links of a cluster. A namespace may live on for a while inside the kernel, so
// its link goes first.
func unlink(size int) []string {
	var out []string
	for i := range size {
		out = append(out, fmt.Sprintf("ip link del ccci-p%d", i), "ip netns del "+namespace(i))
	}
	return append(out, "ip link del "+bridge, "iptables -D FORWARD -i "+bridge+" -o "+bridge+" -j ACCEPT")
}

// guard is a process that cleans up when its input ends: when end is called, or when the tests are killed. A deferred call
// would not run in the second case, and links would stay on the host until it restarts.
type guard struct {
	cmd *exec.Cmd
	in  io.Closer
}

// startGuard starts a guard that will run commands, all of them, whatever becomes of each.
func startGuard(commands []string) (*guard, error) {
	cmd := exec.Command("sh", "-c", "cat; "+strings.Join(commands, "; "))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a signal from the keyboard is not for it
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start what cleans up after the tests: %w", err)
	}
	return &guard{cmd, in}, nil
}

// end lets the guard clean up. That something it would remove was never made is no error.
func (g *guard) end() error {
	err := g.in.Close()
	// It has to be waited for: the next cluster takes the same names.
	_ = g.cmd.Wait()
	return err
}

// ip runs lines of the ip command, of Debian's iproute2, until one fails.
func ip(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		if err := command(ctx, "ip", strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

// command runs a program of the host; what it prints is a part of the error.
func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
