package process

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// sweepPlan says which processes to end one by one, where no cgroup ends them all at once.
type sweepPlan struct {
	// find returns the living processes in question, at the moment of the call.
	find func() ([]proc, error)
	// grace is how long they may live after SIGTERM; zero sends none.
	grace time.Duration
	// limit is how long to try.
	limit time.Duration
}

// procKey is what identifies a process for as long as the host runs.
type procKey struct {
	pid   int
	start uint64
}

func (p proc) key() procKey { return procKey{p.pid, p.start} }

// sweep ends the processes and returns those that it could not end: another user's, or in uninterruptible sleep.
//
// Killing one after the other loses a race against processes that fork and exit, so all are first stopped, until two
// scans in a row find no new one: what is stopped cannot fork.
func sweep(ctx context.Context, plan sweepPlan) ([]proc, error) {
	if plan.grace > 0 {
		if err := terminate(ctx, plan); err != nil {
			return nil, err
		}
	}
	immune := map[procKey]bool{}
	for deadline := time.Now().Add(plan.limit); ; {
		stopped, err := stopAll(ctx, plan.find, immune)
		if err != nil {
			return nil, err
		}
		for _, p := range stopped {
			if err := p.signal(unix.SIGKILL); err != nil {
				immune[p.key()] = true
			}
		}
		if len(stopped) == 0 || time.Now().After(deadline) || ctx.Err() != nil {
			return plan.find()
		}
		pause(ctx, 5*time.Millisecond)
	}
}

// stopAll sends SIGSTOP to whatever find returns until two scans find nothing new.
func stopAll(ctx context.Context, find func() ([]proc, error), immune map[procKey]bool) ([]proc, error) {
	seen := map[procKey]bool{}
	var stopped []proc
	for quiet := 0; quiet < 2 && ctx.Err() == nil; quiet++ {
		found, err := find()
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			if seen[p.key()] || immune[p.key()] {
				continue
			}
			seen[p.key()] = true
			quiet = -1
			if err := p.signal(unix.SIGSTOP); err != nil {
				immune[p.key()] = true // not ours to signal: reported at the end
				continue
			}
			stopped = append(stopped, p)
		}
	}
	return stopped, nil
}

// terminate sends SIGTERM to each process once and waits for them to go.
func terminate(ctx context.Context, plan sweepPlan) error {
	told := map[procKey]bool{}
	for deadline := time.Now().Add(plan.grace); time.Now().Before(deadline) && ctx.Err() == nil; {
		found, err := plan.find()
		if err != nil || len(found) == 0 {
			return err
		}
		for _, p := range found {
			if !told[p.key()] {
				told[p.key()] = true
				_ = askToEnd(p) // whoever does not hear it is killed in the end
			}
		}
		pause(ctx, 20*time.Millisecond)
	}
	return nil
}

// askToEnd sends SIGTERM, and SIGCONT because a stopped process would not get it.
func askToEnd(p proc) error {
	if err := p.signal(unix.SIGTERM); err != nil {
		return err
	}
	return p.signal(unix.SIGCONT)
}

// pause waits, at most until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// descendantsOf are the processes below root, which is not among them. With one that is gone there are none.
func descendantsOf(all map[int]proc, root int) []proc {
	children := map[int][]proc{}
	for _, p := range all {
		children[p.ppid] = append(children[p.ppid], p)
	}
	var found []proc
	next := children[root]
	for len(next) > 0 {
		p := next[0]
		next = append(next[1:], children[p.pid]...)
		found = append(found, p)
	}
	return found
}

func descendantsOfSelf() ([]proc, error) {
	all, err := readProcs()
	return descendantsOf(all, os.Getpid()), err
}
