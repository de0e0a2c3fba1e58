package logs

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/drone/drone-go/drone"
	"github.com/sirupsen/logrus"
)

const (
	// DefaultLimit is how much of a log is kept where Config says nothing.
	DefaultLimit = 5 << 20

	// MinLimit is the least that can be kept: a few of the longest lines, so that a segment of the spool, of which
	// the head is the smallest, has room for at least one.
	MinLimit = 8 * maxLine

	// liveEvery is the time between two live flushes: what somebody who watches the build takes for at once, and one
	// call a second for the server.
	liveEvery = time.Second

	// liveTimeout is how long one live flush may take. What it could not send is not sent again.
	liveTimeout = 5 * time.Second
)

// Sink is the part of the server's API that takes logs. Both methods return when ctx ends. Retrying an upload, and
// taking one that was already stored for done, is theirs.
type Sink interface {
	// Batch shows lines live.
	Batch(ctx context.Context, step int64, lines []*drone.Line) error

	// Upload stores the whole log; the server takes it once.
	Upload(ctx context.Context, step int64, lines []*drone.Line) error
}

// Config says whose log it is and where it goes.
type Config struct {
	// Dir is where the log is spooled. It is made with mode 0700 if it is not there; Resume is given the same.
	Dir string

	// StepID is the step's number at the server, Name what people call it.
	StepID int64
	Name   string

	// Limit is how many bytes are kept, each line counting for 40 more than its text: a quarter for the beginning,
	// the rest for the end. 0 stands for DefaultLimit, and less than MinLimit for that.
	Limit int64

	// Masker of the stage; nil masks nothing.
	Masker *Masker

	// Sink is the server.
	Sink Sink

	// Log takes what goes wrong on the way and costs the step nothing; nil drops it.
	Log *logrus.Entry
}

// Log is the log of one step while it runs. It is safe for concurrent writers. A write never waits for the server and
// never fails before Finish, so that no step ends because its log could not be kept.
type Log struct {
	cfg   Config
	start time.Time // the lines' times count from here, as the server wants them

	// mu guards what follows, up to closed. It is held while a writer's bytes are masked and given to the kernel, never
	// while the server is asked.
	mu       sync.Mutex
	mask     *Writer
	lines    *splitter
	spool    *spool
	spoolErr error // the first; nothing is spooled after it
	live     live
	next     int   // number of the next line
	seconds  int64 // time of the lines being written
	closed   bool  // nobody may write any more

	wake chan struct{} // there is something to flush
	stop chan struct{}
	done chan struct{} // the flusher has ended
	halt context.CancelFunc
}

// Open begins the log of a step. Close must be called: it ends the goroutine that sends lines live. The log outlives
// ctx, which only carries values. The error is that of the disk: the directory, or a spool of the step that is there
// already and holds lines (fs.ErrExist).
func Open(ctx context.Context, cfg Config) (*Log, error) {
	if cfg.Limit == 0 {
		cfg.Limit = DefaultLimit
	}
	cfg.Limit = max(cfg.Limit, MinLimit)
	if cfg.Masker == nil {
		cfg.Masker = NewMasker(nil)
	}
	spool, err := newSpool(place{cfg.Dir, cfg.StepID}, cfg.Limit)
	if err != nil {
		return nil, fmt.Errorf("open log of step %s: %w", cfg.Name, err)
	}
	l := &Log{
		cfg: cfg, start: time.Now(), spool: spool,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	l.lines = &splitter{line: l.add}
	l.mask = cfg.Masker.Writer(l.lines)
	ctx, l.halt = context.WithCancel(context.WithoutCancel(ctx))
	go l.flusher(ctx)
	return l, nil
}

// Write takes output of the step.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, fmt.Errorf("write log of step %s: %w", l.cfg.Name, io.ErrClosedPipe)
	}
	l.tick()
	return l.mask.Write(p)
}

