package bridge

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the numbers that /metrics shows. Labels come from fixed sets, never from users: a label that an
// attacker can choose fills the memory of whoever collects them.
//
// What to watch: retries that grow mean a server is away, hooks answered "signature does not fit" mean a secret
// differs, and a live gauge near QUEUE means that commands are about to be refused.
type metrics struct {
	hooks     *prometheus.CounterVec
	decisions *prometheus.CounterVec
	results   *prometheus.CounterVec
	retries   *prometheus.CounterVec
	live      prometheus.Gauge
	reply     prometheus.Histogram
}

// newMetrics makes the metrics known to a registry. Their names are what dashboards rest on: docs/bridge.md promises
// the prefix.
func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		hooks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cc_ci_bridge_hooks_total", Help: "Hooks by what was answered.",
		}, []string{"answer"}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cc_ci_bridge_decisions_total", Help: "Decisions about commands, by rule.",
		}, []string{"decision", "rule"}),
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cc_ci_bridge_results_total", Help: "Runs by how they ended.",
		}, []string{"status"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cc_ci_bridge_retries_total", Help: "Calls that failed and are repeated, by the state of the request.",
		}, []string{"state"}),
		live: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "cc_ci_bridge_requests_live", Help: "Requests that are not finished.",
		}),
		reply: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cc_ci_bridge_hook_seconds", Help: "Time from a hook's last byte to its answer.",
			// Gitea waits five seconds for an answer; what matters lies around the disk's few milliseconds.
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .5, 1, 5},
		}),
	}
	// By hand and not through promauto, which panics: two bridges in one process are an error, not a crash.
	for _, c := range []prometheus.Collector{m.hooks, m.decisions, m.results, m.retries, m.live, m.reply} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metric: %w", err)
		}
	}
	return m, nil
}
