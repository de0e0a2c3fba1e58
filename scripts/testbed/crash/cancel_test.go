package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"
)

// sleepers runs until it is stopped, with processes in the background that end on SIGTERM too. With MEET it ends when
// that many builds run at once.
const sleepers = `
clone: {disable: true}
steps:
- name: sleep
  commands:
  - if [ -n "$MEET" ]; then touch HALL/meet-$DRONE_BUILD_NUMBER; until [ $(ls HALL | wc -l) -ge $MEET ]; do sleep 0.1; done; exit 0; fi
  - sleep 3600 &
  - (setsid sleep 3600 >/dev/null 2>&1 &)
  - sleep 3600
- name: never
  commands: [echo never]
`

// limit is how long a cancel may take: from the server's answer to it, or from the moment the connection is back,
// until no process of the build is left.
const limit = 2 * time.Second

// TestCancel cancels builds at many moments of their lives: in their first second, and around the end of the server's
// long polls of 30 s.
func TestCancel(t *testing.T) {
	t.Parallel()
	lanes, width := 1, 8
	if full() {
		lanes, width = 9, 10
	}
	times, asked, seen := &latencies{}, &latencies{}, observe(t)
	t.Run("lanes", func(t *testing.T) {
		for n := range lanes {
			t.Run(fmt.Sprint("lane", n), func(t *testing.T) {
				t.Parallel()
				settings := map[string]string{"DRONE_RUNNER_CAPACITY": fmt.Sprint(width)}
				if n%2 == 0 {
					asUsers(t, settings, 20200+10*n)
				}
				l := newCancelLane(t, fmt.Sprint("cancel", n), settings)
				starts, asks := make([]time.Time, width), make([]time.Time, width)
				var cancels sync.WaitGroup
				for i := range width {
					number := l.build(nil).Number
					moment := cancelMoment(the.seed, n*width+i)
					cancels.Go(func() {
						time.Sleep(moment)
						asks[i] = time.Now()
						starts[i] = l.cancel(number)
					})
				}
				cancels.Wait()
				l.judge(seen, starts, times)
				for i, number := range l.numbers {
					asked.add(seen.of(number).Sub(asks[i]))
				}
				l.slotsFree(width)
			})
		}
	})
	asked.report(t, "the cancel's request")
	times.report(t, "the cancel's answer")
}

// TestCancelWhileCut cancels builds while the runner has no connection at all, so that both of its watches are lost.
func TestCancelWhileCut(t *testing.T) {
	t.Parallel()
	lanes, width := 1, 2
	if full() {
		lanes, width = 5, 2
	}
	times, seen := &latencies{}, observe(t)
	t.Run("lanes", func(t *testing.T) {
		for n := range lanes {
			t.Run(fmt.Sprint("lane", n), func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(the.seed, uint64(1000+n)))
				upTo := func(d time.Duration) { time.Sleep(time.Duration(random.Int64N(int64(d)))) }
				l := newCancelLane(t, fmt.Sprint("cut", n), map[string]string{"DRONE_RUNNER_CAPACITY": fmt.Sprint(width)})
				var numbers []int64
				for range width {
					numbers = append(numbers, l.build(nil).Number)
				}
				l.asleep(numbers)
				upTo(30 * time.Second)
				l.wire.sever()
				upTo(3 * time.Second)
				for _, number := range numbers {
					l.cancel(number)
				}
				upTo(5 * time.Second)
				back := time.Now()
				l.wire.heal()
				l.judge(seen, slices.Repeat([]time.Time{back}, width), times)
				l.slotsFree(width)
			})
		}
	})
	times.report(t, "the connection's return")
}

// cancelMoment draws how long after its creation the i-th build is cancelled. Half of them are around the end of the
// server's long polls.
func cancelMoment(seed uint64, i int) time.Duration {
	random := rand.New(rand.NewPCG(seed, uint64(i)))
	between := func(from, to time.Duration) time.Duration { return from + time.Duration(random.Int64N(int64(to-from))) }
	switch i % 4 {
	case 0:
		return between(0, 1200*time.Millisecond)
	case 1:
		return between(1200*time.Millisecond, 28*time.Second)
	}
	return between(28*time.Second, 41*time.Second)
}

// cancelLane is a lane whose builds are cancelled.
type cancelLane struct {
	*lane
	numbers []int64
}

func newCancelLane(t *testing.T, name string, settings map[string]string) *cancelLane {
	t.Helper()
	return &cancelLane{lane: newLane(t, laneSpec{name: name, steps: sleepers, settings: settings})}
}

func (l *cancelLane) build(params map[string]string) *drone.Build {
	l.t.Helper()
	build := l.lane.build(params)
	l.numbers = append(l.numbers, build.Number)
	return build
}

// cancel cancels a build and returns when the server had answered. The server refuses with 409, and does nothing, what
// crosses a report of the runner; a person would click again.
func (l *cancelLane) cancel(number int64) time.Time {
	err := the.bed.Drone.Cancel(l.ctx, l.repo, number)
	for err != nil && strings.HasPrefix(err.Error(), "client error 409") {
		time.Sleep(20 * time.Millisecond)
		err = the.bed.Drone.Cancel(l.ctx, l.repo, number)
	}
	if err != nil {
		l.t.Error(err)
	}
	return time.Now()
}

