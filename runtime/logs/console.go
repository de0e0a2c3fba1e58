package logs

import (
	"fmt"
	"hash/fnv"
	"io"
	"sync"
)

// Console shows the log of one step on a terminal or in a file, for a runner without a server. It is safe for
// concurrent writers; several may share one writer that is (a file is), because each writes whole lines.
type Console struct {
	out    io.Writer
	before string // what comes before the line's number
	after  string // and what after it

	masker *Masker

	mu    sync.Mutex
	mask  *Writer
	lines *splitter
	next  int
	text  []byte // lines to show, in one call
	err   error  // the first of out
}

// NewConsole shows each line as `[step:number] text`, masked; pretty gives each step a colour. Close ends a line that
// has not ended; it does not close w.
func NewConsole(w io.Writer, step string, masker *Masker, pretty bool) *Console {
	if masker == nil {
		masker = NewMasker(nil)
	}
	c := &Console{out: w, before: "[" + step + ":", after: "] ", masker: masker}
	if pretty {
		hash := fnv.New32a()
		_, _ = io.WriteString(hash, step) // a hash never fails
		// By its name, so that a step has the same colour in each run: 31 to 36, red to cyan.
		c.before = fmt.Sprintf("\x1b[%dm%s", 31+hash.Sum32()%6, c.before)
		c.after = "]\x1b[0m "
	}
	c.lines = &splitter{line: c.add}
	c.mask = masker.Writer(c.lines)
	return c
}

// Write shows the lines that p completes.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.mask.Write(p)
	if err != nil {
		return n, err
	}
	return n, c.show()
}

// Note adds a line of the runner's own, as Log.Note does. A fault is returned by the next Write, or by Close.
func (c *Console) Note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines.flush()
	writeNote(c.masker, c.add, fmt.Sprintf(format, args...))
	_ = c.show() // the next Write or Close returns it
}

// Close shows what is held back.
func (c *Console) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.mask.Close(); err != nil {
		return err
	}
	c.lines.flush()
	return c.show()
}

func (c *Console) add(text []byte, _ bool) {
	c.text = fmt.Appendf(c.text, "%s%d%s%s\n", c.before, c.next, c.after, text)
	c.next++
}

// show writes the lines collected since the last time, in one call, so that lines of steps that run side by side are
// not mixed. The first fault stays: after it nothing more is written.
func (c *Console) show() error {
	if len(c.text) > 0 && c.err == nil {
		_, c.err = c.out.Write(c.text)
	}
	c.text = c.text[:0]
	return c.err
}
