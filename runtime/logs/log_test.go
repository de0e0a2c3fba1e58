package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drone/drone-go/drone"
)

// TestLogIsNumberedMaskedAndUploaded is the ordinary life of a log.
func TestLogIsNumberedMaskedAndUploaded(t *testing.T) {
	t.Parallel()
	s, dir := newServer(t), t.TempDir()
	l := open(t, Config{Dir: dir, Sink: s, Masker: NewMasker([]string{"supersecret"})})
	l.Note("running as %s with supersecret", "nobody")
	write(t, l, "one\ntwo supe", "rsec", "ret\r\n\nthr", "ee")
	closeLog(t, l)
	want := []string{"running as nobody with ******\n", "one\n", "two ******\n", "\n", "three"}
	for name, lines := range map[string][]*drone.Line{"live": s.live(), "stored": s.stored(7)} {
		var got []string
		for i, line := range lines {
			got = append(got, line.Message)
			if line.Number != i {
				t.Errorf("%s line %d has number %d", name, i, line.Number)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", name, got, want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the spool is still there: %v, %v", left, err)
	}
}

// recorder notes when each line was shown, on the clock of a synctest bubble.
type recorder struct {
	mu    sync.Mutex
	start time.Time
	shown map[string]time.Duration
	batch int
}

func (r *recorder) Batch(_ context.Context, _ int64, lines []*drone.Line) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batch++
	for _, line := range lines {
		r.shown[line.Message] = time.Since(r.start)
	}
	return nil
}

func (r *recorder) Upload(context.Context, int64, []*drone.Line) error { return nil }

// TestLiveFlushIsNotPutOffByEachLine: 8 lines, one per 700 ms, are each shown within 1.5 s and not only at the end.
func TestLiveFlushIsNotPutOffByEachLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{start: time.Now(), shown: map[string]time.Duration{}}
		l := open(t, Config{Dir: dir, Sink: r})
		written := map[string]time.Duration{}
		for i := range 8 {
			line := fmt.Sprintf("line %d\n", i)
			written[line] = time.Since(r.start)
			write(t, l, line)
			time.Sleep(700 * time.Millisecond)
		}
		time.Sleep(time.Second)
		closeLog(t, l)
		for line, at := range written {
			shown, ok := r.shown[line]
			if late := shown - at; !ok || late > 1500*time.Millisecond {
				t.Errorf("%q written at %v was shown %v later (%v)", line, at, late, ok)
			}
		}
		if r.batch > 8 {
			t.Errorf("%d flushes in 6.6 s", r.batch)
		}
	})
}

// TestTimeIsSecondsSinceStart is what the server expects beside each line.
func TestTimeIsSecondsSinceStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		sink := &keeper{}
		l := open(t, Config{Dir: dir, Sink: sink})
		for range 3 {
			write(t, l, "x\n")
			time.Sleep(1100 * time.Millisecond)
		}
		closeLog(t, l)
		var got []int64
		for _, line := range sink.lines {
			got = append(got, line.Timestamp)
		}
		if want := []int64{0, 1, 2}; !reflect.DeepEqual(got, want) {
			t.Errorf("times %v, want %v", got, want)
		}
	})
}

// keeper keeps the upload.
type keeper struct{ lines []*drone.Line }

func (k *keeper) Batch(context.Context, int64, []*drone.Line) error { return nil }

func (k *keeper) Upload(_ context.Context, _ int64, lines []*drone.Line) error {
	k.lines = lines
	return nil
}

// TestConsole shows what exec prints.
func TestConsole(t *testing.T) {
	t.Parallel()
	for pretty, want := range map[bool]string{
		false: "[build:0] a ******\n[build:1] b\n[build:2] exit code 1, ******\n",
		true:  "\x1b[36m[build:0]\x1b[0m a ******\n\x1b[36m[build:1]\x1b[0m b\n\x1b[36m[build:2]\x1b[0m exit code 1, ******\n",
	} {
		var out strings.Builder
		c := NewConsole(&out, "build", NewMasker([]string{"hunter2"}), pretty)
		write(t, c, "a hun", "ter2\nb")
		c.Note("exit code %d, hunter2", 1)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("pretty %v: got %q, want %q", pretty, out.String(), want)
		}
	}
}

// TestConsoleSaysThatItsOutputFailed, also where only a note was lost.
func TestConsoleSaysThatItsOutputFailed(t *testing.T) {
	t.Parallel()
	closed, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	c := NewConsole(closed, "build", nil, false)
	c.Note("lost")
	if err := c.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("close: %v", err)
	}
	if _, err := io.WriteString(NewConsole(closed, "build", nil, false), "lost\n"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write: %v", err)
	}
}
