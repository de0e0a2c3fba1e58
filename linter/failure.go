package linter

import (
	"slices"
	"strings"
)

// checkFailure points at values of `failure` that mean nothing; only `ignore` changes what a failing step does. `fail`
// and `always` are runner-go's names for the default, so they are as good as none; `fast` and `fail-fast` are known to
// the docker runner, and their author expects something of them.
func checkFailure(c *check) {
	for _, s := range c.pipeline.Steps {
		switch value := strings.ToLower(s.Failure.Value); {
		case slices.Contains([]string{"", "ignore", "always", "fail"}, value), isExpression(value):
		case value == "fast", value == "fail-fast":
			c.report(s.Failure.Pos, "`failure: %s` has no effect in an exec pipeline: a failure always skips the steps after it", s.Failure.Value)
		default:
			c.report(s.Failure.Pos, "`failure: %s` means nothing: write `failure: ignore`, or leave it out", s.Failure.Value)
		}
	}
}
