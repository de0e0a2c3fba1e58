package logs

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
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
