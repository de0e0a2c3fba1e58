package runtime

import (
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/client"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// realTime makes the rig's runner as patient as a real one.
func (g *rig) realTime() *rig {
	api, err := client.New(client.Config{Proto: g.srv.Proto, Host: g.srv.Host, Secret: g.srv.Secret})
	if err != nil {
		g.t.Fatal(err)
	}
	g.client, g.runner.cfg.Server, g.runner.pulse = api, api, newPulse(api, defaultTiming().stopped)
	g.runner.setTiming(defaultTiming())
	return g
}

// BenchmarkStop is how long a stop takes while a call of a stage hangs: at Accept, and at its final report.
func BenchmarkStop(b *testing.B) {
	for _, call := range []runtimetest.Call{runtimetest.Accept, runtimetest.Detail, runtimetest.StepFinal, runtimetest.StageFinal} {
		b.Run(string(call), func(b *testing.B) {
			var total time.Duration
			for range b.N {
				g := newRig(b).realTime()
				g.srv.Script(call, runtimetest.Hang())
				g.start()
				g.build(testStep{Name: "a", Sh: "true"})
				g.srv.WaitRequests(call, 1)
				time.Sleep(time.Second)
				total += g.halt()
			}
			b.ReportMetric(total.Seconds()/float64(b.N)*1000, "ms/stop")
		})
	}
}

// BenchmarkPickup is the time from a build's creation to its acceptance by an idle runner.
func BenchmarkPickup(b *testing.B) {
	g := newRig(b).realTime().start()
	var total time.Duration
	for range b.N {
		begun := time.Now()
		n := len(g.srv.Requests(runtimetest.Accept))
		job := g.build(testStep{Name: "a", Sh: "true"})
		total += g.srv.WaitRequests(runtimetest.Accept, n+1)[n].Time.Sub(begun)
		g.settled(job.Stage)
	}
	b.ReportMetric(total.Seconds()/float64(b.N)*1000, "ms/pickup")
}

// BenchmarkStage is the whole of a stage with one step that does nothing.
func BenchmarkStage(b *testing.B) {
	g := newRig(b).realTime().start()
	for b.Loop() {
		g.settled(g.build(testStep{Name: "a", Sh: "true"}).Stage)
	}
}
