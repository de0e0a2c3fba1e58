package linter

import "git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"

// checkDependsOn refuses dependencies on steps that do not exist. The old runner then ran nothing, and was green.
func checkDependsOn(c *check) {
	// A dependency on the clone holds with and without one: where it is disabled, it means nothing.
	names := map[string]bool{CloneStep: true}
	for _, s := range c.pipeline.Steps {
		names[s.Name.Value] = true
	}
	for _, s := range c.pipeline.Steps {
		for _, dep := range s.DependsOn {
			if !names[dep.Value] {
				c.report(dep.Pos, "step `%s` depends on `%s`, which is no step of this pipeline", s.Name.Value, dep.Value)
			}
		}
	}
}

// stepsByName are the steps by their names; of two with the same name the first, as it is the one that keeps it. A
// step without a name is among them, under the empty one.
func stepsByName(p *resource.Pipeline) map[string]*resource.Step {
	steps := map[string]*resource.Step{}
	for _, s := range p.Steps {
		if _, twice := steps[s.Name.Value]; !twice {
			steps[s.Name.Value] = s
		}
	}
	return steps
}
