package linter

import "git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"

// checkNulls refuses empty steps, variables and list items, which crashed the old runner.
func checkNulls(c *check) { c.faults(resource.FaultNull) }

// checkTypes refuses a list where text is wanted, and the like.
func checkTypes(c *check) { c.faults(resource.FaultType) }

// checkDuplicateKeys points at keys given twice.
func checkDuplicateKeys(c *check) { c.faults(resource.FaultDuplicate) }

// faults reports what the parser has found of one kind.
func (c *check) faults(kind resource.FaultKind) {
	for _, f := range c.pipeline.Faults {
		if f.Kind == kind {
			c.report(f.Pos, "%s", f.Message)
		}
	}
}
