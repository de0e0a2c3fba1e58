package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// child is a program of this repository that the demo runs. It is told to end when the demo dies, and has a process
// group of its own, so that Ctrl-C reaches the demo alone, which ends its children in their order.
type child struct {
	cmd   *exec.Cmd
	log   string         // the file that gets its output
	input io.WriteCloser // ends when the demo does
	done  chan struct{}  // closed when it has ended
	err   error          // how; read it after done
}

// startChild starts a command; its output goes to a new file. The goroutine keeps its thread, because the kernel sends
// the parent-death signal when the thread that started the child ends. SIGTERM and not SIGKILL: the Swarm's helper has
// a daemon to end.
func startChild(cmd *exec.Cmd, log string) (*child, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGTERM
	c := &child{cmd: cmd, log: log, done: make(chan struct{})}
	// Its end is a second way to tell the helper that the demo is gone, which also works where a signal does not
	// arrive.
	if c.input, err = cmd.StdinPipe(); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		// The child has its own copy of the descriptor; a failing close of ours loses nothing.
		_ = out.Close()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
		}
		close(c.done)
	}()
	return c, <-started
}

// await waits until the child's output matches, and returns the match and its groups. It reads the whole file again
// each time, which is short while a program starts.
func (c *child) await(ctx context.Context, pattern *regexp.Regexp) ([]string, error) {
	for {
		text, err := os.ReadFile(c.log)
		if err != nil {
			return nil, err
		}
		if found := pattern.FindStringSubmatch(string(text)); found != nil {
			return found, nil
		}
		select {
		case <-c.done:
			return nil, fmt.Errorf("it ended (%w): %s", c.err, strings.TrimSpace(string(text)))
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop asks the child to end, and kills its group when a minute was not enough. An exit code other than 0 is an error:
// these programs end well when they are asked to.
func (c *child) stop() error {
	// The program alone, not its group: it ends its own children.
	if err := syscall.Kill(c.cmd.Process.Pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop %s: %w", c.cmd.Path, err)
	}
	select {
	case <-c.done:
		return c.err
	case <-time.After(time.Minute):
		// The whole group now, or the child's own children would be nobody's.
		err := syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		<-c.done
		return errors.Join(fmt.Errorf("%s did not end within a minute", c.cmd.Path), err)
	}
}
