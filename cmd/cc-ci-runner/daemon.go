package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	runner "github.com/drone/runner-go/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/process"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/client"
)

// daemonCommand takes builds from a server. It is the default command: a misspelt one arrives here as the name of a
// file.
type daemonCommand struct {
	EnvFile string `arg:"" optional:"" name:"envfile" help:"A file with the configuration, a NAME=value a line; the environment wins over it. SIGHUP reads it again."`
}

// Run reads the configuration and serves until a signal. It exits with exitUsage for what a person has to correct in
// the configuration, before a build is taken, and with exitFailed for what may be different at the next start.
func (c *daemonCommand) Run(ctx context.Context, out streams) error {
	environment := newEnvironment(c.EnvFile)
	config, warnings, err := environment.load()
	if missing(c.EnvFile) && !strings.Contains(c.EnvFile, "/") {
		err = fmt.Errorf("%w (cc-ci-runner --help lists the commands)", err) // it may have been meant as one
	}
	if err != nil {
		return faulty(err)
	}
	log, err := newLogging(config, out.err)
	if err != nil {
		return &exitError{exitUsage, err.Error()}
	}
	for _, warning := range warnings {
		log.entry.Warn(warning)
	}
	signals := make(chan os.Signal, 8) // caught before anything is made that a sudden end would leave behind
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR2, syscall.SIGHUP)
	defer signal.Stop(signals)
	// Who reads the log may go away, as systemd's journal does when it crashes. Go would end the program at the next line,
	// and its builds without a teardown. Nobody reads the channel; to ignore the signal would be handed down to the steps.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	d, err := newDaemon(ctx, config, log)
	if err != nil {
		return errors.Join(err, log.Close())
	}
	d.environment = environment
	return errors.Join(d.serve(ctx, signals), log.Close())
}

// missing says that a file is named and is not there.
func missing(file string) bool {
	_, err := os.Stat(file)
	return file != "" && errors.Is(err, os.ErrNotExist)
}

// faulty is the end of a daemon whose configuration cannot be used: err has one line per fault, each naming its variable.
func faulty(err error) error {
	return &exitError{exitUsage, "the configuration is faulty:\n" + err.Error()}
}

// daemon is the wired program. Its parts are made by newDaemon and ended by serve; nobody replaces one meanwhile.
// `leaks` makes one without runner and endpoint.
type daemon struct {
	config *Config
	// environment is read again by SIGHUP; set by daemonCommand.Run.
	environment *environment
	log         *logging
	metrics     *metrics
	ended       *ended

	processes *process.Host
	docker    *dockerSide
	engine    *engine.Engine
	// limits are what a reload changes of config for the engine; the runner and processes are told by calls.
	limits   liveLimits
	runner   *runtime.Runner
	endpoint *endpoint

	stageEnded chan struct{} // tells rest that a stage has
}

// newDaemon makes every part, in order. Nothing is taken from the server yet. After an error nothing is left open:
// what was made before it is closed.
func newDaemon(ctx context.Context, config *Config, log *logging) (_ *daemon, err error) {
	d := &daemon{config: config, log: log, metrics: newMetrics(), ended: &ended{}, stageEnded: make(chan struct{}, 1)}
	// First of all. HideEnvironment comes before Harden, which closes the way there. A host that forbids either is no
	// reason not to run, but to be warned of: steps of the runner's own user can then read its secrets.
	if err := errors.Join(process.HideEnvironment(secretNames()...), process.Harden()); err != nil {
		log.entry.WithError(err).Warn("the runner's secrets are not hidden from processes of the same user")
	}
	state := filepath.Join(config.State, stateName(config))
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory (DRONE_RUNNER_STATE): %w", err)
	}
	if err := os.MkdirAll(config.Root, 0o755); err != nil { // once, where it fails visibly, and not in each build
		return nil, fmt.Errorf("make the directory for builds (DRONE_RUNNER_ROOT): %w", err)
	}
	d.limits.set(config)
	if err := d.openEngine(ctx, state); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.processes.Close(), d.docker.Close())
		}
	}()
	server, err := client.New(client.Config{
		Proto: config.RPCProto, Host: config.RPCHost, Secret: string(config.RPCSecret),
		SkipVerify: config.RPCSkipVerify, DumpHTTP: config.RPCDumpHTTP, DumpBody: config.RPCDumpBody, Dump: os.Stdout,
		Log: log.entry,
	})
	if err != nil {
		return nil, err
	}
	d.runner, err = runtime.New(d.runnerConfig(server, state))
	if err != nil {
		return nil, err
	}
	// Last: its answers need every other part, and nothing after it could fail and leave the port taken.
	d.endpoint, err = newEndpoint(ctx, d)
	if err != nil {
		return nil, errors.Join(err, d.runner.Close())
	}
	return d, nil
}

