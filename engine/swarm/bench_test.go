package swarm_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// report gives percentiles in milliseconds.
func report(b *testing.B, took []time.Duration, percent ...int) {
	slices.Sort(took)
	for _, p := range percent {
		at := took[min(len(took)-1, len(took)*p/100)]
		b.ReportMetric(float64(at.Microseconds())/1000, fmt.Sprintf("p%d-ms", p))
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkAPI is the latency of two calls, past the build's socket and through it.
func BenchmarkAPI(b *testing.B) {
	h := newHost(b, nil)
	j := h.attach("cc-ci-test-bench", nil)
	id := j.do("run", "-d", swarmtest.Image)
	through, err := client.New(client.WithHost("unix://" + j.socket))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = through.Close() })
	for name, c := range map[string]*client.Client{"direct": h.d.Client, "through": through} {
		for call, do := range map[string]func() error{
			"list": func() error {
				_, err := c.ContainerList(b.Context(), client.ContainerListOptions{})
				return err
			},
			"inspect": func() error {
				_, err := c.ContainerInspect(b.Context(), id, client.ContainerInspectOptions{})
				return err
			},
		} {
			b.Run(call+"/"+name, func(b *testing.B) {
				var took []time.Duration
				for b.Loop() {
					start := time.Now()
					if err := do(); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(start))
				}
				report(b, took, 50, 99)
			})
		}
	}
}

// BenchmarkStreams carries 200 MB each way.
func BenchmarkStreams(b *testing.B) {
	h := newHost(b, nil)
	j := h.attach("cc-ci-test-streams", nil)
	j.do("run", "-d", "--name", "big", swarmtest.Image)
	j.do("exec", "big", "sh", "-c", "dd if=/dev/urandom of=/big bs=1M count=200 2>/dev/null")
	j.do("commit", "big", "big:1")
	saved := b.TempDir() + "/big.tar"
	j.do("save", "-o", saved, "big:1")
	copied := b.TempDir() + "/copy.tar"
	j.do("exec", "big", "mkdir", "/in")
	if out, err := exec.Command("sh", "-c", "DOCKER_HOST="+h.d.Host+" docker cp big:/big - >"+copied).CombinedOutput(); err != nil {
		b.Fatal(err, string(out))
	}
	for _, stream := range [][2]string{
		{"save", "docker save big:1 >/dev/null"},
		{"load", "docker load -qi " + saved},
		{"cp-out", "docker cp big:/big - >/dev/null"},
		{"cp-in", "docker cp - big:/in <" + copied},
		{"exec", "docker exec big cat /big >/dev/null"},
	} {
		b.Run(stream[0], func(b *testing.B) {
			var direct, through []time.Duration
			for b.Loop() { // in turns, so that the disk's and the machine's moods meet both
				direct = append(direct, timed(b, h.d.Host, stream[1]))
				through = append(through, timed(b, "unix://"+j.socket, stream[1]))
			}
			d, t := median(direct), median(through)
			b.ReportMetric(200/d.Seconds(), "direct-MB/s")
			b.ReportMetric(200/t.Seconds(), "through-MB/s")
			b.ReportMetric(100*d.Seconds()/t.Seconds(), "%-of-direct")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// timed runs a script of docker commands against an endpoint.
func timed(b *testing.B, endpoint, script string) time.Duration {
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(cmd.Environ(), "DOCKER_HOST="+endpoint)
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatal(err, string(out))
	}
	return time.Since(start)
}

// median is the middle one of some times.
func median(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)/2]
}

// BenchmarkTeardown removes stacks of several sizes.
func BenchmarkTeardown(b *testing.B) {
	for _, services := range []int{2, 6, 12} {
		b.Run(fmt.Sprint("services=", services), func(b *testing.B) {
			h := newHost(b, nil)
			var text strings.Builder
			text.WriteString("version: \"3.8\"\nservices:\n")
			for i := range services {
				fmt.Fprintf(&text, "  s%d:\n    image: %s\n    volumes: [\"v%d:/v\"]\n", i, swarmtest.Image, i)
			}
			text.WriteString("volumes:\n")
			for i := range services {
				fmt.Fprintf(&text, "  v%d: {}\n", i)
			}
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				j := h.attach(fmt.Sprint("cc-ci-test-td", services, "-", i), nil)
				j.deploy("bench", text.String())
				for s := range services {
					j.running(fmt.Sprint("bench_s", s), 1)
				}
				start := time.Now()
				j.teardown()
				took = append(took, time.Since(start))
			}
			report(b, took, 50, 95)
		})
	}
}

// BenchmarkLeakCheck looks for a build's objects among 500 services, 2,000 volumes and 2,000 secrets of others.
func BenchmarkLeakCheck(b *testing.B) {
	h := newHost(b, nil)
	ctx, c := b.Context(), h.d.Client
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			for i := part; i < 2000; i += 4 {
				_, err := c.VolumeCreate(ctx, client.VolumeCreateOptions{Name: fmt.Sprint("many", i)})
				if err == nil {
					_, err = c.SecretCreate(ctx, client.SecretCreateOptions{Spec: swarm.SecretSpec{
						Annotations: swarm.Annotations{Name: fmt.Sprint("many", i)}, Data: []byte("x")}})
				}
				if err == nil && i < 500 {
					zero := uint64(0)
					_, err = c.ServiceCreate(ctx, client.ServiceCreateOptions{Spec: swarm.ServiceSpec{
						Annotations:  swarm.Annotations{Name: fmt.Sprint("many", i)},
						Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &zero}},
						TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: swarmtest.Image}}}})
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.Run("remaining", func(b *testing.B) {
		var took []time.Duration
		for b.Loop() {
			start := time.Now()
			if _, err := h.swarm.Remaining(ctx, "cc-ci-test-none"); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start))
		}
		report(b, took, 50, 99)
	})
	b.Run("snapshot", func(b *testing.B) {
		var took []time.Duration
		for b.Loop() {
			start := time.Now()
			if _, err := h.swarm.Snapshot(ctx); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start))
		}
		report(b, took, 50, 99)
	})
	for _, kind := range []string{"service", "secret", "volume"} {
		h.direct(append([]string{kind, "rm"}, strings.Fields(h.direct(kind, "ls", "-q"))...)...)
	}
}
