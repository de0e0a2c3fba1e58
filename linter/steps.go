package linter

// MaxSteps keeps a stage, all of which is registered at the server and may run at once, within what a host can take.
const MaxSteps = 1000

// checkStepCount refuses pipelines of very many steps, which a few kilobytes of YAML can hold.
func checkStepCount(c *check) {
	if n := len(c.pipeline.Steps); n > MaxSteps {
		c.report(c.pipeline.Steps[MaxSteps].Pos, "the pipeline has %d steps, more than %d", n, MaxSteps)
	}
}