// openEngine tries how builds can be contained here and makes the engine. It is also what `leaks` needs of the daemon,
// possibly while one runs: nothing here disturbs builds. After an error nothing is left open.
func (d *daemon) openEngine(ctx context.Context, state string) error {
	c := d.config
	// Named as the state directory, for the same reason: a restarted runner finds its own builds, and another one on
	// this host does not sweep them. Nobody else would look for what a killed run of exec left: Ended.
	processes, err := process.Open(ctx, process.Config{
		Name: "cc-ci-" + stateName(c), Grace: c.Grace, User: c.User, WithoutGroups: c.dockerGroups(), Limits: d.limits.process(),
		KeepLeftovers: c.StepLeftovers == "keep", ShareMounts: !c.PrivateTmp, Ended: execName,
	})
	var user *process.UserError
	if errors.As(err, &user) {
		return faulty(fmt.Errorf("DRONE_RUNNER_USER: %w", user.Err))
	}
	if err != nil {
		return fmt.Errorf("find a way to contain builds: %w", err)
	}
	// Said at each start: it is what decides which promises hold on this host.
	for _, line := range processes.Report().Lines() {
		d.log.entry.Info(line)
	}
	if closed := closedAbove(c); closed != "" {
		d.log.entry.Warn(closed)
	}
	d.metrics.mode(processes.Mode().String())
	d.processes = processes
	if d.docker, err = openDocker(ctx, d, state); err != nil {
		return errors.Join(err, processes.Close())
	}
	d.engine, err = engine.New(engine.Config{
		Docker:        d.docker.engine(),
		HiddenSockets: c.hostSockets(),
		Workspaces:    &engine.Workspaces{Parent: c.Root, Owns: processes.Owns},
		Processes:     processes,
		LockDir:       lockDir(),
		ReportDir:     filepath.Join(state, "reports"),
		KeepReports:   keepReports,
		Keep:          c.Keep.match,
		Limits:        d.limits.engine,
		Log:           d.log.entry,
	})
	if err != nil {
		err = errors.Join(err, processes.Close(), d.docker.Close())
	}
	return err
}

// keepReports is how many teardown reports stay on disk. docs/operations.md and docs/swarm.md name the number, too.
const keepReports = 200

// lockDir holds the locks of running builds. All runners on a host must share it, whatever their state directories:
// the lock is how one knows that a build which is not its own is alive.
func lockDir() string {
	if os.Getuid() == 0 {
		return "/run/lock/cc-ci"
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("cc-ci-locks-%d", os.Getuid()))
}

// runDir is for sockets. It must not lie below /tmp, which each build has for itself, and its path must be short: a
// socket's has at most 107 bytes (unix(7)).
func runDir(state string) string {
	if os.Getuid() == 0 {
		return "/run/cc-ci-runner"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "cc-ci-runner")
	}
	return filepath.Join(state, "run")
}

// stateName is the part of the state directory that keeps two runners on one host apart: their server and their
// endpoint's address. It must stay the same over a restart, and be fit for a directory and a cgroup. Two runners that
// have both in common are one to it; the journal's lock refuses the second.
func stateName(c *Config) string {
	name := c.RPCHost + "_" + strings.TrimPrefix(c.HTTPBind, ":")
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, name)
}

