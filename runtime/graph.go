package runtime

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

// graph runs the steps of a stage in the order of their dependencies.
type graph struct {
	steps []*engine.Step

	// slots limits how many steps run at once in the whole process; nil does not. A detached step takes none, or one
	// that lives as long as its stage could keep all others waiting.
	slots *semaphore.Weighted

	// wanted says whether the step runs, as the stage stands now.
	wanted func(*engine.Step) bool

	// run runs one step to its end; it never panics. skip says that a step does not run.
	run  func(context.Context, *engine.Step)
	skip func(*engine.Step)
}

// checkGraph returns an error for steps that could never start: those that wait for an unknown step or for
// themselves. walk would wait for ever for them. It is a depth-first search: a step that is met again while it is
// visited is in a circle.
func checkGraph(steps []*engine.Step) error {
	waits := make(map[string][]string, len(steps))
	for _, s := range steps {
		if _, twice := waits[s.Name]; twice {
			return fmt.Errorf("two steps have the name %q", s.Name)
		}
		waits[s.Name] = s.DependsOn
	}
	const visiting, visited = 1, 2
	mark := map[string]int{}
	var visit func(string) error
	visit = func(name string) error {
		deps, known := waits[name]
		switch {
		case !known:
			return fmt.Errorf("a step depends on %q, which is no step of this pipeline", name)
		case mark[name] == visiting:
			return fmt.Errorf("step %q waits for itself through its dependencies", name)
		case mark[name] == visited:
			return nil
		}
		mark[name] = visiting
		for _, dep := range deps {
			if err := visit(dep); err != nil {
				return err
			}
		}
		mark[name] = visited
		return nil
	}
	for _, s := range steps {
		if err := visit(s.Name); err != nil {
			return err
		}
	}
	return nil
}

// walk runs the graph and returns when every step has ended. Steps that have not started when the context ends are
// skipped. Each step has a goroutine from the beginning, which waits for its dependencies; a dependency that was
// skipped counts as ended, and whether its dependents run is for wanted to say. checkGraph must have passed.
func (g *graph) walk(ctx context.Context) {
	detached, endDetached := context.WithCancelCause(ctx)
	defer endDetached(nil)

	// passed is closed when the steps that depend on this one may start.
	passed := make(map[string]chan struct{}, len(g.steps))
	for _, s := range g.steps {
		passed[s.Name] = make(chan struct{})
	}
	var attached, background sync.WaitGroup
	for _, s := range g.steps {
		attached.Go(func() {
			defer close(passed[s.Name])
			for _, dep := range s.DependsOn {
				<-passed[dep]
			}
			if s.Detach {
				if g.start(ctx, s) {
					background.Go(func() { g.run(detached, s) })
				}
				return
			}
			g.attached(ctx, s)
		})
	}
	// Detached steps are awaited like the others, so that nothing runs any more when the teardown begins and each one's
	// end is reported.
	attached.Wait()
	endDetached(engine.ErrStageEnded)
	background.Wait()
}

// attached waits for a free slot and runs the step.
func (g *graph) attached(ctx context.Context, s *engine.Step) {
	// Only now, with its dependencies done, does the step ask for a slot: one that waited with a slot in hand could
	// keep those that it waits for from running.
	if g.slots != nil {
		if g.slots.Acquire(ctx, 1) != nil {
			g.skip(s)
			return
		}
		defer g.slots.Release(1)
	}
	if g.start(ctx, s) {
		g.run(ctx, s)
	}
}

// start decides whether the step runs, after everything it had to wait for.
func (g *graph) start(ctx context.Context, s *engine.Step) bool {
	if ctx.Err() != nil || !g.wanted(s) {
		g.skip(s)
		return false
	}
	return true
}
