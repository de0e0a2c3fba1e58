package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drone/drone-go/drone"
	"github.com/sirupsen/logrus"
)

// TestOutageCostsNoMemory: a step of another process writes far more than the limit while the server is away. The
// runner stays small, and the log is whole when the server is back.
func TestOutageCostsNoMemory(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	size := full(t, 1<<30)
	if raced {
		size = 24 << 20
	}
	o := runOutage(t, s, size)
	if o.peakKiB > 64<<10 && !raced {
		t.Errorf("the runner's peak memory was %d KiB", o.peakKiB)
	}
	lines := s.stored(7)
	if len(lines) == 0 {
		t.Fatal("nothing was uploaded")
	}
	if checkCut(t, lines, lines[len(lines)-1].Number+1) == nil {
		t.Error("nothing was cut")
	}
}

// TestHungServerHoldsUpNeitherStepNorClose: the flusher used to hang for ever, and Close with it.
func TestHungServerHoldsUpNeitherStepNorClose(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	s.fail("batch", 0)
	s.fail("upload", 0)
	l := open(t, Config{Dir: dir, Sink: s})
	write(t, l, "first\n")
	s.await(t, "request", func() bool { return s.requests > 0 })
	for range 1000 {
		write(t, l, strings.Repeat("while it hangs\n", 100))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("close: %v", err)
	}
	select {
	case <-l.done:
	default:
		t.Error("the flusher still runs")
	}
	if left, err := listSpools(dir); err != nil || !slices.Equal(left, []int64{7}) {
		t.Errorf("spools %v, %v: the log is lost", left, err)
	}
}

// TestSpoolIsRemoved: what was lost with a state directory that somebody removed is said in the log.
func TestSpoolIsRemoved(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), filepath.Join(t.TempDir(), "spool")
	l := open(t, Config{Dir: dir, Sink: s})
	write(t, l, "first\n")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	write(t, l, "second\n")
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got := text(s.stored(7)); !strings.Contains(got, "could not be kept") {
		t.Errorf("stored %q", got)
	}
}

// hung answers nothing until its caller gives up.
type hung struct{}

func (hung) Batch(ctx context.Context, _ int64, _ []*drone.Line) error {
	<-ctx.Done()
	return ctx.Err()
}

func (h hung) Upload(ctx context.Context, step int64, lines []*drone.Line) error {
	return h.Batch(ctx, step, lines)
}

// TestCloseEndsWithItsContext and not when the server's time is up.
func TestCloseEndsWithItsContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, Config{Dir: dir, Sink: hung{}})
		write(t, l, "x\n")
		synctest.Wait() // until the flush hangs
		start := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v", err)
		}
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("close took %v", took)
		}
	})
}

// TestWhatIsShownIsOnDisk first, so that a crash never loses what someone has read.
func TestWhatIsShownIsOnDisk(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	l := open(t, Config{Dir: dir, Sink: s})
	write(t, l, "shown\n")
	s.await(t, "live line", func() bool { return len(s.batches) > 0 })
	lines, err := readSpool(place{dir, 7})
	if err != nil || text(lines) != "shown\n" {
		t.Errorf("on disk: %q, %v", text(lines), err)
	}
}

// TestFailedFlushIsInTheUpload and is said once in the runner's own log.
func TestFailedFlushIsInTheUpload(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.fail("batch", 500)
	var said lockedBuffer
	logger := logrus.New()
	logger.SetOutput(&said)
	l := open(t, Config{Sink: s, Log: logrus.NewEntry(logger)})
	write(t, l, "one\n")
	s.await(t, "first flush", func() bool { return s.requests == 1 })
	write(t, l, "two\n")
	s.await(t, "second flush", func() bool { return s.requests == 2 })
	s.heal("batch")
	write(t, l, "three\n")
	s.await(t, "line after the fault", func() bool { return len(s.batches) > 0 })
	closeLog(t, l)
	if got := text(s.stored(7)); got != "one\ntwo\nthree\n" {
		t.Errorf("stored %q", got)
	}
	if got := strings.Count(said.String(), "live log interrupted"); got != 1 {
		t.Errorf("said %d times:\n%s", got, said.String())
	}
}

// lockedBuffer can be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestFullDiskCostsTheStepNothing: where the spool cannot grow the step goes on and its log says what is missing.
func TestFullDiskCostsTheStepNothing(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), filepath.Join(t.TempDir(), "spool")
	l := open(t, Config{Dir: dir, Sink: s, Limit: MinLimit})
	write(t, l, "first\n")
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		write(t, l, strings.Repeat("more than the head may hold\n", 1000))
	}
	write(t, l, "last\n")
	if err := os.Rename(dir+".gone", dir); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	lines := s.stored(7)
	if len(lines) < 2 || lines[0].Message != "first\n" || !strings.Contains(lines[len(lines)-1].Message, "could not be kept") {
		t.Errorf("stored %d lines, the last %q", len(lines), lines[len(lines)-1].Message)
	}
	if live := s.live(); live[len(live)-1].Message != "last\n" {
		t.Errorf("the live stream ended with %q", live[len(live)-1].Message)
	}
}

// TestCloseUploadsBeforeItReturns, so that no report of the step can overtake its log; and only once.
func TestCloseUploadsBeforeItReturns(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	l := open(t, Config{Sink: s})
	write(t, l, "x\n")
	closeLog(t, l)
	if got := text(s.stored(7)); got != "x\n" {
		t.Errorf("stored %q", got)
	}
	closeLog(t, l)
	if _, err := io.WriteString(l, "late\n"); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write after close: %v", err)
	}
	l.Note("late")
}

// TestEmptyLogIsUploaded as an empty list.
func TestEmptyLogIsUploaded(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	closeLog(t, open(t, Config{Sink: s}))
	if got := s.stored(7); got == nil || len(got) != 0 {
		t.Errorf("stored %v", got)
	}
}