// runnerConfig hands the configuration on to the runner. What the runner cannot know, it gets as functions: how a Spec
// is made, whether Docker is fit for builds, what a leak means.
func (d *daemon) runnerConfig(server runtime.Server, state string) runtime.Config {
	c := d.config
	return runtime.Config{
		Server: server, Address: c.server(),
		Engine:  d.engine,
		Prepare: newPreparer(c).prepare,
		Machine: c.Name,
		Filter: runner.Filter{
			Kind: "pipeline", Type: "exec", OS: c.PlatformOS, Arch: c.PlatformArch,
			Variant: c.PlatformVariant, Kernel: c.PlatformKernel, Labels: c.Labels,
		},
		Capacity: c.Capacity, MaxProcs: c.MaxProcs,
		Limits:          c.limits(),
		State:           state,
		LogLimit:        int64(c.LogLimit),
		DrainTimeout:    c.DrainTimeout,
		TeardownTimeout: c.TeardownTimeout + lastLook,
		Paused:          d.docker.paused,
		Leaks:           c.leaks,
		Hooks:           d.hooks(),
		Log:             d.log.entry,
	}
}

// lastLook is what a teardown has when Docker's objects have used up DRONE_RUNNER_TEARDOWN_TIMEOUT: to name what
// survived, and to remove the build's directory all the same.
const lastLook = 30 * time.Second

// limits are whose stages may run.
func (c *Config) limits() runtime.Limits {
	return runtime.Limits{Repos: c.Repos, Events: c.Events, Trusted: c.Trusted}
}

// leaks decides what a teardown's findings mean for the stage: err is the teardown's own, a *engine.LeakError if
// something survived. An error of another kind alone (a look that failed) always fails the stage: it means that nobody
// knows. Beside a leak it is mostly the leak's reason and goes its way; the log of the step `teardown` says it in any
// case. The warning goes into that log, too.
func (c *Config) leaks(report *engine.Report, err error) (warning string, _ error) {
	var leak *engine.LeakError
	if errors.As(err, &leak) && c.Leaks == "warn" {
		err, warning = nil, "what is left does not fail the stage (DRONE_RUNNER_LEAKS=warn)"
	}
	if len(report.Leftovers) == 0 || c.Leftovers == "ignore" {
		return warning, err
	}
	text := fmt.Sprintf("the pipeline left %d things behind, such as %s (DRONE_RUNNER_LEFTOVERS=%s); let its last step remove them",
		len(report.Leftovers), report.Leftovers[0], c.Leftovers)
	if c.Leftovers == "fail" && err == nil {
		return warning, errors.New(text)
	}
	return strings.TrimPrefix(warning+"; "+text, "; "), err
}

// serve runs until a signal has ended it and everything is torn down. It closes all parts, whatever their errors. A
// nil error means exit code 0: a stop that was asked for is no failure.
//
// Four things go on beside the runner, each ended by done or ctx and awaited before the return: the endpoint,
// systemd's status, signals, rest.
func (d *daemon) serve(ctx context.Context, signals <-chan os.Signal) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	d.log.entry.Infof("cc-ci-runner %s (%s) for %s, capacity %d", version, goruntime.Version(), d.config.server(), d.config.Capacity)
	var beside sync.WaitGroup
	done := make(chan struct{})
	beside.Go(func() { d.endpoint.serve(ctx) })
	beside.Go(func() { d.tellSystemd(done) })
	// Ready comes before the recovery, which may take minutes: a unit that waits for it would be killed as one that
	// does not start. Signals are obeyed from here on.
	notifyReady(d.log.entry)
	recovering, endRecovery := context.WithCancel(ctx)
	defer endRecovery()
	beside.Go(func() { d.obey(signals, done, endRecovery, stop) })
	said := "stopped: every build is torn down and reported"
	if err := d.recover(recovering); recovering.Err() != nil {
		said = "stopped before everything that an earlier run left was removed and reported; the next start goes on with it"
	} else if err != nil {
		d.log.entry.WithError(err).Error("not everything that an earlier run left could be removed")
	}
	// Nothing runs yet: what lies on the host now is the base that later looks compare with.
	d.docker.ownerless(func() bool { return true }, d.log.entry)
	beside.Go(func() { d.rest(ctx) })
	err := d.runner.Run(ctx)
	// Only now: systemd has been told during the whole drain, and signals were obeyed.
	close(done)
	stop()
	beside.Wait()
	d.log.entry.Info(said)
	return errors.Join(err, d.runner.Close(), d.processes.Close(), d.docker.Close())
}

