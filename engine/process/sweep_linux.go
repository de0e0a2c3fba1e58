package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killWait bounds the wait for killed processes to be gone: one in uninterruptible sleep never is.
const killWait = 30 * time.Second

// finder visits the living processes in question one by one, while it finds them: who is stopped the moment it is
// seen cannot have forked and gone when the last of a list has been read. It may visit one twice.
type finder func(visit func(proc)) error

// list is who is there now.
func (f finder) list() ([]proc, error) {
	seen := map[procKey]bool{}
	var found []proc
	err := f(func(p proc) {
		if !seen[p.key()] {
			seen[p.key()] = true
			found = append(found, p)
		}
	})
	return found, err
}

// insist asks up to twenty times for somebody who is there but does not hold still, as long as somebody must be: the
// kernel's list of children is exact only while they are stopped (proc(5), task/TID/children).
func (f finder) insist(mustBe func() bool) ([]proc, error) {
	for range 20 {
		found, err := f.list()
		if err != nil || len(found) > 0 || !mustBe() {
			return found, err
		}
	}
	return nil, nil
}

// sweepPlan says which processes to end one by one, where no cgroup ends them all at once.
type sweepPlan struct {
	find finder
	// grace is how long they may live after SIGTERM; zero sends none.
	grace time.Duration
	// over says with certainty that all are gone, where a scan can miss one; nil if nobody knows better than a scan.
	over func() bool
}

// procKey is what identifies a process for as long as the host runs.
type procKey struct {
	pid   int
	start uint64
}

func (p proc) key() procKey { return procKey{p.pid, p.start} }

// sweep ends the processes. The error names those that it could not end: another user's, or in uninterruptible sleep.
//
// Killing one after the other loses a race against processes that fork and exit, so all are first stopped, until
// some scans in a row find no new one: what is stopped cannot fork. It gives up when done is closed; nil never is.
func sweep(done <-chan struct{}, plan sweepPlan) error {
	if plan.grace > 0 {
		if err := terminate(done, plan); err != nil {
			return err
		}
	}
	immune := map[procKey]bool{} // who cannot be signalled: looked at again, but not waited for
	for deadline := time.Now().Add(killWait); ; {
		stopped, err := stopAll(done, plan.find, immune)
		if err != nil {
			return err
		}
		for _, p := range stopped {
			if err := p.signal(unix.SIGKILL); err != nil {
				immune[p.key()] = true
			}
		}
		left, err := plan.find.list()
		if err != nil {
			return err
		}
		stuck := !slices.ContainsFunc(left, func(p proc) bool { return !immune[p.key()] })
		if len(left) == 0 && (plan.over == nil || plan.over()) {
			return nil
		}
		if len(left) > 0 && stuck || closed(done) || time.Now().After(deadline) {
			return unkillable(left)
		}
		pause(done, time.Millisecond)
	}
}

// unkillable is the error of a sweep that gave up on these.
func unkillable(left []proc) error {
	if len(left) == 0 {
		return errors.New("there are processes that come and go faster than they can be killed")
	}
	var err error
	for _, p := range left {
		err = errors.Join(err, fmt.Errorf("%s cannot be killed", p.item()))
	}
	return err
}

// stopAll sends SIGSTOP to whomever find visits until three scans in a row find nobody new. SIGSTOP cannot be caught or
// ignored. With SIGKILL alone, until a scan found nobody, chains that fork and exit survived in three of eight trials.
func stopAll(done <-chan struct{}, find finder, immune map[procKey]bool) ([]proc, error) {
	seen := map[procKey]bool{}
	var stopped []proc
	for quiet := 0; quiet < 3 && !closed(done); quiet++ {
		err := find(func(p proc) {
			if seen[p.key()] || immune[p.key()] {
				return
			}
			seen[p.key()] = true
			quiet = -1
			if err := p.signal(unix.SIGSTOP); err != nil {
				immune[p.key()] = true // not ours to signal: reported at the end
				return
			}
			stopped = append(stopped, p)
		})
		if err != nil {
			return nil, err
		}
	}
	return stopped, nil
}

// terminate sends SIGTERM to each process once and waits for them to go.
func terminate(done <-chan struct{}, plan sweepPlan) error {
	told := map[procKey]bool{}
	for deadline := time.Now().Add(plan.grace); time.Now().Before(deadline) && !closed(done); {
		alive, began := false, time.Now()
		err := plan.find(func(p proc) {
			alive = true
			if !told[p.key()] {
				told[p.key()] = true
				_ = askToEnd(p) // whoever does not hear it is killed in the end
			}
		})
		if err != nil || !alive && (plan.over == nil || plan.over()) {
			return err
		}
		// To look at all processes of a busy host takes long: a tenth of the time is enough for it.
		pause(done, max(10*time.Millisecond, min(10*time.Since(began), time.Until(deadline))))
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

// pause waits, at most until done is closed.
func pause(done <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

func closed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// visitBelow visits the processes below root, which is not among them, parents before their children: a parent that visit
// stops makes no more children while they are being listed.
func visitBelow(root int, visit func(proc)) {
	for next := childrenOf(root); len(next) > 0; {
		pid := next[0]
		next = next[1:]
		if p, ok := readProc(pid); ok && !p.zombie {
			visit(p)
			next = append(next, childrenOf(pid)...)
		}
	}
}

// childrenOf asks the kernel, or, where it is built without that answer (CONFIG_PROC_CHILDREN), everybody for their parent.
// Children belong to the thread that made them, so all threads are asked.
func childrenOf(pid int) []int {
	threads, err := os.ReadDir(procPath(pid, "task"))
	if err != nil {
		return nil
	}
	var children []int
	for _, thread := range threads {
		text, err := os.ReadFile(procPath(pid, "task/"+thread.Name()+"/children"))
		if errors.Is(err, fs.ErrNotExist) && procExists(pid, thread.Name()) {
			return childrenByParent(pid)
		}
		for _, word := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				children = append(children, child)
			}
		}
	}
	return children
}

// procExists tells a thread that is gone from a kernel that does not list children.
func procExists(pid int, thread string) bool {
	_, err := os.Stat(procPath(pid, "task/"+thread+"/stat"))
	return err == nil
}

// childrenByParent finds them the slow way.
func childrenByParent(parent int) []int {
	var children []int
	// An unreadable /proc has no children to tell of; the caller sees that on its own account.
	_ = visitAll(func(p proc) {
		if p.ppid == parent {
			children = append(children, p.pid)
		}
	})
	return children
}

func visitBelowSelf(visit func(proc)) error {
	visitBelow(os.Getpid(), visit)
	return nil
}