// Note adds a line of the runner's own, masked too. It ends a line that the step has begun, but not a secret that it
// may have begun: what is held back of one comes after the note.
func (l *Log) Note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.tick()
	l.lines.flush()
	writeNote(l.cfg.Masker, l.add, fmt.Sprintf(format, args...))
}

// tick takes the time for the lines that follow.
func (l *Log) tick() { l.seconds = int64(time.Since(l.start) / time.Second) }

// add takes a masked line.
func (l *Log) add(text []byte, ended bool) {
	pos := l.next
	l.next++
	if l.spoolErr == nil {
		l.spooled(l.spool.add(pos, l.seconds, text, ended))
	}
	l.live.add(pos, l.seconds, text, ended)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// spooled notes the first fault of the spool (a full disk, a directory that was removed): the step goes on, and is shown
// live.
func (l *Log) spooled(err error) {
	if err == nil || l.spoolErr != nil {
		return
	}
	l.spoolErr = err
	l.warn(err, "the rest of this log is not kept")
}

// warn says in the runner's log what the step's readers cannot see.
func (l *Log) warn(err error, message string) {
	if l.cfg.Log != nil {
		l.cfg.Log.WithError(err).WithField("step", l.cfg.Name).Warn(message)
	}
}

// flusher sends the first line at once and what follows once a second, however often lines come. The pause does
// not begin anew with each line: nothing would be shown of a step that writes all the time.
func (l *Log) flusher(ctx context.Context) {
	defer close(l.done)
	lost := false
	for !l.stopped() {
		select {
		case <-l.stop:
		case <-l.wake:
			err := l.flush(ctx)
			// Once an outage, not once a second.
			if err != nil && !lost {
				l.warn(err, "live log interrupted; the step goes on and its log is uploaded at the end")
			}
			lost = err != nil
		}
		pause := time.NewTimer(liveEvery)
		select {
		case <-l.stop:
		case <-pause.C:
		}
		pause.Stop()
	}
	if !lost {
		_ = l.flush(ctx) // what it cannot send is in the upload that follows
	}
}

func (l *Log) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// flush brings what was written so far to the disk and to the server. The lock is not held while the server is asked:
// writers go on.
func (l *Log) flush(ctx context.Context) error {
	l.mu.Lock()
	if l.spoolErr == nil {
		l.spooled(l.spool.flush())
	}
	if l.live.empty() {
		l.mu.Unlock()
		return nil
	}
	lines := l.live.take()
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	return l.cfg.Sink.Batch(ctx, l.cfg.StepID, lines)
}

// Close ends the log: the rest is shown live, the whole is uploaded, the spool is removed. Where the upload fails,
// the spool stays for Resume. Closing again does nothing.
func (l *Log) Close(ctx context.Context) error {
	if !l.end() {
		return nil
	}
	// The last lines may be under way still: liveTimeout bounds each flush, and ctx them all.
	select {
	case <-l.done:
	case <-ctx.Done():
	}
	l.halt()
	<-l.done
	// Nobody writes any more (see end) and the flusher has ended, so from here on no lock is needed.
	var more []*drone.Line
	if l.spoolErr != nil {
		text := fmt.Sprintf("… the rest of this log could not be kept: %v\n", l.spoolErr)
		more = append(more, &drone.Line{Number: l.next, Message: text, Timestamp: l.seconds})
	}
	if err := upload(ctx, l.cfg.Sink, l.spool.place, more...); err != nil {
		return fmt.Errorf("upload log of step %s: %w", l.cfg.Name, err)
	}
	return nil
}

// Finish takes no more writes and brings everything to the disk. From then on the log holds no file, however long Close
// has to wait for the server's turn. Close finishes a log that was not.
func (l *Log) Finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	l.tick()
	_ = l.mask.Close() // a splitter never fails
	l.lines.flush()
	l.spooled(l.spool.close())
	l.spooled(l.spool.there())
	l.spool.buf = nil
}

// end finishes the log and stops the flusher. It is false where that was done before.
func (l *Log) end() bool {
	l.Finish()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped() {
		return false
	}
	close(l.stop)
	return true
}
