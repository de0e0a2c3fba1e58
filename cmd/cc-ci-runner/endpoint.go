package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/drone/drone-go/drone"
	"github.com/drone/runner-go/handler/router"
	"github.com/drone/runner-go/pipeline"
	"github.com/drone/runner-go/pipeline/reporter/history"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime"
)

// endpoint serves health, readiness, metrics and the dashboard. A nil listener means that the default address was
// taken and nobody had asked for it. It is read by people and monitors only; no build depends on it.
type endpoint struct {
	listener net.Listener
	server   *http.Server
	log      *logrus.Entry
}

// newEndpoint takes the port, so that a busy one is known before the first build, and answers nothing yet: that is
// serve's.
func newEndpoint(ctx context.Context, d *daemon) (*endpoint, error) {
	e := &endpoint{log: d.log.entry}
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", d.config.HTTPBind)
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && d.config.HTTPBind == defaultBind:
		d.log.entry.Warnf("%s, the default of DRONE_HTTP_BIND, is in use (it is Gitea's default too): no health, metrics and dashboard; set DRONE_HTTP_BIND", defaultBind)
	case err != nil:
		return nil, fmt.Errorf("DRONE_HTTP_BIND: %w", err)
	default:
		e.listener = bound(listener)
	}
	// The address may be open to the network (:3000 is the default): a client that says nothing or reads nothing must
	// not hold a connection for ever.
	e.server = &http.Server{
		Handler:           d.routes(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       time.Minute,
	}
	return e, nil
}

// maxClients is how many connections the endpoint has at a time; further ones wait. A build's steps reach it on loopback,
// where they could else take all of the runner's files, without which no other build can go on.
const maxClients = 128

// bounded is a listener that accepts so many connections as there are slots.
type bounded struct {
	net.Listener
	slots  chan struct{} // one for each open connection
	closed chan struct{} // by Close, for an Accept that waits for a slot
	once   sync.Once
}

func bound(l net.Listener) *bounded {
	return &bounded{Listener: l, slots: make(chan struct{}, maxClients), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	return &guest{Conn: c, leave: sync.OnceFunc(func() { <-b.slots })}, nil
}

// Close implements net.Listener.
func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

// guest is a connection that gives its slot back.
type guest struct {
	net.Conn
	leave func()
}

// Close implements net.Conn. It may be called again.
func (c *guest) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// serve answers until the context ends, and then lets running requests end for two seconds. That it cannot answer any
// more does not end the runner.
func (e *endpoint) serve(ctx context.Context) {
	if e.listener == nil {
		return
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := e.server.Shutdown(late); err != nil {
			e.log.WithError(err).Warn("a request was cut off at the end")
		}
	}()
	if err := e.server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
		e.log.WithError(err).Error("health, metrics and dashboard are gone")
	}
	<-stopped
}

// routes are the paths of the endpoint. /healthz asks nothing, because it means only that the process lives: a monitor
// that restarts the runner for an unreachable server would stop its builds. Call it once: it registers metrics.
func (d *daemon) routes() http.Handler {
	mux := http.NewServeMux()
	d.metrics.watch(d.runner.Status)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", d.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.metrics.registry, promhttp.HandlerOpts{}))
	if d.config.UIPassword != "" && !d.config.UIDisable {
		mux.HandleFunc("/", d.dashboard)
	}
	return mux
}

// readiness is the answer of /readyz. Monitors read it, so its names stay; docs/operations.md lists them in words.
type readiness struct {
	Ready       bool   `json:"ready"`
	Reason      string `json:"reason,omitempty"`
	Running     int    `json:"running"`
	Capacity    int    `json:"capacity"`
	Undelivered int    `json:"undelivered"`
	Containment string `json:"containment"`
}

// patience is how long the server may be away before the runner is not ready: about one long poll, so that a restart
// of the server does not show.
const patience = 30 * time.Second

// ready answers 200 when builds are taken, else 503 with the reason.
func (d *daemon) ready(w http.ResponseWriter, _ *http.Request) {
	status := d.runner.Status()
	answer := readiness{
		Ready: true, Running: len(status.Running), Capacity: status.Capacity,
		Undelivered: status.Undelivered, Containment: d.processes.Mode().String(),
	}
	answer.Reason = d.unready(status, patience)
	w.Header().Set("Content-Type", "application/json")
	if answer.Reason != "" {
		answer.Ready = false
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// An error here means that the one who asked has gone.
	_ = json.NewEncoder(w).Encode(answer)
}

// unready is why no builds are taken; a server that has been away for less than patience is no reason yet. The order
// is that of what an admin would do about it: a drain was asked for, a pause is about this host.
func (d *daemon) unready(status runtime.Status, patience time.Duration) string {
	switch poll := status.Poll; {
	case status.Draining:
		return "draining"
	case poll.Paused != "":
		return poll.Paused
	case poll.Since.IsZero():
		return "the server has not answered yet"
	case !poll.OK && time.Since(poll.Since) > patience:
		return "the server does not answer"
	}
	return ""
}

// ended keeps the newest stages that ended, for the dashboard. It may be used by several goroutines. Nothing of it
// survives a restart.
type ended struct {
	mu     sync.Mutex
	stages []runtime.StageEnd
}

// maxEnded is how many stages the dashboard shows, and the limit of the library's history, which beyond it drops the
// newest (runner-go's pipeline/reporter/history).
const maxEnded = 25

func (h *ended) add(e runtime.StageEnd) {
	if e.Build == nil || e.Origin == nil {
		return // the dashboard has no place for a stage of which nothing is known
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stages = append(h.stages, e)
	if len(h.stages) > maxEnded {
		h.stages = slices.Delete(h.stages, 0, 1)
	}
}

// newest are the stages that ended last, at most n, oldest first; none where n is negative, as it is when more run than
// the dashboard shows.
func (h *ended) newest(n int) []runtime.StageEnd {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.stages[max(0, len(h.stages)-max(0, n)):])
}

// dashboard serves runner-go's pages. Its history keeps the oldest stages instead of the newest, so it is given a new
// one, with ours, at each request.
func (d *daemon) dashboard(w http.ResponseWriter, r *http.Request) {
	page := d.ended.page(r.Context(), d.runner.Status().Running)
	router.New(page, d.log.recent, router.Config{
		Username: d.config.UIUsername, Password: string(d.config.UIPassword), Realm: d.config.UIRealm,
	}).ServeHTTP(w, r)
}

// page is a history of the stages that run and, as far as there is room beside them, of the newest that ended. The
// library copies what it is given.
func (h *ended) page(ctx context.Context, running []runtime.Running) *history.History {
	page := history.New(discard{})
	for _, e := range h.newest(maxEnded - len(running)) {
		running = append(running, runtime.Running{Stage: e.Snapshot, Build: e.Build, Origin: e.Origin})
	}
	for _, s := range running {
		if s.Build == nil || s.Origin == nil {
			continue
		}
		// The reporter behind the history is discard, which never fails.
		_ = page.ReportStage(ctx, &pipeline.State{Build: s.Build, Repo: s.Origin, Stage: s.Stage, System: &drone.System{}})
	}
	return page
}

// discard is a reporter that reports to nobody.
type discard struct{}

func (discard) ReportStage(context.Context, *pipeline.State) error        { return nil }
func (discard) ReportStep(context.Context, *pipeline.State, string) error { return nil }
