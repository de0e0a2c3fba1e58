// Package swarm gives each build a Docker socket of its own, and removes what the build made through it: services,
// containers, networks, secrets, configs, volumes and images, in the order that leaks nothing, until reading back
// shows that nothing is left.
//
// The walk: swarm.go has the life of a build's socket (Open, Attach, Detach); reaper.go what the engine asks of every
// kind of leftover; holding.go the look that finds what a build has; teardown.go the order in which that goes. stack.go,
// apps.go and applock.go know what belongs to a build or an app by the name of its stack alone; find.go serves
// `cc-ci-runner leaks` and the sweep of apps. health.go and snapshot.go are asked between builds. node.go and ssh.go
// lead to the daemons.
//
// *Swarm is an engine.Reaper and an engine.Docker. What carries a build's label or stands in its ledger is removed, or
// named by Remaining. What a build makes past its socket is found only as far as its stack's name tells, and images
// that it pulled or loaded stay: they are everybody's cache.
package swarm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// Mode says what a build's steps get of Docker.
type Mode string

// The modes. Host leaves steps with the host's socket, untracked; None promises nothing and looks at nothing.
const (
	ModeHost  Mode = "host"
	ModeProxy Mode = "proxy"
	ModeNone  Mode = "none"
)

// Config is what the runner's admin decides.
type Config struct {
	// Mode other than ModeProxy makes every method succeed and do nothing; the rest is then unused.
	Mode     Mode
	Endpoint string       // of the daemon that steps speak to; a manager of the Swarm
	Policy   proxy.Policy // Own or Open

	// Networks, Mounts and Caps are what builds may use beyond their own under the policy Own.
	Networks, Mounts, Caps []string

	// TeardownTimeout bounds the removal of one build's objects; with zero there would be no time for any.
	TeardownTimeout time.Duration

	// SocketDir holds one directory a build with its socket; LedgerDir one file a build. Both are made when the first
	// build needs them. A socket's path may have 107 bytes, so SocketDir has to be short. LedgerDir has to outlive the
	// runner: after a crash it says what no label can.
	SocketDir, LedgerDir string

	// Nodes are endpoints of the Swarm's other nodes; CertDir holds ca.pem, cert.pem and key.pem for tcp:// ones, the
	// names that the docker command looks for in DOCKER_CERT_PATH.
	Nodes   []string
	CertDir string

	// AppPattern matches the domains of apps that builds deploy, for what was made without a build's socket. EnvDirs
	// are where their env files lie (DIR/<domain>.env), LockDir where the lock files of live apps are. Without a pattern
	// nothing is removed for its name alone, except for secrets and configs that are younger than their build.
	AppPattern string
	EnvDirs    []string
	LockDir    string

	// Log is required with ModeProxy.
	Log *logrus.Entry
}

// Build is one build that is to have a socket. Its directories are what it may mount; they need not exist yet.
type Build struct {
	// Name is what engine.BuildName made: the label's value, and the name of the socket's directory and the ledger.
	Name                 string
	Labels               map[string]string // repo, number, stage
	Root, Workspace, Tmp string            // Tmp is what the steps see as /tmp, empty if they see the host's
	UID, GID             int               // who may use the socket, where the runner is root

	// Keep is for pipelines that deploy for real: no policy, no labels, and nothing is removed.
	Keep bool
}

// Swarm knows the Docker objects of builds. Its methods may be called at the same time.
type Swarm struct {
	cfg Config

	// docker is the client of nodes[0], the manager that steps speak to; the other nodes are those of the Config.
	docker *client.Client
	nodes  []*node

	apps *regexp.Regexp // nil without a pattern: then no stack is one that only builds deploy

	// dial opens a connection of the steps', and patient is the client of their sockets. Both wait for a daemon that is
	// starting again, which docker does not.
	dial    func(context.Context) (net.Conn, error)
	patient *client.Client

	// mu guards the maps below, and the locks of each socket.
	mu       sync.Mutex
	sockets  map[string]*socket           // by build: those that this process has attached
	refusals map[string]map[string]string // build, item: why the daemon would not remove it
}

// socket is one build that is attached. What it holds is closed by Detach.
type socket struct {
	proxy  *proxy.Proxy
	ledger *ledger.Ledger
	locks  map[string]*os.File // by stack: of the apps that the build deployed
}

