package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pipeCapacity is the most that a pipe can hold (fs.pipe-max-size without privileges; a new one has 64 KiB).
const pipeCapacity = 1 << 20

// capture copies what a command writes to its step's output. When the command has ended although something that it
// left behind still holds the pipe, it lets go of the output and reads on into nothing: a server started by one step
// must neither block nor die when it logs during the next. (A closed pipe would kill it by SIGPIPE.)
//
// One goroutine copies; newCapture starts it and close waits for it. Only that one writes to out.
type capture struct {
	pipe     *os.File
	out      io.Writer
	released chan struct{} // out is not touched any more
	done     chan struct{} // nobody holds the pipe any more
	once     sync.Once
	err      error // the first of out's errors; read after released
}

// newCapture returns the capture and the end of the pipe for the command. The caller closes that end as soon as the
// command has it, or the pipe would never come to its end.
func newCapture(out io.Writer) (*capture, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	if out == nil {
		out = io.Discard
	}
	c := &capture{pipe: r, out: out, released: make(chan struct{}), done: make(chan struct{})}
	go c.copy()
	return c, w, nil
}

// copy reads until nobody holds the pipe any more, first for out and, after finish gave up waiting, for nobody.
func (c *capture) copy() {
	defer close(c.done)
	defer discard(c.pipe) // a build of many commands would hold as many
	defer c.release()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.pipe.Read(buf)
		c.emit(buf[:n])
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded): // finish gave up waiting
			c.copyRest(buf)
			c.release()
			if err := c.pipe.SetReadDeadline(time.Time{}); err != nil {
				return
			}
		default: // at its end, or closed
			return
		}
	}
}

// copyRest copies what is in the pipe at this moment, and no more than fits into one: what the command itself wrote
// is among that, and something left behind that writes without an end does not hold the step. It reads past the pipe's
// own deadline, which has passed.
func (c *capture) copyRest(buf []byte) {
	raw, err := c.pipe.SyscallConn()
	if err != nil || c.pipe.SetReadDeadline(time.Time{}) != nil {
		return
	}
	for left := pipeCapacity; left > 0; {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, err = unix.Read(int(fd), buf)
			return true // never wait
		})
		if err != nil || n <= 0 {
			return
		}
		c.emit(buf[:n])
		left -= n
	}
}

// emit writes to out unless it was released or has failed: copy reads on, since a full disk must not block the command.
func (c *capture) emit(b []byte) {
	select {
	case <-c.released:
		return
	default:
	}
	if len(b) > 0 && c.err == nil {
		if _, err := c.out.Write(b); err != nil {
			c.err = fmt.Errorf("write output: %w", err)
		}
	}
}

// release says that out is not touched any more.
func (c *capture) release() { c.once.Do(func() { close(c.released) }) }

// finish is called when the command has ended. It waits until nobody holds the pipe, at most for the grace period;
// afterwards out is not written to. The error is the first of out's: the step's log is not whole then.
func (c *capture) finish(grace time.Duration) error {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		// A deadline in the past is the one way to wake a Read without closing the pipe.
		if err := c.pipe.SetReadDeadline(time.Unix(1, 0)); err != nil {
			<-c.done // closed meanwhile: the build is torn down
		}
		<-c.released
	}
	return c.err
}

// close ends the copying, even if something still holds the pipe, and waits for it. It may be called again.
func (c *capture) close() error {
	err := c.pipe.Close()
	<-c.done
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// exitOf reads a wait status. Of a process that a signal ended Go's own ExitStatus is -1, which tells nobody anything.
func exitOf(ws syscall.WaitStatus) Exit {
	if ws.Signaled() {
		return Exit{Code: 128 + int(ws.Signal()), Signal: ws.Signal()}
	}
	return Exit{Code: ws.ExitStatus()}
}

// discard closes what nothing was written to, or what was handed on: no error of it can matter.
func discard(c io.Closer) { _ = c.Close() }
