//go:build linux

package process

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// started is a command that runs in the background of a test.
type started struct {
	out    *buffer
	cancel context.CancelCauseFunc
	ended  chan struct{}
	exit   Exit
	err    error
}

// startStep runs a script as a step and waits until it has said "ready".
func startStep(t *testing.T, h *Host, b Build, step, script string) *started {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	s := &started{out: &buffer{}, cancel: cancel, ended: make(chan struct{})}
	c := shell(b, script)
	c.Step, c.Output = step, s.out
	go func() {
		defer close(s.ended)
		s.exit, s.err = h.Run(ctx, c)
	}()
	await(t, step, func() bool { return strings.Contains(s.out.String(), "ready") })
	return s
}

func (s *started) running() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// Steps that run side by side end one by one.
func TestStepsAreEndedOneByOne(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode, Grace: 20 * time.Second})
		b := newBuild(t, h, Build{})
		one := startStep(t, h, b, "one", "sleep 1000 & echo ready; wait")
		two := startStep(t, h, b, "two", "sleep 1000 & echo ready; wait")
		enough := errors.New("enough")
		one.cancel(enough)
		<-one.ended
		if !errors.Is(one.err, enough) || one.exit.Signal != syscall.SIGTERM {
			t.Errorf("the cancelled step: %+v, %v", one.exit, one.err)
		}
		if left, err := h.EndStep(t.Context(), b.Name, "one"); err != nil || len(left) > 0 {
			t.Errorf("left of the cancelled step: %v, %v", left, err)
		}
		if !two.running() {
			t.Errorf("the other step ended too: %+v, %v", two.exit, two.err)
		}
		tearDown(t, h, b.Name)
		<-two.ended
		if two.err != nil || two.exit.Code < 128 {
			t.Errorf("the other step at the build's end: %+v, %v", two.exit, two.err)
		}
	})
}

// A process that does not hear SIGTERM is killed after the grace period, and its exit says so.
func TestDeafStepIsKilled(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		b := newBuild(t, h, Build{})
		s := startStep(t, h, b, "deaf", "trap '' TERM; echo ready; while :; do sleep 1; done")
		timeout := errors.New("timeout")
		s.cancel(timeout)
		<-s.ended
		if !errors.Is(s.err, timeout) || s.exit.Code != 137 || s.exit.Signal != syscall.SIGKILL {
			t.Errorf("%+v, %v", s.exit, s.err)
		}
		tearDown(t, h, b.Name)
	})
}

// A step that ends well on SIGTERM keeps its exit code, beside the cause of its end.
func TestExitCodeOfACancelledStep(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode, Grace: 20 * time.Second})
		b := newBuild(t, h, Build{})
		s := startStep(t, h, b, "polite", "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
		s.cancel(context.DeadlineExceeded)
		<-s.ended
		if !errors.Is(s.err, context.DeadlineExceeded) || s.exit.Code != 7 || !strings.HasSuffix(s.out.String(), "bye\n") {
			t.Errorf("%+v, %v\n%s", s.exit, s.err, s.out)
		}
		tearDown(t, h, b.Name)
	})
}

func TestRunAfterTheEndOfItsContext(t *testing.T) {
	t.Parallel()
	h := openHost(t, Config{})
	b := newBuild(t, h, Build{})
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("runner stopped")
	cancel(stopped)
	c := shell(b, "touch ran")
	if _, err := h.Run(ctx, c); !errors.Is(err, stopped) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(b.Workspace + "/ran"); err == nil {
		t.Error("it ran")
	}
	c.Args = nil
	if _, err := h.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "no command") {
		t.Errorf("no command: %v", err)
	}
}

// What comes a little after the command's own end, as from `> >(tee log)`, is waited for, and no longer than until it
// is there.
func TestLateOutputArrives(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode, outputGrace: 30 * time.Second})
		b := newBuild(t, h, Build{})
		exit, out := mustRun(t, h, shell(b, "(sleep 0.2; echo late) & echo early"))
		if out != "early\nlate\n" || exit.Code != 0 {
			t.Errorf("%+v\n%s", exit, out)
		}
	})
}

// A server that one step starts is there for the next, and its output neither blocks nor kills it.
func TestServerOfAnEarlierStepLivesOn(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode, KeepLeftovers: true})
		b := newBuild(t, h, Build{})
		c := shell(b, "sh -c 'while :; do echo some line of a log that nobody reads; n=$((n+1)); echo $n >beat; done' & echo $!")
		c.Step = "start"
		_, out := mustRun(t, h, c)
		if _, err := h.EndStep(t.Context(), b.Name, "start"); err != nil {
			t.Error(err)
		}
		// More lines than any pipe holds.
		use := shell(b, "first=$(cat beat); while [ $(cat beat) -lt $((first + 3000)) ] 2>/dev/null || [ -z $(cat beat) ]; do sleep 0.05; done")
		use.Step = "use"
		if exit, out := mustRun(t, h, use); exit.Code != 0 {
			t.Errorf("%+v\n%s", exit, out)
		}
		assertClean(t, h, b.Name, pidsIn(out))
	})
}

// Many commands at once neither mix their output up nor trip over each other.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		var builds []Build
		for _, name := range []string{"one", "two"} {
			builds = append(builds, newBuild(t, h, Build{Name: name}))
		}
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				c := shell(builds[i%2], "for i in 1 2 3 4 5; do echo "+itoa(i)+"; done; exit "+itoa(i))
				c.Step = "step " + itoa(i)
				var out buffer
				c.Output = &out
				exit, err := h.Run(t.Context(), c)
				if want := strings.Repeat(itoa(i)+"\n", 5); err != nil || exit.Code != i || out.String() != want {
					t.Errorf("step %d: %+v, %v\n%s", i, exit, err, out.String())
				}
			})
		}
		wg.Wait()
		for _, b := range builds {
			tearDown(t, h, b.Name)
		}
	})
}
