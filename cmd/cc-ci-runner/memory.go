package main

import (
	"context"
	"runtime/debug"
	"time"
)

// restAfter is how long nothing has to happen before memory is given back: builds in a row are not slowed down by it.
// restAgain is between two times while nothing happens, because waiting alone takes some of it again.
// docs/benchmarks.md measures 10 s after builds.
const (
	restAfter = 2 * time.Second
	restAgain = time.Minute
)

// rest gives memory back whenever the runner has come to rest, after its start and after builds: it may wait for days,
// and the host's memory is for builds.
func (d *daemon) rest(ctx context.Context) {
	quiet := time.NewTimer(restAfter)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.stageEnded:
			quiet.Reset(restAfter)
		case <-quiet.C:
			quiet.Reset(restAgain)
			if len(d.runner.Status().Running) > 0 {
				continue
			}
			// A full collection; it is why this waits until nothing runs.
			debug.FreeOSMemory()
			if err := dropProgramPages(); err != nil {
				d.log.entry.WithError(err).Debug("the program's pages stay in memory")
			}
		}
	}
}
