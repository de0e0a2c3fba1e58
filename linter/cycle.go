package linter

import (
	"strings"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
)

// checkCycle refuses steps that wait for each other. Each circle is reported once, at its first step's dependency.
func checkCycle(c *check) {
	search := &cycleSearch{check: c, steps: stepsByName(c.pipeline), state: map[string]visit{}}
	for _, s := range c.pipeline.Steps {
		search.visit(s)
	}
}

// visit is how far the search has come with a step: not at all, on the path from where it began, or with all that the
// step waits for.
type visit int

const (
	unseen visit = iota
	open
	done
)

// cycleSearch walks the graph depth first; an edge to a step that is still open closes a circle.
type cycleSearch struct {
	check *check
	// steps are by name; state and path are by name, too, so a second step of one name is not looked at
	// (checkDuplicateSteps refuses it).
	steps map[string]*resource.Step
	state map[string]visit
	path  []string
}

// visit follows a step's dependencies. Each step is opened once, so the search is linear and ends; it goes as deep as
// the longest chain, which MaxSteps does not bound here, but the size of a file does.
func (s *cycleSearch) visit(step *resource.Step) {
	name := step.Name.Value
	if s.state[name] != unseen {
		return
	}
	s.state[name] = open
	s.path = append(s.path, name)
	for _, dep := range step.DependsOn {
		next, found := s.steps[dep.Value]
		switch {
		case !found:
			// No such step: checkDependsOn says so.
		case s.state[dep.Value] == open:
			s.check.report(dep.Pos, "steps wait for each other: %s", s.circle(dep.Value))
		default:
			s.visit(next)
		}
	}
	s.path = s.path[:len(s.path)-1]
	s.state[name] = done
}

// circle writes the path from a step back to itself. The step is always on the path: it is open.
func (s *cycleSearch) circle(to string) string {
	for i, name := range s.path {
		if name == to {
			return strings.Join(s.path[i:], " -> ") + " -> " + to
		}
	}
	return to
}
