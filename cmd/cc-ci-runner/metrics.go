package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime"
)

// metrics are what /metrics serves; docs/operations.md lists them. No label holds a value that a pipeline chooses:
// each new value is a series for ever, and whoever may push could fill the memory. The fields are safe for concurrent
// use.
type metrics struct {
	registry   *prometheus.Registry
	info       *prometheus.GaugeVec
	polls      *prometheus.CounterVec
	pickup     prometheus.Histogram
	stages     *prometheus.CounterVec
	stageTime  prometheus.Histogram
	steps      *prometheus.CounterVec
	cpu        prometheus.Counter
	peakMemory prometheus.Histogram
	teardown   prometheus.Histogram
	items      *prometheus.CounterVec
}

const namespace = "cc_ci_runner"

func newMetrics() *metrics {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
	}
	// From a build that fails at once to two hours; the repository's timeout is an hour by default.
	minutes := []float64{1, 5, 15, 60, 300, 900, 1800, 3600, 7200}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		info: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: "info",
			Help: "1, with the version and the way builds are contained."}, []string{"version", "containment"}),
		polls:      counters("polls_total", "Requests for a stage, by result.", "result"),
		pickup:     histogram("pickup_seconds", "From a stage's creation to its acceptance.", []float64{.1, .5, 1, 2, 5, 10, 30, 60, 300}),
		stages:     counters("stages_total", "Stages that ended, by status.", "status"),
		stageTime:  histogram("stage_seconds", "How long stages took.", minutes),
		steps:      counters("steps_total", "Steps that ended, by status.", "status"),
		cpu:        prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "step_cpu_seconds_total", Help: "Processor time of steps."}),
		peakMemory: histogram("step_peak_memory_bytes", "Peak memory of steps, where the host can tell.", prometheus.ExponentialBuckets(1<<20, 4, 9)),
		teardown:   histogram("teardown_seconds", "How long teardowns took.", []float64{.1, .5, 1, 2, 5, 10, 30, 60, 120}),
		items:      counters("teardown_items_total", "What teardowns found: left behind by pipelines (removed), kept on purpose, survived.", "what"),
	}
	m.registry.MustRegister(m.info, m.polls, m.pickup, m.stages, m.stageTime, m.steps, m.cpu, m.peakMemory, m.teardown, m.items,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) mode(mode string) { m.info.WithLabelValues(version, mode).Set(1) }

// watch adds what is read from the runner at each scrape. It comes after the runner is made, and once: registering
// twice panics.
func (m *metrics) watch(status func() runtime.Status) {
	gauge := func(name, help string, value func(runtime.Status) float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help},
			func() float64 { return value(status()) }))
	}
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	gauge("capacity", "Stages that may run at once.", func(s runtime.Status) float64 { return float64(s.Capacity) })
	gauge("running", "Stages that run.", func(s runtime.Status) float64 { return float64(len(s.Running)) })
	gauge("undelivered", "Stages that ended here without the server knowing it.", func(s runtime.Status) float64 { return float64(s.Undelivered) })
	gauge("server_up", "1 when the last request for a stage was answered well.", func(s runtime.Status) float64 { return truth(s.Poll.OK) })
	gauge("paused", "1 while no stages are taken on purpose.", func(s runtime.Status) float64 { return truth(s.Poll.Paused != "") })
}

// hooks feed the metrics and the dashboard. The runner calls them from the goroutines of slots and stages, and waits
// for them.
func (d *daemon) hooks() runtime.Hooks {
	m := d.metrics
	return runtime.Hooks{
		Polled: func(err error) {
			result := "ok"
			if err != nil {
				result = "error"
			}
			m.polls.WithLabelValues(result).Inc()
		},
		Accepted: func(pickup time.Duration) { m.pickup.Observe(pickup.Seconds()) },
		StepEnded: func(e runtime.StepEnd) {
			m.steps.WithLabelValues(e.Status).Inc()
			m.cpu.Add(e.CPUSeconds)
			if e.PeakMemory > 0 {
				m.peakMemory.Observe(float64(e.PeakMemory))
			}
		},
		StageEnded: func(e runtime.StageEnd) {
			m.stages.WithLabelValues(e.Status).Inc()
			m.stageTime.Observe(e.Took.Seconds())
			d.ended.add(e)
			select {
			case d.stageEnded <- struct{}{}:
			default: // rest has yet to look at an earlier one
			}
			// The one that ends is still counted.
			d.docker.ownerless(func() bool { return len(d.runner.Status().Running) <= 1 }, d.log.entry)
		},
		TornDown: func(report *engine.Report, _ error) {
			m.teardown.Observe(report.Seconds)
			m.items.WithLabelValues("leftover").Add(float64(len(report.Leftovers)))
			m.items.WithLabelValues("kept").Add(float64(len(report.Kept)))
			m.items.WithLabelValues("survivor").Add(float64(len(report.Survivors)))
		},
	}
}