// Open prepares for builds. It does not need the daemon to run; Health tells whether it does.
func Open(_ context.Context, cfg Config) (*Swarm, error) {
	s := &Swarm{cfg: cfg, sockets: map[string]*socket{}, refusals: map[string]map[string]string{}}
	if cfg.Mode != ModeProxy {
		return s, nil
	}
	if cfg.AppPattern != "" {
		var err error
		// Up to the end of the domain: the name of a secret begins with its stack's, and a pattern that matches in the
		// middle would take a longer part of it for another app, whose lock nobody holds.
		if s.apps, err = regexp.Compile("(?:" + cfg.AppPattern + `)\z`); err != nil {
			return nil, fmt.Errorf("read the pattern of app domains: %w", err)
		}
	}
	// Only prepared: a runner that starts with the host comes up before Docker does.
	manager, err := connect(cfg.Endpoint, cfg.CertDir)
	if err != nil {
		return nil, err
	}
	s.docker, s.dial, s.nodes = manager.docker, manager.dial, []*node{manager}
	if s.patient, err = manager.patient(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	for _, endpoint := range cfg.Nodes {
		n, err := connect(endpoint, cfg.CertDir)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.nodes = append(s.nodes, n)
	}
	return s, nil
}

// Close closes what Open opened: idle connections, and over ssh the processes that carry them. Sockets of builds are closed
// by Detach, before.
func (s *Swarm) Close() error {
	var err error
	if s.patient != nil {
		err = s.patient.Close()
	}
	for _, n := range s.nodes {
		err = errors.Join(err, n.docker.Close())
	}
	return err
}

// Attach starts the build's socket and returns its path: the steps' DOCKER_HOST is unix:// and that. In the other
// modes the path is empty. ctx bounds the opening alone: the socket lives until Detach, because teardown and the last
// calls of a cancelled build come after the steps' context has ended.
//
// The caller calls Teardown and Detach afterwards, also after an error: the ledger may be there already.
func (s *Swarm) Attach(ctx context.Context, b Build) (string, error) {
	if s.cfg.Mode != ModeProxy {
		return "", nil
	}
	// Before the socket: from here on Builds names the build, whenever the runner is killed.
	header := ledger.Header{Build: b.Name, Labels: b.Labels, Started: time.Now(), Keep: b.Keep}
	l, err := ledger.Open(s.cfg.LedgerDir, header)
	if err != nil {
		return "", err
	}
	policy := s.cfg.Policy
	// A socket all the same, so that Kept can tell what it made.
	if b.Keep {
		policy = proxy.Keep
	}
	namespace, err := s.namespace(ctx)
	if err != nil {
		return "", errors.Join(err, l.Close())
	}
	cfg := proxy.Config{
		Build: b.Name, Labels: b.Labels, Socket: s.socketPath(b.Name), UID: b.UID, GID: b.GID,
		Policy: policy, Root: b.Root, Workspace: b.Workspace, Tmp: b.Tmp,
		Networks: s.cfg.Networks, Mounts: s.cfg.Mounts, Caps: s.cfg.Caps,
		Docker: s.patient, Dial: s.dial, Ledger: l, Namespace: namespace, Log: s.cfg.Log.WithField("build", b.Name),
		HoldTimeout: holdTimeout, BodyLimit: bodyLimit,
		Stack: func(stack string) { s.holdApp(b.Name, stack) },
	}
	p, err := proxy.Start(ctx, cfg)
	if err != nil {
		return "", errors.Join(err, l.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sockets[b.Name] = &socket{p, l, map[string]*os.File{}}
	return cfg.Socket, nil
}

const (
	// holdTimeout is ten times what the Swarm takes for a stack whose containers end when they are told to. Tasks that
	// take longer, by a long stop_grace_period, cost their addresses rather than hang `docker stack rm` for ever.
	holdTimeout = time.Minute

	// bodyLimit leaves ample room: a secret may have 500 kB, a config at most twice that, and base64 adds a third.
	bodyLimit = 16 << 20
)

// Detach closes the build's socket, after Teardown. A ledger whose build holds nothing any more goes with it; another
// one stays, so that Builds still names the build. Of a build that is not attached here it does nothing: Teardown has
// done the same for one that an earlier process left.
func (s *Swarm) Detach(ctx context.Context, build string) error {
	s.mu.Lock()
	at := s.sockets[build]
	delete(s.sockets, build)
	delete(s.refusals, build)
	s.mu.Unlock()
	if at == nil {
		return nil
	}
	// Closed before the look: a call that was on its way when the socket was sealed may have made one thing more.
	err := errors.Join(at.proxy.Close(), at.ledger.Close())
	for _, lock := range at.locks {
		// Closing the file gives its flock up.
		err = errors.Join(err, lock.Close())
	}
	h, lookErr := s.holding(ctx, build)
	if lookErr != nil || !h.empty() {
		return errors.Join(err, lookErr)
	}
	return errors.Join(err, s.forget(ctx, build))
}

// forget removes what the runner itself keeps of a build: its pins, its socket's directory and its ledger.
func (s *Swarm) forget(ctx context.Context, build string) error {
	path := s.socketPath(build)
	// Where Docker does not answer, the runner's own namespace has to do: removing the pins' directories in one
	// namespace takes their mounts away in the others.
	namespace, _ := s.namespace(ctx)
	err := proxy.Unpin(path, namespace)
	for _, p := range []string{path, filepath.Dir(path)} {
		if rmErr := os.Remove(p); rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}
	return errors.Join(err, ledger.Remove(s.cfg.LedgerDir, build))
}

// namespace is the daemon's mount namespace, or empty when it is the runner's or the runner could not enter it.
func (s *Swarm) namespace(ctx context.Context) (string, error) {
	// Only root may enter a namespace, and only a daemon on this host shares files with the runner.
	if os.Geteuid() != 0 || !strings.HasPrefix(s.cfg.Endpoint, "unix://") {
		return "", nil
	}
	conn, err := s.dial(ctx)
	if err != nil {
		return "", fmt.Errorf("connect to Docker at %s: %w", s.cfg.Endpoint, err)
	}
	path, err := proxy.Namespace(conn)
	return path, errors.Join(err, conn.Close())
}

// socketPath is where a build's socket lies.
func (s *Swarm) socketPath(build string) string {
	// Base: a name from a label of the daemon must not lead out of SocketDir.
	return filepath.Join(s.cfg.SocketDir, filepath.Base(build), "docker.sock")
}

// attached is the build's socket, or nil when this process has opened none.
func (s *Swarm) attached(build string) *socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sockets[build]
}
