//go:build linux

package process

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// BenchmarkSpawn is the price of one command, from Run to its Exit.
func BenchmarkSpawn(b *testing.B) {
	for _, cfg := range []Config{{}, {ShareMounts: true}, {Mode: Subreaper}} {
		b.Run(fmt.Sprintf("%s/shared=%t", cfg.Mode, cfg.ShareMounts), func(b *testing.B) {
			h := openHost(b, cfg)
			build := newBuild(b, h, Build{})
			c := shell(build, "")
			c.Args = []string{"/bin/true"}
			for b.Loop() {
				mustRun(b, h, c)
			}
		})
	}
}

// BenchmarkTeardown is the end of a build with that many processes that ignore SIGTERM, beyond the grace period.
func BenchmarkTeardown(b *testing.B) {
	for _, mode := range []Mode{"", Subreaper} {
		for _, n := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", mode, n), func(b *testing.B) {
				if os.Getenv("CC_CI_TEST_FULL") == "" && n > 100 {
					b.Skip("set CC_CI_TEST_FULL=1")
				}
				h := openHost(b, Config{Mode: mode, Grace: 1, KeepLeftovers: true})
				for b.Loop() {
					b.StopTimer()
					build := newBuild(b, h, Build{})
					script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do sleep 1000 >/dev/null 2>&1 & i=$((i+1)); done", n)
					exit, _ := mustRun(b, h, shell(build, script))
					if len(exit.Leftovers) != n {
						b.Fatalf("%d processes", len(exit.Leftovers))
					}
					b.StartTimer()
					ended, err := h.Teardown(b.Context(), build.Name)
					if err != nil || len(ended) != n || !strings.HasPrefix(ended[0].Detail, "sleep") {
						b.Fatal(len(ended), err)
					}
				}
			})
		}
	}
}
