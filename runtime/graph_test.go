package runtime

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/semaphore"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

func TestCheckGraph(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		steps map[string]string // name: dependencies
		want  string
	}{
		{map[string]string{"a": "", "b": "a", "c": "a b"}, ""},
		{map[string]string{"a": "b"}, `a step depends on "b", which is no step of this pipeline`},
		{map[string]string{"a": "a"}, `step "a" waits for itself through its dependencies`},
		{map[string]string{"a": "b", "b": "c", "c": "a"}, "waits for itself"},
	} {
		var steps []*engine.Step
		for name, deps := range c.steps {
			steps = append(steps, &engine.Step{Name: name, DependsOn: strings.Fields(deps)})
		}
		err := checkGraph(steps)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v", c.steps, err)
		}
	}
	if checkGraph([]*engine.Step{{Name: "a"}, {Name: "a"}}) == nil {
		t.Error("two steps of one name pass")
	}
}

// In graphs at random every step runs once, after all that it depends on, and never more at once than there are slots.
func TestGraphOrder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(3, seed))
		var steps []*engine.Step
		for i := range 1 + rnd.IntN(12) {
			s := &engine.Step{Name: fmt.Sprint(i)}
			for j := range i {
				if rnd.IntN(3) == 0 {
					s.DependsOn = append(s.DependsOn, fmt.Sprint(j))
				}
			}
			steps = append(steps, s)
		}
		rnd.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
		slots := 1 + rnd.IntN(3)
		var mu sync.Mutex
		running, ran := 0, []string{}
		g := &graph{
			steps: steps, slots: semaphore.NewWeighted(int64(slots)),
			wanted: func(*engine.Step) bool { return true },
			skip:   func(s *engine.Step) { t.Errorf("seed %d: step %s is skipped", seed, s.Name) },
			run: func(_ context.Context, s *engine.Step) {
				mu.Lock()
				defer mu.Unlock()
				if running++; running > slots {
					t.Errorf("seed %d: %d steps run at once", seed, running)
				}
				for _, dep := range s.DependsOn {
					if !slices.Contains(ran, dep) {
						t.Errorf("seed %d: step %s runs before %s", seed, s.Name, dep)
					}
				}
				running--
				ran = append(ran, s.Name)
			},
		}
		g.walk(t.Context())
		if slices.Sort(ran); len(slices.Compact(ran)) != len(steps) {
			t.Errorf("seed %d: %d of %d steps ran", seed, len(ran), len(steps))
		}
	}
}

// A graph whose context has ended starts nothing and comes to its end.
func TestGraphThatIsCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var mu sync.Mutex
	skipped := 0
	g := &graph{
		steps: []*engine.Step{{Name: "a"}, {Name: "b", DependsOn: []string{"a"}}, {Name: "c", Detach: true}},
		slots: semaphore.NewWeighted(1), wanted: func(*engine.Step) bool { return true },
		run: func(_ context.Context, s *engine.Step) { t.Errorf("step %s ran", s.Name) },
		skip: func(*engine.Step) {
			mu.Lock()
			defer mu.Unlock()
			skipped++
		},
	}
	g.walk(ctx)
	if skipped != 3 {
		t.Errorf("%d steps were skipped", skipped)
	}
}
