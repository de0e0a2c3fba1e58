package compiler

import (
	"slices"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
	"git.autonomic.zone/recipe-maintainers/cc-ci/linter"
)

// order fills DependsOn: the pipeline's graph if any step has `depends_on`, otherwise one step after the other. In a graph
// a step without dependencies starts with the first, after the clone.
func (c *compilation) order(kept []keptStep) {
	if !isGraph(c.pipeline) {
		for i := 1; i < len(c.spec.Steps); i++ {
			c.spec.Steps[i].DependsOn = []string{c.spec.Steps[i-1].Name}
		}
		return
	}
	present := map[string]bool{}
	for _, s := range c.spec.Steps {
		present[s.Name] = true
	}
	g := graph{present: present, steps: map[string]*resource.Step{}, memo: map[string][]string{}}
	for _, s := range c.pipeline.Steps {
		g.steps[s.Name.Value] = s
	}
	for _, k := range kept {
		k.step.DependsOn = g.dependencies(k.source)
		if len(k.step.DependsOn) == 0 && !c.pipeline.Clone.Disable {
			k.step.DependsOn = []string{linter.CloneStep}
		}
	}
}

// isGraph asks the file, not the steps that are left: what an event leaves out must not change how the rest is read.
func isGraph(p *resource.Pipeline) bool {
	return slices.ContainsFunc(p.Steps, func(s *resource.Step) bool { return len(s.DependsOn) > 0 })
}

// graph resolves dependencies on steps that were left out: who waits for such a step waits for what it would have
// waited for. The linter has made sure that there is no circle.
type graph struct {
	present map[string]bool
	steps   map[string]*resource.Step
	memo    map[string][]string
}

// dependencies are the steps of the Spec for which a step waits, each once. What is known is kept: a file can be made
// in which the ways through the left out steps are too many to count.
func (g *graph) dependencies(s *resource.Step) []string {
	if known, found := g.memo[s.Name.Value]; found {
		return known
	}
	var list []string
	for _, dep := range s.DependsOn {
		names := []string{dep.Value}
		if !g.present[dep.Value] {
			// Neither present nor a step: `clone` in a pipeline that disables it.
			names = nil
			if left, found := g.steps[dep.Value]; found {
				names = g.dependencies(left)
			}
		}
		for _, name := range names {
			if !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
	}
	g.memo[s.Name.Value] = list
	return list
}
