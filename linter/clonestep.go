package linter

// CloneStep is the name of the step that clones, unless `clone: {disable: true}`.
const CloneStep = "clone"

// checkCloneStep refuses a second step of that name: on the old runner it ran instead of the clone, twice.
func checkCloneStep(c *check) {
	// Whoever disables the automatic clone may well call their own so.
	if c.pipeline.Clone.Disable {
		return
	}
	for _, s := range c.pipeline.Steps {
		if s.Name.Value == CloneStep {
			c.report(s.Name.Pos, "the step is named as the automatic clone: rename it, or set `clone: {disable: true}`")
		}
	}
}
