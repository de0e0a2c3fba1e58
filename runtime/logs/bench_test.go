package logs

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/drone/drone-go/drone"
)

// sampleLog is text as builds print it.
func sampleLog(size int) []byte {
	r := rand.New(rand.NewPCG(7, 7))
	words := strings.Fields(`Step RUN apt-get install --no-install-recommends ca-certificates Downloading sha256:
		building src/app/main.go:42 warning: unused variable done in 1.2s GET https://registry.example.com/v2/ 200
		compose service web_1 healthy 2026-01-02T15:04:05Z INFO migrate table users ok deadbeef cafebabe0123`)
	var text strings.Builder
	for text.Len() < size {
		for range 6 + r.IntN(10) {
			text.WriteString(words[r.IntN(len(words))])
			text.WriteByte(' ')
		}
		fmt.Fprintf(&text, "%x\n", r.Uint64())
	}
	return []byte(text.String()[:size])
}

func randomSecrets(count int) []string {
	r := rand.New(rand.NewPCG(3, 3))
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	secrets := make([]string, count)
	for i := range secrets {
		secret := make([]byte, 32)
		for j := range secret {
			secret[j] = letters[r.IntN(len(letters))]
		}
		secrets[i] = string(secret)
	}
	return secrets
}

func benchmarkStream(b *testing.B, m *Masker, text []byte) {
	w := m.Writer(io.Discard)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		for i := 0; i < len(text); i += maxScan {
			if _, err := w.Write(text[i:min(i+maxScan, len(text))]); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkMask(b *testing.B) {
	text := sampleLog(1 << 20)
	for _, needles := range []int{1, 10, 200, 1000} {
		b.Run(fmt.Sprintf("needles=%d", needles), func(b *testing.B) {
			benchmarkStream(b, &Masker{auto: newAutomaton(randomSecrets(needles))}, text)
		})
	}
	for _, secrets := range []int{0, 1, 20, 100} {
		b.Run(fmt.Sprintf("secrets=%d", secrets), func(b *testing.B) {
			m := NewMasker(randomSecrets(secrets))
			benchmarkStream(b, m, text)
			b.ReportMetric(float64(len(m.auto.nodes)), "states")
		})
	}
}

// BenchmarkMaskHostile feeds what is made to cost the most.
func BenchmarkMaskHostile(b *testing.B) {
	blanks := strings.Repeat("a\x1b[m  ", 1<<18)[:1<<20]
	for name, c := range map[string]struct{ secret, text string }{
		"repeat":  {strings.Repeat("a", 40) + "b", strings.Repeat("a", 1<<20)},
		"all":     {"aaa", strings.Repeat("a", 1<<20)},
		"many":    {"abc", strings.Repeat("abc ", 1<<18)},
		"blanks":  {"a a a a a a a a a a a a a b", blanks},
		"escapes": {"abc", strings.Repeat("\x1b[000000000000000000000000", 1<<16)},
	} {
		b.Run(name, func(b *testing.B) { benchmarkStream(b, NewMasker([]string{c.secret}), []byte(c.text)) })
	}
}

// BenchmarkOutage is a step of another process that writes 1 GiB while the server hangs, with 20 secrets: from the
// step's start to its last byte on disk, and the runner's peak memory including the upload afterwards.
func BenchmarkOutage(b *testing.B) {
	const size = 1 << 30
	for b.Loop() {
		o := runOutage(b, newServer(b), size)
		b.ReportMetric(float64(size)/1e3/float64(o.milliseconds), "MB/s")
		b.ReportMetric(float64(o.cpuMilliseconds)/1e3, "cpu-s")
		b.ReportMetric(float64(o.peakKiB)/1024, "peak-MiB")
	}
}

// BenchmarkNewMasker is what a stage pays once: 20 secrets and a private key of 50 lines.
func BenchmarkNewMasker(b *testing.B) {
	secrets := append(randomSecrets(20), strings.Join(randomSecrets(100), "\n"))
	for b.Loop() {
		b.ReportMetric(float64(len(NewMasker(secrets).auto.nodes)), "states")
	}
}

// nowhere is a server that takes everything.
type nowhere struct{}

func (nowhere) Batch(context.Context, int64, []*drone.Line) error  { return nil }
func (nowhere) Upload(context.Context, int64, []*drone.Line) error { return nil }

// BenchmarkLog is the whole path within the process, from Write to the end of Close, with 20 secrets.
func BenchmarkLog(b *testing.B) {
	for name, c := range map[string]struct {
		line  string
		count int
	}{
		"200000x100": {string(sampleLog(99)), 200_000},
		"5200000x1":  {"x", 5_200_000},
		"64MiB-line": {strings.Repeat("x", 64<<20), 1},
	} {
		b.Run(name, func(b *testing.B) {
			masker := NewMasker(randomSecrets(20))
			all := []byte(strings.Repeat(strings.ReplaceAll(c.line, "\n", " ")+"\n", c.count))
			b.SetBytes(int64(len(all)))
			for b.Loop() {
				l := open(b, Config{Dir: b.TempDir(), Sink: nowhere{}, Masker: masker})
				for i := 0; i < len(all); i += maxScan {
					if _, err := l.Write(all[i:min(i+maxScan, len(all))]); err != nil {
						b.Fatal(err)
					}
				}
				closeLog(b, l)
			}
		})
	}
}
