package runtime

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limits Limits
		repo   string
		event  string
		trust  bool
		ok     bool
	}{
		{Limits{}, "a/b", "push", false, true},
		{Limits{Repos: []string{}}, "a/b", "push", true, false},
		{Limits{Repos: []string{"a/*"}}, "a/b", "push", false, true},
		{Limits{Repos: []string{"*"}}, "a/b", "push", false, false},
		{Limits{Repos: []string{"["}}, "a/b", "push", false, false},
		{Limits{Repos: []string{"x/y", "a/b"}, Events: []string{"pu*"}}, "a/b", "push", false, true},
		{Limits{Events: []string{"tag"}}, "a/b", "push", false, false},
		{Limits{Trusted: true}, "a/b", "push", false, false},
		{Limits{Trusted: true}, "a/b", "push", true, true},
	} {
		err := c.limits.Check(&runner.Context{
			Repo: &drone.Repo{Slug: c.repo, Trusted: c.trust}, Build: &drone.Build{Event: c.event},
		})
		if (err == nil) != c.ok {
			t.Errorf("%+v, %s %s: %v", c.limits, c.repo, c.event, err)
		}
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "short", strings.Repeat("a", 500), strings.Repeat("ä", 500), strings.Repeat("a", 499) + "ä", "\xff bad"} {
		got := clip(text)
		if len(got) > maxErrorText || !utf8.ValidString(got) || len(text) <= maxErrorText && utf8.ValidString(text) && got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

// Names that nobody knows and ends that come twice change nothing.
func TestEntryIsForgiving(t *testing.T) {
	t.Parallel()
	e := &entry{Stage: &drone.Stage{}, Steps: []*stepEntry{{Step: drone.Step{Name: "a", Status: drone.StatusPending}}}}
	if e.begin("nobody") || e.step("nobody") != nil {
		t.Error("an unknown step began")
	}
	e.end("nobody", outcome{status: drone.StatusPassing})
	if !e.begin("a") || e.begin("a") {
		t.Error("a step did not begin, or began twice")
	}
	e.end("a", outcome{status: drone.StatusFailing, code: 1})
	e.end("a", outcome{status: drone.StatusPassing})
	if s := e.Steps[0]; s.Status != drone.StatusFailing || s.ExitCode != 1 {
		t.Errorf("the step is %s", s.Status)
	}
}

// A clock that is set back while a stage runs does not make anything end before it began.
func TestClockIsSetBack(t *testing.T) {
	t.Parallel()
	ahead := time.Now().Add(time.Hour).Unix()
	e := &entry{Stage: &drone.Stage{Started: ahead}, Steps: []*stepEntry{{
		Step: drone.Step{Name: "a", Status: drone.StatusRunning, Started: ahead},
	}}}
	e.end("a", outcome{status: drone.StatusPassing})
	e.conclude(drone.StatusPassing, "")
	if e.Stage.Stopped != ahead || e.Steps[0].Stopped != ahead {
		t.Errorf("the stage took %d s, its step %d s", e.Stage.Stopped-ahead, e.Steps[0].Stopped-ahead)
	}
}

func TestOutcome(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		state *engine.State
		err   error
		want  outcome
	}{
		{&engine.State{}, nil, outcome{"success", 0, ""}},
		{&engine.State{ExitCode: 2}, nil, outcome{"failure", 2, ""}},
		{&engine.State{ExitCode: 78}, nil, outcome{"success", 78, ""}},
		{&engine.State{ExitCode: 139, Reason: engine.Signaled}, nil, outcome{"failure", 139, ""}},
		{&engine.State{ExitCode: 137, Reason: engine.OutOfMemory}, nil, outcome{"failure", 137, "out of memory"}},
		{&engine.State{ExitCode: 143, Reason: engine.DiskFull}, nil, outcome{"failure", 143, "disk limit"}},
		{&engine.State{ExitCode: 143, Reason: engine.Cancelled}, nil, outcome{"killed", 143, ""}},
		{&engine.State{ExitCode: 143, Reason: engine.TimedOut}, nil, outcome{"error", 143, ""}},
		{&engine.State{}, errors.New("no idea"), outcome{"error", 0, "no idea"}},
		{nil, errors.New("no shell"), outcome{"error", exitNotRun, "no shell"}},
		{nil, nil, outcome{"error", exitNotRun, "the step ended without a result"}},
	} {
		if got := outcomeOf(c.state, c.err); got != c.want {
			t.Errorf("%+v, %v: %+v", c.state, c.err, got)
		}
	}
}

// A stage waits for as many of those before it as its limit asks, and only for those of its own name.
func TestPeers(t *testing.T) {
	t.Parallel()
	var p peers
	first, other, second, third := p.join(1, "a"), p.join(1, "b"), p.join(1, "a"), p.join(1, "a")
	if err := p.wait(t.Context(), first, 1); err != nil {
		t.Error(err)
	}
	if err := p.wait(t.Context(), second, 2); err != nil {
		t.Error(err)
	}
	if err := p.wait(t.Context(), other, 1); err != nil {
		t.Error(err)
	}
	ended, end := context.WithCancelCause(t.Context())
	end(engine.ErrCancelled)
	if err := p.wait(ended, third, 2); !errors.Is(err, engine.ErrCancelled) {
		t.Errorf("a cancelled stage waits: %v", err)
	}
	waited := make(chan error)
	go func() { waited <- p.wait(t.Context(), third, 1) }()
	p.leave(second)
	p.leave(second)
	select {
	case <-waited:
		t.Error("the stage did not wait for the first")
	default:
	}
	p.leave(first)
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

// TestRecordWritesChangesTogether checks that every change is on disk when it returns, whoever wrote it, and that a
// reader does not wait for the disk.
func TestRecordWritesChangesTogether(t *testing.T) {
	j, err := openJournal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	rec := &record{journal: j, entry: &entry{Phase: phaseRunning, Build: "b", Stage: &drone.Stage{ID: 7}}}
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			name := strconv.Itoa(i)
			change := rec.change
			if i%3 == 0 {
				change = func(f func(*entry)) error { rec.note(f); return nil }
			}
			err := change(func(e *entry) { e.Steps = append(e.Steps, &stepEntry{Step: drone.Step{Name: name}}) })
			now, readErr := readEntry(j.path(7), 7)
			if err != nil || readErr != nil || now.step(name) == nil {
				t.Errorf("change %s is not on disk: %v %v", name, err, readErr)
			}
		})
	}
	all.Wait()
	if rec.written != 50 || rec.synced < 1 {
		t.Errorf("%d changes are in the file, %d are safe", rec.written, rec.synced)
	}
	checkGrowth(t, rec)
	rec.disk.Lock() // as if a write took long
	rec.read(func(e *entry) {
		if len(e.Steps) != 50 {
			t.Errorf("%d changes", len(e.Steps))
		}
	})
	rec.disk.Unlock()
}

// checkGrowth writes more than a file may hold.
func checkGrowth(t *testing.T, rec *record) {
	t.Helper()
	for range 2 * maxJournalFile / len(lastLine(t, rec.journal.path(7))) {
		rec.note(func(e *entry) { e.Stage.Version++ })
	}
	info, err := os.Stat(rec.journal.path(7))
	if err != nil || info.Size() > maxJournalFile || int(info.Size()) != rec.size {
		t.Errorf("the file: %v %v, %d as the record has it", info, err, rec.size)
	}
	if e, err := readEntry(rec.journal.path(7), 7); err != nil || e.Stage.Version != rec.entry.Stage.Version {
		t.Errorf("the last change is not in the file: %v %v", e, err)
	}
}
