package testbed

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// phase runs one slow thing and says so in log: a line at once, one every 20 seconds, so that a build of minutes does
// not look like a hang, and one with the time it took. It returns when work has: work has to mind the context itself.
func phase(ctx context.Context, log io.Writer, name string, work func() error) error {
	start := time.Now()
	say(log, "%s ...", name)
	done := make(chan struct{})
	silent := make(chan struct{})
	go func() {
		defer close(silent)
		tick := time.NewTicker(20 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				say(log, "%s ... %d s", name, int(time.Since(start).Seconds()))
			case <-done:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	err := work()
	close(done)
	// So that no line of waiting comes after the last one.
	<-silent
	if err != nil {
		return err
	}
	say(log, "%s: %.1f s", name, time.Since(start).Seconds())
	return nil
}

// say writes a line of progress. Progress that cannot be shown is no reason to stop.
func say(log io.Writer, format string, args ...any) {
	if log != nil {
		_, _ = fmt.Fprintf(log, "testbed: "+format+"\n", args...)
	}
}

// run runs a command to its end; its output is shown only when it fails, and then its last 40 lines.
func run(cmd *exec.Cmd) error {
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, tail(output.String(), 40))
	}
	return nil
}

// tail returns the last lines of a text.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}

// pause waits, or returns the cause of the context's end.
func pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// until asks again and again until check says yes; the context is the deadline, without which it waits for ever. An
// error of check ends it: a check that may fail for a moment has to say no instead.
func until(ctx context.Context, every time.Duration, what string, check func() (bool, error)) error {
	for {
		// At least once, also when the time is over already: what is there is there.
		ok, err := check()
		if err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		if ok {
			return nil
		}
		if err := pause(ctx, every); err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
	}
}

// needTools says in one sentence which programs are missing, before a compiler would say it in many.
func needTools(programs ...string) error {
	var missing []string
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("the testbed needs %s: install it (on Debian, as root: apt-get install git gcc libc6-dev)",
		strings.Join(missing, " and "))
}
