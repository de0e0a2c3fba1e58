package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"
)

// server takes logs over HTTP as Drone does, and misbehaves on demand.
type server struct {
	*httptest.Server
	url    string
	client *http.Client

	mu       sync.Mutex
	batches  [][]*drone.Line
	uploads  map[int64][]*drone.Line
	failures map[string]int // status to answer by call ("batch", "upload"); 0 hangs
	requests int
	changed  chan struct{} // closed and replaced at each request
}

func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{uploads: map[int64][]*drone.Line{}, failures: map[string]int{}, changed: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	s.url, s.client = s.URL, newClient()
	t.Cleanup(s.Close)
	return s
}

// newClient has connections of its own, so that none is reused that a server has hung on.
func newClient() *http.Client { return &http.Client{Transport: &http.Transport{}} }

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	var step int64
	var call string
	if _, err := fmt.Sscanf(r.URL.Path, "/rpc/v2/step/%d/logs/%s", &step, &call); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	var lines []*drone.Line
	if err := json.NewDecoder(r.Body).Decode(&lines); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	status, fails := s.failures[call]
	if !fails && call == "batch" {
		s.batches = append(s.batches, lines)
	} else if !fails && s.uploads[step] != nil {
		status, fails = http.StatusInternalServerError, true // a second upload is refused
	} else if !fails {
		s.uploads[step] = lines
	}
	s.requests++
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	if fails && status == 0 {
		<-r.Context().Done()
	} else if fails {
		http.Error(w, "out of order", status)
	}
}

// fail makes a call answer a status, or hang for 0, until it is healed.
func (s *server) fail(call string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures[call] = status
}

func (s *server) heal(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.failures, call)
}

func (s *server) Batch(ctx context.Context, step int64, lines []*drone.Line) error {
	return s.post(ctx, step, "batch", lines)
}

func (s *server) Upload(ctx context.Context, step int64, lines []*drone.Line) error {
	return s.post(ctx, step, "upload", lines)
}

func (s *server) post(ctx context.Context, step int64, call string, lines []*drone.Line) (err error) {
	body, err := json.Marshal(lines)
	if err != nil {
		return err
	}
	url := fmt.Sprintf("%s/rpc/v2/step/%d/logs/%s", s.url, step, call)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", call, response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// await waits until a condition, looked at under the lock, holds.
func (s *server) await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		s.mu.Lock()
		ok, changed := holds(), s.changed
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("no %s after a minute", what)
		}
	}
}

// live are all lines that were shown live; stored are those of the upload.
func (s *server) live() []*drone.Line {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*drone.Line
	for _, batch := range s.batches {
		all = append(all, batch...)
	}
	return all
}

func (s *server) stored(step int64) []*drone.Line {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uploads[step]
}

func text(lines []*drone.Line) string {
	var all strings.Builder
	for _, line := range lines {
		all.WriteString(line.Message)
	}
	return all.String()
}

// open begins a log at the server that is closed with the test at the latest.
func open(t testing.TB, cfg Config) *Log {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.StepID == 0 {
		cfg.StepID = 7
	}
	cfg.Name = "build"
	l, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = l.Close(ctx) // where the test closed it this does nothing; else it only ends the goroutine
	})
	return l
}

func write(t testing.TB, w io.Writer, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if n, err := io.WriteString(w, text); n != len(text) || err != nil {
			t.Errorf("write: %d of %d bytes, %v", n, len(text), err)
		}
	}
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
}
