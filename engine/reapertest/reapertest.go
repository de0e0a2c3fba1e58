// Package reapertest holds the conformance suite that every engine.Reaper passes, whatever it removes. It is for
// tests only.
//
// It has no fakes: each package hands in its real Reaper and a way to make real things (processes, Docker objects,
// directories). It checks what Reapers have in common; what is particular to one, and what happens after a crash, is that
// package's to test.
package reapertest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// Reaper is engine.Reaper, written out so that packages below engine can use the suite.
type Reaper interface {
	Builds(ctx context.Context) ([]string, error)
	Teardown(ctx context.Context, build string) ([]leftover.Item, error)
	Remaining(ctx context.Context, build string) ([]leftover.Item, error)
}

// Subject is one Reaper under test.
type Subject struct {
	Reaper Reaper

	// Make lets the build hold one more thing of the Reaper's kind. It is called again, and from several goroutines
	// at once. After a teardown has begun it may return an error; then it must have made nothing.
	Make func(ctx context.Context, build string) error

	// Names are two names of builds that hold nothing yet.
	Names [2]string
}

// Run checks what engine.Reaper promises. subject is called for each part, so that none sees what another left; it
// registers its cleaning up with t.Cleanup.
func Run(t *testing.T, subject func(t *testing.T) Subject) {
	t.Run("teardown of nothing", func(t *testing.T) {
		s := subject(t)
		s.teardown(t, s.Names[0])
		s.clean(t, s.Names[0])
	})
	t.Run("teardown, twice", func(t *testing.T) {
		s := subject(t)
		s.make(t, s.Names[0], 2)
		s.holds(t, s.Names[0])
		if removed := s.teardown(t, s.Names[0]); len(removed) == 0 {
			t.Error("the teardown names nothing that it removed")
		}
		s.clean(t, s.Names[0])
		if removed := s.teardown(t, s.Names[0]); len(removed) != 0 {
			t.Errorf("the second teardown says that it removed %v", removed)
		}
		s.clean(t, s.Names[0])
	})
	// A runner has as many builds at once as its capacity allows, and other runners may share the host.
	t.Run("the neighbour is left alone", func(t *testing.T) {
		s := subject(t)
		s.make(t, s.Names[0], 1)
		s.make(t, s.Names[1], 1)
		s.teardown(t, s.Names[0])
		s.clean(t, s.Names[0])
		s.holds(t, s.Names[1])
		s.teardown(t, s.Names[1])
		s.clean(t, s.Names[1])
	})
	t.Run("teardown while things are made", func(t *testing.T) { whileMaking(t, subject(t)) })
	t.Run("a context that has ended", func(t *testing.T) {
		s := subject(t)
		s.make(t, s.Names[0], 1)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		// Whether it succeeds or not, it must return, and the next teardown must do the rest.
		_, _ = s.Reaper.Teardown(ctx, s.Names[0])
		s.teardown(t, s.Names[0])
		s.clean(t, s.Names[0])
	})
}

// whileMaking tears down while another goroutine goes on making things. What was made meanwhile may be left, but
// Remaining must know it, and one more teardown must remove it.
func whileMaking(t *testing.T, s Subject) {
	s.make(t, s.Names[0], 1)
	var wg sync.WaitGroup
	started := make(chan struct{})
	wg.Go(func() {
		for i := range 5 {
			if err := s.Make(t.Context(), s.Names[0]); err != nil {
				t.Logf("making was refused: %v", err)
			}
			if i == 0 {
				close(started)
			}
		}
	})
	// From here on both are at work: the first of the five is made, and none of the others needs to be.
	<-started
	_, err := s.Reaper.Teardown(t.Context(), s.Names[0])
	wg.Wait()
	if err != nil {
		t.Logf("teardown while things are made: %v", err)
	}
	s.teardown(t, s.Names[0])
	s.clean(t, s.Names[0])
}

func (s Subject) make(t *testing.T, build string, n int) {
	t.Helper()
	for range n {
		if err := s.Make(t.Context(), build); err != nil {
			t.Fatalf("make something for %s: %v", build, err)
		}
	}
}

// teardown must succeed, in a minute at most: a Reaper that waits for something to go away gives up in the end.
func (s Subject) teardown(t *testing.T, build string) []leftover.Item {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	removed, err := s.Reaper.Teardown(ctx, build)
	if err != nil {
		t.Fatalf("teardown of %s: %v", build, err)
	}
	return removed
}

// holds checks that the Reaper knows that the build holds something.
func (s Subject) holds(t *testing.T, build string) {
	t.Helper()
	if left, builds := s.look(t, build); len(left) == 0 || !slices.Contains(builds, build) {
		t.Fatalf("%s holds something, but Remaining says %v and Builds %v", build, left, builds)
	}
}

// clean checks that nothing is left of the build.
func (s Subject) clean(t *testing.T, build string) {
	t.Helper()
	if left, builds := s.look(t, build); len(left) != 0 || slices.Contains(builds, build) {
		t.Fatalf("%s should hold nothing, but Remaining says %v and Builds %v", build, left, builds)
	}
}

// look asks both questions: what is named by one only would be found by no sweep, or swept for ever.
func (s Subject) look(t *testing.T, build string) ([]leftover.Item, []string) {
	t.Helper()
	left, err := s.Reaper.Remaining(t.Context(), build)
	if err != nil {
		t.Fatalf("remaining of %s: %v", build, err)
	}
	builds, err := s.Reaper.Builds(t.Context())
	if err != nil {
		t.Fatalf("builds: %v", err)
	}
	return left, builds
}
