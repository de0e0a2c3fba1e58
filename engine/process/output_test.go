package process

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestCaptureCopiesEverything(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c, w, err := newCapture(&out)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("0123456789abcdef", 1<<16)
	if _, err := io.WriteString(w, want); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), c.finish(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("%d of %d bytes", out.Len(), len(want))
	}
	if err := errors.Join(c.close(), c.close()); err != nil {
		t.Error(err)
	}
}

// slow takes its time over each write, and counts.
type slow struct{ bytes atomic.Int64 }

func (s *slow) Write(b []byte) (int, error) {
	time.Sleep(20 * time.Millisecond)
	s.bytes.Add(int64(len(b)))
	return len(b), nil
}

// What was written before the command ended arrives, however slow the log is; what a leftover writes later is dropped
// and does not block it.
func TestCaptureLetsGo(t *testing.T) {
	t.Parallel()
	out := &slow{}
	c, w, err := newCapture(out)
	if err != nil {
		t.Fatal(err)
	}
	before := strings.Repeat("x", 200<<10)
	if _, err := io.WriteString(w, before); err != nil {
		t.Fatal(err)
	}
	if err := c.finish(time.Millisecond); err != nil { // w stays open, as in a leftover's hands
		t.Fatal(err)
	}
	if n := out.bytes.Load(); n != int64(len(before)) {
		t.Errorf("%d of %d bytes arrived", n, len(before))
	}
	if _, err := io.WriteString(w, strings.Repeat("y", 4<<20)); err != nil {
		t.Errorf("the leftover's output: %v", err)
	}
	if n := out.bytes.Load(); n != int64(len(before)) {
		t.Error("the output was written to after finish")
	}
	if err := errors.Join(w.Close(), c.close()); err != nil {
		t.Error(err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestCaptureReportsALostLog(t *testing.T) {
	t.Parallel()
	c, w, err := newCapture(broken{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, strings.Repeat("z", 1<<20)); err != nil {
		t.Errorf("the command must not be held up: %v", err)
	}
	err = errors.Join(w.Close(), c.finish(time.Minute))
	if err == nil || !strings.Contains(err.Error(), "write output: disk full") {
		t.Errorf("error %v", err)
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
}
