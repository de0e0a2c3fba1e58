package linter

// checkDuplicatePipelines refuses two pipelines of one name: the server makes a stage of each, and both would run the
// first.
func checkDuplicatePipelines(c *check) {
	for _, p := range c.manifest.Pipelines {
		// The first of its name is the good one.
		if p == c.pipeline {
			return
		}
		if p.StageName() == c.pipeline.StageName() {
			c.report(c.pipeline.Name.Pos, "a pipeline named `%s` exists on line %d already", p.StageName(), p.Pos.Line)
			return
		}
	}
}
