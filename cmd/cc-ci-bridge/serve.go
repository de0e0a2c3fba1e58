package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/drone"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// apiTimeout bounds one call to Gitea, with its wait for one of the client's connections. A call that is cut off is
// repeated, so it must be longer than Gitea's slowest good answer.
const apiTimeout = 15 * time.Second

// recordTime is how long Gitea may take to record a push in a pull request's timeline: it does so in a queue.
const recordTime = 20 * time.Second

// firstRetry is the wait after a first failed call; it doubles. Short, because the eyes are to be there within a
// second even if Gitea is busy for a moment: on SQLite it answers 500 while its database is locked, and a fourth call
// after three of these comes after 0.7 s of waiting.
const firstRetry = 100 * time.Millisecond

// twinTime is how long a demand whose answer was lost may still become a build beside the one that was asked for again.
const twinTime = 15 * time.Minute

// stopTimeout bounds the answers to hooks that are under way when the bridge stops, and then the calls.
const stopTimeout = 10 * time.Second

// serveCmd is the daemon.
type serveCmd struct{}

// Run serves until ctx ends. What it opens it closes, the journal last: the bridge writes to it until it has ended.
func (serveCmd) Run(ctx context.Context, std stdio) (err error) {
	cfg, err := settings()
	if err != nil {
		return err
	}
	log := logrus.New()
	log.SetOutput(std.err)
	level, err := logrus.ParseLevel(cfg.LogLevel)
	if err != nil {
		return errConfig{err}
	}
	log.SetLevel(level)
	// The journal first: while another bridge has it, nothing else is touched.
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("%sSTATE_DIR: %w", prefix, err)
	}
	store, err := journal.Open(filepath.Join(cfg.StateDir, "journal.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	audit, err := os.OpenFile(filepath.Join(cfg.StateDir, "audit.jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	defer func() { err = errors.Join(err, audit.Close()) }()
	settings, err := cfg.bridge()
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	settings.Journal, settings.Audit, settings.Registry, settings.Log = store, audit, registry, logrus.NewEntry(log)
	b, err := bridge.New(settings)
	if err != nil {
		return err
	}
	hooks, status, err := listen(cfg)
	if err != nil {
		return err
	}
	up := logrus.Fields{"version": versionText(), "listen": hooks.Addr().String()}
	if status != nil {
		up["status"] = status.Addr().String()
	}
	log.WithFields(up).Info("the bridge is up")
	if _, err := systemd.SdNotify(false, systemd.SdNotifyReady); err != nil {
		log.WithError(err).Warn("systemd could not be told")
	}
	servers := []*server{{listener: hooks, http: hookServer(b.Handler())}}
	if status != nil {
		servers = append(servers, &server{listener: status, http: hookServer(statusHandler(b, registry))})
	}
	return serve(ctx, b, servers)
}

// server is one listener with what answers on it.
type server struct {
	listener net.Listener
	http     *http.Server
}

// serve runs the bridge and its servers. When ctx or a server ends, hooks under way are answered first, then the
// bridge stops between two steps; everything unfinished is in the journal.
func serve(ctx context.Context, b *bridge.Bridge, servers []*server) error {
	// The work outlives ctx by the hooks under way: what they accept must still find a bridge that takes it.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	ended := make(chan error, len(servers)+1)
	var all sync.WaitGroup
	for _, s := range servers {
		all.Go(func() {
			err := s.http.Serve(s.listener)
			if errors.Is(err, http.ErrServerClosed) {
				err = nil
			}
			ended <- err
			cancel()
		})
	}
	all.Go(func() {
		ended <- b.Run(work)
		cancel()
	})
	<-ctx.Done()
	grace, done := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer done()
	var faults []error
	for _, s := range servers {
		faults = append(faults, s.http.Shutdown(grace))
	}
	stopWork()
	// A call to Drone may take longer than whoever stops the bridge waits. What it would have brought is in the
	// journal as not known, and the next start looks for it.
	limit := time.NewTimer(stopTimeout)
	defer limit.Stop()
	for range len(servers) + 1 {
		select {
		case err := <-ended:
			faults = append(faults, err)
		case <-limit.C:
			return errors.Join(faults...)
		}
	}
	all.Wait()
	return errors.Join(faults...)
}

// hookServer bounds what a slow or greedy client can hold.
func hookServer(handler http.Handler) *http.Server {
	// Gitea itself gives up after five seconds, so nobody honest is cut off by these.
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
}

// statusHandler serves what operators look at: alive, ready, and the metrics. It has an address of its own, so that
// what faces the network need not show them.
func statusHandler(b *bridge.Bridge, registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n") // a client that is gone needs no answer
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := b.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n") // a client that is gone needs no answer
	})
	return mux
}

// listen opens the sockets; one or two that systemd passes replace the hooks' and the status's. Only the one for
// hooks is bounded: the other is for machines that one trusts.
func listen(cfg *config) (hooks, status net.Listener, err error) {
	passed, err := activation.Listeners()
	if err != nil {
		return nil, nil, fmt.Errorf("sockets from systemd: %w", err)
	}
	if len(passed) > 0 && passed[0] != nil {
		hooks = passed[0]
	} else if hooks, err = net.Listen("tcp", cfg.Listen); err != nil {
		return nil, nil, fmt.Errorf("%sLISTEN: %w", prefix, err)
	}
	switch {
	case len(passed) > 1 && passed[1] != nil:
		status = passed[1]
	case cfg.StatusListen != "":
		if status, err = net.Listen("tcp", cfg.StatusListen); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("%sSTATUS_LISTEN: %w", prefix, err), hooks.Close())
		}
	}
	return newCapped(hooks, cfg.MaxConnections), status, nil
}

// bridge translates the settings; journal, audit log, metrics and log are added by who owns them. Doctor does without
// them.
func (c *config) bridge() (bridge.Config, error) {
	giteaURL, err := url.Parse(c.GiteaURL)
	if err != nil {
		return bridge.Config{}, errConfig{err}
	}
	droneURL, err := url.Parse(c.DroneURL)
	if err != nil {
		return bridge.Config{}, errConfig{err}
	}
	// The administrator's token is not among this: the daemon never holds a client with it.
	forge, err := gitea.New(giteaURL, c.GiteaToken, apiTimeout)
	if err != nil {
		return bridge.Config{}, err
	}
	return bridge.Config{
		Gitea: forge, Drone: drone.New(droneURL, c.DroneToken, c.CIRepo, c.CIBranch),
		Secrets: c.hookSecrets(), DroneSecret: c.DroneSecret,
		Repos: c.Repos, Recipes: c.recipes(), Access: c.Access, Users: c.Users, Teams: c.Teams, Policy: c.PushPolicy,
		MaxAge: c.MaxAge, Quiet: c.Quiet, Record: recordTime, Deadline: c.Deadline, GiveUp: c.GiveUp, Settle: c.Settle, Twins: twinTime,
		Poll: c.Poll, PollMax: c.PollMax, CatchUp: c.CatchUp, Grace: c.Grace, Keep: c.Keep,
		Queue: c.Queue, UserBurst: c.UserBurst, UserEvery: c.UserEvery, PullBurst: c.PullBurst, PullEvery: c.PullEvery,
		RepoBurst: c.RepoBurst, RepoEvery: c.RepoEvery, RetryFirst: firstRetry, RetryMax: 30 * time.Second,
	}, nil
}