// asleep waits until the builds' first steps run.
func (l *cancelLane) asleep(numbers []int64) {
	l.t.Helper()
	for _, number := range numbers {
		for running()[number] < 3 {
			if l.ctx.Err() != nil {
				l.t.Fatalf("build %d does not run", number)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// judge checks each of the lane's builds: when its last process was seen, how it stands on the server, what is left.
func (l *cancelLane) judge(seen *sightings, starts []time.Time, times *latencies) {
	l.t.Helper()
	l.settled(time.Minute, l.numbers...)
	ran := 0
	for i, number := range l.numbers {
		if !seen.of(number).IsZero() {
			ran++
		}
		took := seen.of(number).Sub(starts[i])
		times.add(took)
		if took > limit {
			l.t.Errorf("build %d still had processes %s after", number, took)
		}
		build := l.look(number)
		if build.Status != drone.StatusKilled {
			l.t.Errorf("cancelled build %d is %s", number, build.Status)
		}
		for _, stage := range build.Stages {
			// A stage that no runner has started yet is skipped by the server (Drone's service/canceler).
			unseen := stage.Status == drone.StatusSkipped && seen.of(number).IsZero()
			if stage.Status != drone.StatusKilled && !unseen {
				l.t.Errorf("the stage of cancelled build %d is %s", number, stage.Status)
			}
			for _, step := range stage.Steps {
				if step.Name == "never" && step.Status == drone.StatusPassing {
					l.t.Errorf("build %d went on after the cancel", number)
				}
			}
		}
	}
	if ran < len(starts)/2 {
		l.t.Errorf("processes of %d builds were seen, want those of half of %d at least", ran, len(starts))
	}
}

// slotsFree runs as many builds at once as the runner has slots.
func (l *cancelLane) slotsFree(width int) {
	l.t.Helper()
	var builds []int64
	for range width {
		builds = append(builds, l.build(map[string]string{"MEET": fmt.Sprint(width)}).Number)
	}
	l.settled(2*time.Minute, builds...)
	for _, number := range builds {
		if build := l.look(number); build.Status != drone.StatusPassing {
			l.t.Errorf("build %d after the cancels is %s", number, build.Status)
		}
	}
}

// sightings remembers when a process of each build was last seen. All lanes share one, since a look at all processes
// of the host takes a while.
type sightings struct {
	ended chan struct{}
	done  sync.WaitGroup

	mu   sync.Mutex
	last map[int64]time.Time
	gap  time.Duration // the longest time between two looks
}

// observe looks for processes of builds until the test ends.
func observe(t *testing.T) *sightings {
	s := &sightings{ended: make(chan struct{}), last: map[int64]time.Time{}}
	s.done.Go(func() {
		// The looks are to be regular on a busy machine too. The priority is the thread's alone, and ends with it. It
		// can be raised by root only; otherwise the looks are further apart.
		runtime.LockOSThread()
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, -15)
		for previous := time.Now(); ; {
			select {
			case <-s.ended:
				return
			case <-time.After(100 * time.Millisecond):
			}
			seen := running()
			now := time.Now()
			s.mu.Lock()
			s.gap, previous = max(s.gap, now.Sub(previous)), now
			for number := range seen {
				s.last[number] = now
			}
			s.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		close(s.ended)
		s.done.Wait()
		t.Logf("the longest time between two looks at the processes: %s", s.gap.Round(time.Millisecond))
	})
	return s
}

// of is when a process of a build was last seen; zero for never.
func (s *sightings) of(number int64) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[number]
}

// running counts the processes of each build that is to be cancelled.
func running() map[int64]int {
	found := map[int64]int{}
	marked := regexp.MustCompile(fmt.Sprintf(`\x00CC_CI_CRASH_MARK=(cancel|cut)\d+-%d\x00`, os.Getpid()))
	numbered := regexp.MustCompile(`\x00DRONE_BUILD_NUMBER=(\d+)\x00`)
	// What ends while we look is not there.
	paths, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil || !marked.Match(slices.Concat([]byte{0}, data)) {
			continue
		}
		if parts := numbered.FindSubmatch(slices.Concat([]byte{0}, data)); parts != nil {
			number, err := strconv.ParseInt(string(parts[1]), 10, 64)
			if err == nil {
				found[number]++
			}
		}
	}
	return found
}

// latencies collects how long the cancels took.
type latencies struct {
	mu   sync.Mutex
	took []time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, max(0, d)) // of some builds no process was there any more, or never one
}

func (l *latencies) report(t *testing.T, from string) {
	slices.Sort(l.took)
	if n := len(l.took); n > 0 {
		t.Logf("%d cancels, from %s to the last process gone: median %s, longest %s", n, from,
			l.took[n/2].Round(time.Millisecond), l.took[n-1].Round(time.Millisecond))
	}
}
