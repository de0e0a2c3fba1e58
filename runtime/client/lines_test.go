package client

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/drone/drone-go/drone"
)

// TestLineReader compares the streamed JSON with that of the standard library, whatever the size of the reads.
func TestLineReader(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		log := make([]*drone.Line, random.IntN(400))
		for i := range log {
			log[i] = &drone.Line{Number: i, Timestamp: random.Int64N(100),
				Message: strings.Repeat("é\x1b[0m\"\xff<\n", random.IntN(100))}
		}
		want, err := json.Marshal(log)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []io.Reader{&lineReader{lines: log}, iotest.OneByteReader(&lineReader{lines: log}), iotest.HalfReader(&lineReader{lines: log})} {
			got, err := io.ReadAll(r)
			if err != nil || string(got) != string(want) {
				t.Fatalf("%d lines: %d bytes, want %d (%v)", len(log), len(got), len(want), err)
			}
		}
	}
	if err := iotest.TestReader(&lineReader{}, []byte("[]")); err != nil {
		t.Error(err)
	}
}

// BenchmarkUpload sends a log of two million lines of 60 bytes, and prints how much the heap grew over the lines
// themselves while it did: a marshalled copy of them would be about 190 MB.
func BenchmarkUpload(b *testing.B) {
	const count = 2_000_000
	var peak uint64
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 256<<10)
		var stats runtime.MemStats
		for n := 0; ; n++ {
			_, err := r.Body.Read(buf)
			if n%500 == 0 {
				runtime.ReadMemStats(&stats)
				peak = max(peak, stats.HeapAlloc)
			}
			if err != nil {
				return
			}
		}
	}))
	b.Cleanup(srv.Close)
	c, err := New(Config{Proto: "http", Host: srv.Listener.Addr().String(), Secret: "x"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	log := lines(count, strings.Repeat("x", 59)+"\n")
	runtime.GC()
	var base runtime.MemStats
	runtime.ReadMemStats(&base)
	b.SetBytes(count * 60)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Upload(b.Context(), 1, log); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(peak-min(peak, base.HeapAlloc))/(1<<20), "heap-MB")
}
