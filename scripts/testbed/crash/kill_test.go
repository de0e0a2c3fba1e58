package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// threeSteps leaves a process that does not want to end, writes enough for an upload of several reads, and leaves
// files for the teardown. Each step says outside of the build that it ran.
const threeSteps = `
clone: {disable: true}
steps:
- name: one
  commands:
  - echo one >> HALL/$DRONE_BUILD_NUMBER
  - (setsid sh -c 'trap "" TERM; while true; do sleep 1; done' >/dev/null 2>&1 &)
  - seq 30000
  - sleep 0.3
- name: two
  commands:
  - echo two >> HALL/$DRONE_BUILD_NUMBER
  - sleep 1.2
- name: three
  commands:
  - echo three >> HALL/$DRONE_BUILD_NUMBER
  - mkdir -p deep/er
  - for i in $(seq 300); do echo $i > deep/er/$i; done
`

// point is where the runner is killed: at a moment of a call, or some time after it.
type point struct {
	call  string
	at    moment
	delay time.Duration
}

func (p point) String() string { return fmt.Sprintf("%s %s +%s", p.at, p.call, p.delay) }

// pointOf draws the i-th point. The kinds take turns, so that five in a row cover what matters most: Accept, the
// reports, the steps, the log's upload and the teardown.
func pointOf(seed uint64, i int) point {
	random := rand.New(rand.NewPCG(seed, uint64(i)))
	one := func(of ...string) string { return of[random.IntN(len(of))] }
	edge := func() moment { return []moment{before, after}[random.IntN(2)] }
	upTo := func(limit time.Duration) time.Duration { return time.Duration(random.Int64N(int64(limit))) }
	// near is one of the call's edges, or shortly after it.
	near := func(call string) point {
		if random.IntN(3) == 0 {
			return point{call, after, 1 + upTo(30*time.Millisecond)}
		}
		return point{call, edge(), 0}
	}
	switch i % 10 {
	case 0:
		return near("accept")
	case 1:
		return point{one("begin", "finish") + one(" one", " two", " three"), edge(), 0}
	case 2:
		return point{one("begin one", "begin two", "begin three"), after, upTo(800 * time.Millisecond)}
	case 3:
		return point{"upload", []moment{before, middle, after}[random.IntN(3)], 0}
	case 4:
		return point{"begin teardown", after, upTo(150 * time.Millisecond)}
	case 5:
		return near("end")
	case 6:
		return near("detail")
	case 7:
		return point{one("batch", "finish teardown"), edge(), 0}
	case 8:
		return near("register")
	}
	return point{"accept", before, upTo(4 * time.Second)}
}

// TestKill kills the runner with SIGKILL at many points of a build and starts it again: within a minute the build has
// ended on the server, nothing of it is left on the host, and no step ran twice.
func TestKill(t *testing.T) {
	t.Parallel()
	points, lanes := 5, 5
	if full() {
		points, lanes = 50, 10
	}
	for n := range lanes {
		t.Run(fmt.Sprint("lane", n), func(t *testing.T) {
			t.Parallel()
			settings := map[string]string{"DRONE_RUNNER_GRACE": "1s"}
			if n%2 == 0 {
				asUsers(t, settings, 20100+10*n)
			}
			l := newLane(t, laneSpec{name: fmt.Sprint("kill", n), steps: threeSteps, settings: settings})
			for i := n; i < points && !t.Failed(); i += lanes {
				l.killed(pointOf(the.seed, i))
			}
			// Nothing of the crashes keeps the runner from its work.
			last := l.build(nil)
			l.settled(time.Minute, last.Number)
			l.ranOnce(l.look(last.Number))
		})
	}
}

// killed runs a build, kills the runner at the point, starts it again and checks.
func (l *lane) killed(p point) {
	l.t.Helper()
	dead := make(chan struct{})
	var once sync.Once
	kill := func() {
		once.Do(func() {
			// The process alone: what it started has to be found by the next one.
			if err := l.runner.Signal(syscall.SIGKILL); err != nil {
				l.t.Error(err)
			}
			close(dead)
		})
	}
	seen := false
	var mu sync.Mutex
	l.wire.watch(func(call string, at moment) bool {
		mu.Lock()
		defer mu.Unlock()
		if seen || call != p.call || at != p.at {
			return false
		}
		seen = true
		if p.delay > 0 {
			time.AfterFunc(p.delay, kill)
			return false
		}
		kill()
		return true
	})
	build := l.build(nil)
	select {
	case <-dead:
	case <-time.After(time.Minute):
		l.t.Fatalf("%s was not reached: build %d is %s", p, build.Number, testbed.Describe(l.look(build.Number)))
	}
	l.wire.watch(nil)
	if _, err := l.runner.Exited(l.ctx); err != nil {
		l.t.Logf("the killed runner: %v", err)
	}
	found := l.left([]int64{build.Number})
	l.ok(l.runner.Start(l.ctx))
	took := l.settled(time.Minute, build.Number)
	build = l.look(build.Number)
	l.t.Logf("build %d, killed %s with %d things left: settled %.1f s after the restart: %s",
		build.Number, p, len(found), took.Seconds(), testbed.Describe(build))
	l.ranOnce(build)
}

// ranOnce checks that no step ran twice, that a green build ran all of them, and that any other says why.
func (l *lane) ranOnce(build *drone.Build) {
	l.t.Helper()
	data, err := os.ReadFile(filepath.Join(l.hall, fmt.Sprint(build.Number)))
	if err != nil && !os.IsNotExist(err) {
		l.t.Fatal(err)
	}
	ran := strings.Fields(string(data))
	all := []string{"one", "two", "three"}
	if len(ran) > len(all) || !slices.Equal(ran, all[:len(ran)]) {
		l.t.Errorf("build %d ran the steps %v", build.Number, ran)
	}
	switch text := testbed.Describe(build); {
	case build.Status == drone.StatusPassing && len(ran) == len(all):
	case build.Status == drone.StatusError && strings.Contains(text, "the runner restarted while this stage ran"):
	default:
		l.t.Errorf("build %d ran the steps %v and is %s", build.Number, ran, text)
	}
	for _, stage := range build.Stages {
		for _, step := range stage.Steps {
			if step.Status == drone.StatusRunning {
				l.t.Errorf("build %d has ended, but its step %s is running on the server", build.Number, step.Name)
			}
			if step.Status == drone.StatusPassing {
				l.hasLog(build, step)
			}
		}
	}
}

// hasLog checks that the server has the log of a step to its last line, whenever its upload was cut.
func (l *lane) hasLog(build *drone.Build, step *drone.Step) {
	l.t.Helper()
	text, err := the.bed.Drone.Log(l.ctx, l.repo, testbed.StepRef{Build: int(build.Number), Stage: 1, Step: step.Number})
	want := map[string]string{"one": "\n29999\n30000\n", "two": "+ sleep 1.2", "three": "+ mkdir", "teardown": "e"}[step.Name]
	if err != nil || !strings.Contains(text, want) {
		l.t.Errorf("build %d: the log of step %s ends with %q, %v", build.Number, step.Name, text[max(0, len(text)-200):], err)
	}
}
