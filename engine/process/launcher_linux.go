package process

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// ignoreSignals makes the launcher survive what is meant for the command. Caught, not ignored: an ignored signal
// would stay ignored in the command, for execve(2) resets only handlers.
func ignoreSignals() (stop func()) {
	caught := make(chan os.Signal, 8)
	signal.Notify(caught, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	return func() { signal.Stop(caught) }
}

// reap waits for children until the command has ended and, as a reaper, until no orphan is left: these become its
// children by PR_SET_CHILD_SUBREAPER (prctl(2)), so that none is missed and no zombie slows a scan down. When the runner
// is gone it ends them first.
//
// The runner cannot do this itself: as the subreaper of all builds it could not tell whose an orphan is, and a wait for
// any child would take the statuses that os/exec waits for.
func reap(command int, o order) error {
	orphaned := make(chan struct{})
	watched := make(chan struct{})
	if o.Reaper && !o.Keep {
		go func() {
			defer close(watched)
			control := os.NewFile(controlFD, "control")
			_, _ = io.Copy(io.Discard, control) // ends with the runner, in whichever way
			close(orphaned)
			// Nobody is left to hear of an error. What cannot be killed is found by the next runner's sweep.
			_ = sweep(nil, sweepPlan{find: visitBelowSelf})
		}()
	}
	var ws syscall.WaitStatus
	var usage syscall.Rusage
	for {
		pid, err := syscall.Wait4(-1, &ws, 0, &usage)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			break // ECHILD: no child is left
		}
		if pid != command {
			continue
		}
		cpu := float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
		reply(status{Ended: true, Wait: ws, CPUSeconds: cpu})
		// The runner reads the statuses to their end, and the orphans may live on for long.
		if err := unix.Close(statusFD); err != nil {
			return err
		}
		if !o.Reaper || o.Keep {
			return nil
		}
	}
	select {
	case <-orphaned:
		<-watched
	default: // the runner lives; the watch ends with this process
	}
	return nil
}
