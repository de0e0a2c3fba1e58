package main

import (
	"context"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// dockerSide is the daemon's view of Docker: the builds' sockets, and whether Docker is fit for builds. Without
// DRONE_RUNNER_DOCKER=proxy all its methods do nothing, so that nobody has to ask for the mode. They may be called at
// the same time.
type dockerSide struct {
	swarm *swarm.Swarm // nil unless DRONE_RUNNER_DOCKER=proxy
	ctx   context.Context

	// sweep is called when Docker has become fit for builds again: what it held meanwhile could not be removed. It is
	// called with mu held, by the slot that asks, so that no slot takes a build before it has returned.
	sweep func(context.Context)

	// mu guards what follows. It is held while Docker is asked: slots that ask at once share one answer.
	mu sync.Mutex
	// asked is when Docker was last asked, reason what came of it: one sentence, or nothing when it is fit for builds.
	asked  time.Time
	reason string

	// base is what lay on the host that is nobody's, when it was last looked at without a running build.
	base swarm.Snapshot
}

// appLockDir holds the locks of live apps, under the name that other tools on such hosts use
// (cc-ci-app-<domain>.lock). It is no setting: a lock only works where everybody looks for it.
const appLockDir = "/run/lock"

// healthInterval is how often Docker's state is asked for, and how long it has for an answer. Every slot asks before
// and after each poll, so it is also what keeps the daemon from being asked all the time.
const healthInterval = 5 * time.Second

// openDocker prepares for the builds' sockets. It does not need the daemon: one that is not there yet is waited for by
// paused. Its errors are those of the settings.
func openDocker(ctx context.Context, d *daemon, state string) (*dockerSide, error) {
	c, log := d.config, d.log.entry
	side := &dockerSide{ctx: ctx, sweep: func(ctx context.Context) {
		if err := d.sweep(ctx); err != nil {
			log.WithError(err).Error("not everything that builds left could be removed")
		}
	}}
	switch c.Docker {
	case "":
		log.Info("Docker: steps use the host's socket, and what they make is neither tracked nor removed; set DRONE_RUNNER_DOCKER=proxy to change that")
		return side, nil
	case "none":
		if !d.processes.Report().PrivateMounts {
			log.Warn("Docker: builds have no mounts of their own here, so DRONE_RUNNER_DOCKER=none does not hide the host's socket from steps")
		}
		return side, nil
	case "host":
		return side, nil
	}
	var err error
	side.swarm, err = swarm.Open(ctx, swarm.Config{
		Mode: swarm.ModeProxy, Endpoint: c.DockerEndpoint, Policy: proxy.Policy(c.DockerPolicy),
		Networks: c.DockerNetworks, Mounts: c.DockerMounts, Caps: c.DockerCaps,
		TeardownTimeout: c.TeardownTimeout,
		SocketDir:       filepath.Join(runDir(state), "docker"), LedgerDir: filepath.Join(state, "docker"),
		Nodes: c.SwarmNodes, CertDir: c.SwarmCerts,
		AppPattern: c.AppPattern, EnvDirs: c.AppEnvDirs, LockDir: appLockDir,
		Log: log,
	})
	if err != nil {
		return nil, err
	}
	log.Infof("Docker: each build has a socket of its own (policy %s); what it makes is removed at its end", c.DockerPolicy)
	if c.User == "" {
		log.Warn("Docker: steps run as the runner's own user, who may use the host's socket, so builds are told apart but not kept apart; set DRONE_RUNNER_USER on a runner that is root")
	}
	return side, nil
}

// hidesDocker says whether steps are to have another Docker than the host's, or none.
func (c *Config) hidesDocker() bool { return c.Docker == "proxy" || c.Docker == "none" }

// hostSockets are where steps would find the host's Docker: the socket that tools know which ignore DOCKER_HOST, and the
// endpoint's. /var/run is a link to /run.
func (c *Config) hostSockets() []string {
	if !c.hidesDocker() {
		return nil
	}
	sockets := []string{"/run/docker.sock"}
	if path, ok := strings.CutPrefix(c.DockerEndpoint, "unix://"); ok && path != "/var/run/docker.sock" && path != sockets[0] {
		sockets = append(sockets, path)
	}
	return sockets
}

// dockerGroups are the groups whose members may use the host's Docker, which is as good as being root: the one that
// Docker's packages make, and the socket's where an admin chose another (`dockerd --group`).
func (c *Config) dockerGroups() []int {
	var groups []int
	if !c.hidesDocker() {
		return nil
	}
	if docker, err := user.LookupGroup("docker"); err == nil {
		if gid, err := strconv.Atoi(docker.Gid); err == nil {
			groups = append(groups, gid)
		}
	}
	for _, socket := range c.hostSockets() {
		info, err := os.Stat(socket)
		if err != nil {
			continue
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			groups = append(groups, int(stat.Gid))
		}
	}
	return groups
}

// engine is the engine's Docker; nil without one. A nil *swarm.Swarm in the interface would not be nil to the engine.
func (s *dockerSide) engine() engine.Docker {
	if s.swarm == nil {
		return nil
	}
	return s.swarm
}

// paused says why no build should be taken while Docker is not fit for one. An offer does not tell whether its build
// needs Docker, so all wait.
func (s *dockerSide) paused() string {
	if s.swarm == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.asked) < healthInterval {
		return s.reason
	}
	before := s.reason
	s.reason = s.health()
	// Not at the first look, whose reason before is empty: at the start everything is swept anyway.
	if before != "" && s.reason == "" {
		s.sweep(s.ctx)
	}
	s.asked = time.Now()
	return s.reason
}

// health asks Docker how it is.
func (s *dockerSide) health() string {
	ctx, cancel := context.WithTimeout(s.ctx, healthInterval)
	defer cancel()
	if err := s.swarm.Health(ctx); err != nil {
		return err.Error()
	}
	return ""
}

// ownerless looks, when no build runs, for Docker objects that are nobody's and were not there before. They are named
// in the log and left alone: they may be an admin's. A look during which a build began tells nothing: what a build
// makes carries its label only as far as Docker has labels for it.
func (s *dockerSide) ownerless(idle func() bool, log *logrus.Entry) {
	if s.swarm == nil || !idle() {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, healthInterval)
	defer cancel()
	now, err := s.swarm.Snapshot(ctx)
	if err != nil {
		log.WithError(err).Warn("Docker: what lies on the host could not be looked at")
		return
	}
	if !idle() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.base != nil {
		for _, item := range s.base.Ownerless(now) {
			log.Warnf("Docker: the %s %s is no build's, and new since no build ran the last time", item.Kind, item.Name)
		}
	}
	s.base = now
}

// sweepApps removes the apps that match DRONE_RUNNER_APP_PATTERN and that nobody holds: what builds deployed past
// their sockets before a crash. One that cannot be removed does not keep the others. The caller makes sure that no
// build runs: an app of one may have been deployed without a lock.
func (s *dockerSide) sweepApps(ctx context.Context, log *logrus.Entry) error {
	if s.swarm == nil {
		return nil
	}
	apps, err := s.swarm.FindApps(ctx)
	for _, app := range apps {
		if app.Live {
			continue
		}
		removed, errApp := s.swarm.Remove(ctx, app)
		for _, item := range removed {
			log.Warnf("an earlier run left this: the app %s: removed: %s", app.Stack, item)
		}
		err = errors.Join(err, errApp)
	}
	return err
}

// Close closes the connections to Docker.
func (s *dockerSide) Close() error {
	if s.swarm == nil {
		return nil
	}
	return s.swarm.Close()
}
