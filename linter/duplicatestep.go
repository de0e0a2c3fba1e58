package linter

// checkDuplicateSteps refuses two steps of one name: neither a dependency nor a log would say which is meant, and the
// server's page lists both alike. Steps without a name are checkStepNames'.
func checkDuplicateSteps(c *check) {
	first := stepsByName(c.pipeline)
	for _, s := range c.pipeline.Steps {
		if before := first[s.Name.Value]; before != s && s.Name.Value != "" {
			c.report(s.Name.Pos, "a step named `%s` exists on line %d already", s.Name.Value, before.Name.Pos.Line)
		}
	}
}
