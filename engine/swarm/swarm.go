// Package swarm gives each build a Docker socket of its own, and removes what the build made through it: services,
// containers, networks, secrets, configs, volumes and images, in the order that leaks nothing, until reading back
// shows that nothing is left.
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
	Mode     Mode
	Endpoint string       // of the daemon that steps speak to; a manager of the Swarm
	Policy   proxy.Policy // Own or Open

	// Networks, Mounts and Caps are what builds may use beyond their own under the policy Own.
	Networks, Mounts, Caps []string

	// TeardownTimeout bounds the removal of one build's objects.
	TeardownTimeout time.Duration

	// SocketDir holds one directory a build with its socket; LedgerDir one file a build.
	SocketDir, LedgerDir string

	// Nodes are endpoints of the Swarm's other nodes; CertDir holds ca.pem, cert.pem and key.pem for tcp:// ones.
	Nodes   []string
	CertDir string

	// AppPattern matches the domains of apps that builds deploy, for what was made without a build's socket. EnvDirs
	// are where their env files lie (DIR/<domain>.env), LockDir where the lock files of live apps are.
	AppPattern string
	EnvDirs    []string
	LockDir    string

	Log *logrus.Entry
}

// Build is one build that is to have a socket.
type Build struct {
	Name                 string
	Labels               map[string]string // repo, number, stage
	Root, Workspace, Tmp string            // Tmp is what the steps see as /tmp, empty if they see the host's
	UID, GID             int               // who may use the socket

	// Keep is for pipelines that deploy for real: no policy, no labels, and nothing is removed.
	Keep bool
}

// Swarm knows the Docker objects of builds. Its methods may be called at the same time.
type Swarm struct {
	cfg    Config
	docker *client.Client
	nodes  []*node
	apps   *regexp.Regexp
	dial   func(context.Context) (net.Conn, error)

	mu       sync.Mutex
	sockets  map[string]*socket
	refusals map[string]map[string]string // build, item: why the daemon would not remove it
}

// socket is one build that is attached.
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
		if s.apps, err = regexp.Compile(cfg.AppPattern); err != nil {
			return nil, fmt.Errorf("read the pattern of app domains: %w", err)
		}
	}
	manager, err := connect(cfg.Endpoint, cfg.CertDir)
	if err != nil {
		return nil, err
	}
	s.docker, s.dial, s.nodes = manager.docker, manager.dial, []*node{manager}
	for _, endpoint := range cfg.Nodes {
		n, err := connect(endpoint, cfg.CertDir)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.nodes = append(s.nodes, n)
	}
	return s, nil
}

// Close closes what Open opened. Sockets of builds are closed by Detach.
func (s *Swarm) Close() error {
	var err error
	for _, n := range s.nodes {
		err = errors.Join(err, n.docker.Close())
	}
	return err
}

// Attach starts the build's socket and returns its path: the steps' DOCKER_HOST is unix:// and that. In the other
// modes the path is empty.
func (s *Swarm) Attach(ctx context.Context, b Build) (string, error) {
	if s.cfg.Mode != ModeProxy {
		return "", nil
	}
	header := ledger.Header{Build: b.Name, Labels: b.Labels, Started: time.Now(), Keep: b.Keep}
	l, err := ledger.Open(s.cfg.LedgerDir, header)
	if err != nil {
		return "", err
	}
	policy := s.cfg.Policy
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
		Docker: s.docker, Dial: s.dial, Ledger: l, Namespace: namespace, Log: s.cfg.Log.WithField("build", b.Name),
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
	holdTimeout = time.Minute
	bodyLimit   = 16 << 20
)

// Detach closes the build's socket, after Teardown. A ledger whose build holds nothing any more goes with it; another
// one stays, so that Builds still names the build.
func (s *Swarm) Detach(ctx context.Context, build string) error {
	s.mu.Lock()
	at := s.sockets[build]
	delete(s.sockets, build)
	delete(s.refusals, build)
	s.mu.Unlock()
	if at == nil {
		return nil
	}
	err := errors.Join(at.proxy.Close(), at.ledger.Close())
	for _, lock := range at.locks {
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
	return filepath.Join(s.cfg.SocketDir, filepath.Base(build), "docker.sock")
}

// attached says whether the build has a socket in this process.
func (s *Swarm) attached(build string) *socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sockets[build]
}
