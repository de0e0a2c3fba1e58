package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
)

// BenchmarkHooks posts signed commands to the program, each of another comment, and shows what a forge sees: hooks a
// second, the answer's median and 99th percentile, and the program's memory after it. Each is on disk before its
// answer; the commands themselves are refused by the user's limit, which costs two more writes each.
func BenchmarkHooks(b *testing.B) {
	for _, connections := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(connections), func(b *testing.B) {
			d := newDaemon(b, "USER_BURST=1", "USER_EVERY=24h", "QUEUE=100000")
			d.start()
			_, body := d.gitea.Comment("wim", 1, "!testme")
			id := []byte(`"id": 1,`)
			if bytes.Count(body, id) != 1 {
				b.Fatalf("the body holds the comment's id %d times", bytes.Count(body, id))
			}
			took := make([]time.Duration, b.N)
			b.ResetTimer()
			start := time.Now()
			var wait sync.WaitGroup
			for c := range connections {
				wait.Go(func() {
					for i := c; i < b.N; i += connections {
						one := bytes.Replace(body, id, fmt.Appendf(nil, `"id": %d,`, i+1000), 1)
						sent := time.Now()
						if code, err := bridgetest.Send(d.hook+"/hook", one); code != 202 || err != nil {
							b.Errorf("answered %d: %v", code, err)
							return
						}
						took[i] = time.Since(sent)
					}
				})
			}
			wait.Wait()
			all := time.Since(start)
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(b.N)/all.Seconds(), "hooks/s")
			b.ReportMetric(float64(took[b.N/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[b.N*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(memory(b, d.cmd.Process.Pid), "rss-MB")
			d.stop()
		})
	}
}

// BenchmarkHooksPaced posts 200 hooks a second, as a busy forge does, and shows the answers' times.
func BenchmarkHooksPaced(b *testing.B) {
	d := newDaemon(b, "USER_BURST=1", "USER_EVERY=24h", "QUEUE=100000")
	d.start()
	_, body := d.gitea.Comment("wim", 1, "!testme")
	took := make([]time.Duration, b.N)
	tick := time.NewTicker(time.Second / 200)
	defer tick.Stop()
	b.ResetTimer()
	var wait sync.WaitGroup
	for i := range b.N {
		<-tick.C
		wait.Go(func() {
			one := bytes.Replace(body, []byte(`"id": 1,`), fmt.Appendf(nil, `"id": %d,`, i+1000), 1)
			sent := time.Now()
			if code, err := bridgetest.Send(d.hook+"/hook", one); code != 202 || err != nil {
				b.Errorf("answered %d: %v", code, err)
			}
			took[i] = time.Since(sent)
		})
	}
	wait.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[b.N/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[b.N*99/100].Microseconds())/1000, "p99-ms")
	d.stop()
}

// memory is a process's resident memory in MB.
func memory(b *testing.B, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	var kb float64
	for _, line := range strings.Split(string(text), "\n") {
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kb); err == nil {
			return kb / 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}
