package linter

// checkCloneNumbers refuses a depth or a number of retries below zero. Zero is as not given: the whole history, one
// try.
func checkCloneNumbers(c *check) {
	if depth := c.pipeline.Clone.Depth; depth.Value < 0 {
		c.report(depth.Pos, "clone.depth is %d: give the number of commits, or leave it out for all of them", depth.Value)
	}
	if retries := c.pipeline.Clone.Retries; retries.Value < 0 || retries.Value > MaxRetries {
		c.report(retries.Pos, "clone.retries is %d: give a number from 0 to %d", retries.Value, MaxRetries)
	}
}

// MaxRetries keeps a pipeline from occupying the runner with a server that does not answer.
const MaxRetries = 20