// recover removes what an earlier run left on the host and has its stages reported. The journal comes first: it names
// the stages that the server still believes to run. The sweep finds what is in no journal.
func (d *daemon) recover(ctx context.Context) error {
	d.docker.paused() // where Docker is not there yet, its part is swept when it is
	return errors.Join(d.runner.Recover(ctx), d.sweep(ctx))
}

// sweep removes what builds that run no longer left, and tells about it. Beside the start it runs when Docker has come
// back, while other builds may run.
func (d *daemon) sweep(ctx context.Context) error {
	reports, err := d.engine.Sweep(ctx)
	for _, report := range reports {
		for _, line := range report.Lines() {
			d.log.entry.WithField("build", report.Build).Warn("an earlier run left this: " + line)
		}
	}
	if len(d.runner.Status().Running) > 0 { // an app of theirs may have been deployed without a lock
		return err
	}
	return errors.Join(err, d.docker.sweepApps(ctx, d.log.entry))
}

// obey carries out what signals ask for, until the runner has ended. A runner that is told to stop while it still
// removes what an earlier run left does not finish that: it may take minutes, and the next start does it. Draining
// twice is draining once, so a SIGTERM after SIGUSR2 leaves the drain's deadline as it is, and only one more cancels.
func (d *daemon) obey(signals <-chan os.Signal, done <-chan struct{}, endRecovery, stop func()) {
	stopping := false
	for {
		select {
		case <-done:
			return
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP:
				d.reload()
			case sig == syscall.SIGUSR2:
				d.log.entry.Info("draining: no more builds are taken, the running ones end, then the runner does")
				notifyDraining(d.log.entry)
				d.runner.Drain()
			case stopping:
				d.log.entry.Warn("stopping at once: running builds are cancelled and torn down")
				stop()
			default:
				stopping = true
				d.log.entry.Infof("stopping: running builds have %s to end; one more signal cancels them", d.config.DrainTimeout)
				notifyStopping(d.log.entry, d.config.DrainTimeout+d.config.TeardownTimeout+lastLook)
				d.runner.Drain()
				endRecovery()
			}
		}
	}
}

// reload reads the configuration again and applies what can change while builds run: the capacity and the limits.
// Everything else was handed to the parts when they were made; d.config stays the one of the start.
func (d *daemon) reload() {
	if d.environment.file == "" {
		d.log.entry.Warn("SIGHUP: there is no configuration file to read again (cc-ci-runner daemon FILE); drain or restart the runner to change its environment")
		return
	}
	config, warnings, err := d.environment.load()
	if err != nil {
		d.log.entry.WithError(err).Error("SIGHUP: the configuration is faulty; the old one stays")
		return
	}
	for _, warning := range warnings {
		d.log.entry.Warn(warning)
	}
	d.runner.SetCapacity(config.Capacity)
	d.runner.SetLimits(config.limits())
	d.limits.set(config)
	for _, warning := range d.processes.SetLimits(d.limits.process()) {
		d.log.entry.Warn(warning)
	}
	d.log.entry.Infof("SIGHUP: capacity %d and limits are in force; other settings need a restart", config.Capacity)
}

// liveLimits are the limits of builds, which a reload may change while steps ask for them. The zero value is not
// usable before set.
type liveLimits struct {
	mu     sync.Mutex
	config *Config
}

func (l *liveLimits) set(c *Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.config = c
}

func (l *liveLimits) get() *Config {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.config
}

func (l *liveLimits) engine() engine.Limits {
	c := l.get()
	return engine.Limits{StepTimeout: c.StepTimeout, DiskBytes: int64(c.Disk)}
}

func (l *liveLimits) process() process.Limits {
	c := l.get()
	return process.Limits{Memory: int64(c.Memory), CPUs: c.CPUs, PIDs: c.PIDs}
}
