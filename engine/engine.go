package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/process"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
)

// Docker gives each build a Docker socket of its own and removes what was made through it. *swarm.Swarm satisfies
// it; without one, steps see what the host has.
type Docker interface {
	Reaper

	// Attach opens the build's socket and returns its path; an empty path means that the build uses the host's.
	Attach(ctx context.Context, build swarm.Build) (socket string, err error)

	// Detach closes the socket. It is called after teardown, when no process of the build is left.
	Detach(ctx context.Context, build string) error

	// Kept names what a build that is exempt from teardown left.
	Kept(ctx context.Context, build string) ([]leftover.Item, error)
}

// Config is what an Engine is made of.
type Config struct {
	// Workspaces removes the builds' directories; Processes runs and ends their commands. Both are required.
	Workspaces *Workspaces
	Processes  *process.Host

	// Docker may be nil.
	Docker Docker

	// HiddenSockets are sockets of the host that steps must not find, where builds have mounts of their own: they get
	// the build's Docker socket in their place, or nothing that answers. One that is not there is passed over.
	HiddenSockets []string

	// LockDir holds one lock file a running build; runners that share a host must share it.
	LockDir string

	// ReportDir keeps the newest teardown reports as JSON, KeepReports of them. Empty: none are kept.
	ReportDir   string
	KeepReports int

	// Keep says whether a repository (owner/name) is exempt from teardown (DRONE_RUNNER_KEEP). May be nil.
	Keep func(repo string) bool

	// Limits returns the limits in force; it is asked at each step, so that a reload takes effect. May be nil.
	Limits func() Limits

	// Log is the runner's own log.
	Log *logrus.Entry
}

// Limits are the limits that the engine itself enforces; those of the cgroup are engine/process's.
type Limits struct {
	// StepTimeout ends a step; zero means never.
	StepTimeout time.Duration

	// DiskBytes ends a step when the workspace is larger; zero means no limit.
	DiskBytes int64
}

// Engine sets builds up, runs their steps, tears them down and proves that nothing is left. It is safe for concurrent use,
// but a build's Setup, its Runs and its Destroy come in this order. It starts nothing that outlives a call.
type Engine struct {
	config  Config
	reapers []Reaper
	locks   *locks
	reports reports

	mu     sync.Mutex
	builds map[string]*build
}

// build is what the engine remembers of a build between Setup and Destroy.
type build struct {
	socket string
	keep   bool
}

// New makes an engine. It changes nothing on the host but for making the lock directory.
func New(config Config) (*Engine, error) {
	held, err := newLocks(config.LockDir)
	if err != nil {
		return nil, err
	}
	if config.Limits == nil {
		config.Limits = func() Limits { return Limits{} }
	}
	if config.Keep == nil {
		config.Keep = func(string) bool { return false }
	}
	e := &Engine{
		config:  config,
		locks:   held,
		reports: reports{dir: config.ReportDir, keep: max(config.KeepReports, 1)},
		builds:  map[string]*build{},
	}
	// The order matters: processes could make new objects, and everything else lies below the workspace.
	e.reapers = append(e.reapers, config.Processes)
	if config.Docker != nil {
		e.reapers = append(e.reapers, config.Docker)
	}
	e.reapers = append(e.reapers, config.Workspaces)
	return e, nil
}

// Setup makes the stage's directories, files, cgroup and Docker socket. After an error, Destroy removes what it
// had made.
func (e *Engine) Setup(ctx context.Context, spec *Spec) error {
	lock, done := context.WithTimeout(ctx, setupWait)
	err := e.locks.wait(lock, spec.Build)
	done()
	if err != nil {
		return err
	}
	b := &build{keep: e.config.Keep(spec.Repo)}
	e.mu.Lock()
	e.builds[spec.Build] = b
	e.mu.Unlock()
	if err := makeDirectories(spec); err != nil {
		return err
	}
	if err := writeFiles(spec.Root, spec.Files, nil); err != nil {
		return err
	}
	for link, target := range spec.Links {
		if err := os.Symlink(target, link); err != nil {
			return fmt.Errorf("make a symbolic link (DRONE_RUNNER_SYMLINKS): %w", err)
		}
	}
	return e.attach(ctx, spec, b)
}

// attach makes the build's cgroup and, where there is Docker, its socket.
func (e *Engine) attach(ctx context.Context, spec *Spec, b *build) error {
	processes := e.config.Processes
	err := processes.Create(ctx, process.Build{
		Name: spec.Build, Root: spec.Root, Home: spec.Home, Workspace: spec.Workspace, Tmp: spec.Tmp, Keep: b.keep,
	})
	if err != nil {
		return fmt.Errorf("prepare the build's processes: %w", err)
	}
	if e.config.Docker == nil {
		return e.hide(spec.Build, os.DevNull)
	}
	place := swarm.Build{Name: spec.Build, Labels: spec.Labels, Root: spec.Root, Workspace: spec.Workspace, Keep: b.keep}
	if processes.Report().PrivateMounts {
		place.Tmp = spec.Tmp
	}
	place.UID, place.GID = processes.Owner(spec.Build)
	socket, err := e.config.Docker.Attach(ctx, place)
	if err != nil {
		return fmt.Errorf("open the build's Docker socket: %w", err)
	}
	b.socket = socket
	if socket == "" {
		return nil
	}
	return e.hide(spec.Build, socket)
}

// hide puts something else over the sockets that the build must not find. A device in the place of a socket refuses
// connections. Two names of one socket are bound twice, which does no harm: both show what lies on top.
func (e *Engine) hide(build, by string) error {
	for _, socket := range e.config.HiddenSockets {
		if _, err := os.Stat(socket); err != nil {
			continue // there is nothing to hide
		}
		if err := e.config.Processes.Bind(build, process.Bind{Source: by, Target: socket}); err != nil {
			return err
		}
	}
	return nil
}

// makeDirectories makes the root, which only its owner may enter, and what lies below it.
func makeDirectories(spec *Spec) error {
	if err := os.MkdirAll(filepath.Dir(spec.Root), 0o755); err != nil {
		return fmt.Errorf("create the directory for workspaces (DRONE_RUNNER_ROOT, or exec --root): %w", err)
	}
	if err := os.Mkdir(spec.Root, 0o700); err != nil {
		return fmt.Errorf("create the build's directory: %w", err)
	}
	for _, dir := range []string{spec.Home, spec.Workspace, spec.Scripts, spec.Tmp} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create the build's directories: %w", err)
		}
	}
	// Sticky and open to all, as /tmp is.
	if err := os.Chmod(spec.Tmp, os.ModeSticky|0o777); err != nil {
		return fmt.Errorf("open the build's /tmp: %w", err)
	}
	return nil
}

// kept says whether the build is exempt from teardown. After a restart only what it left can tell: the list of exempt
// repositories may have changed by then, and a build's name does not tell its repository.
func (e *Engine) kept(name string) (bool, error) {
	e.mu.Lock()
	b := e.builds[name]
	e.mu.Unlock()
	if b != nil {
		return b.keep, nil
	}
	return e.config.Processes.Keeps(name)
}

// Busy says whether a living process on this host runs the build. A lock that cannot be looked at is no reason to say yes:
// Destroy, which needs it as well, tells why. The lock file of a build that nobody runs is gone after that. What is not the
// name of a build nobody runs, and no file is touched for it.
func (e *Engine) Busy(name string) bool {
	if !isBuildName(name) {
		return false
	}
	return e.locks.busy(name) || foreign(name, e.config.Processes.Owns)
}
