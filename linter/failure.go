package linter

import (
	"slices"
	"strings"
)

// checkFailure points at values of `failure` that mean nothing; only `ignore` changes what a failing step does.
func checkFailure(c *check) {
	for _, s := range c.pipeline.Steps {
		switch value := strings.ToLower(s.Failure.Value); {
		case slices.Contains([]string{"", "ignore", "always", "fail", "fast", "fail-fast"}, value), isExpression(value):
		default:
			c.report(s.Failure.Pos, "`failure: %s` means nothing: write `failure: ignore`, or leave it out", s.Failure.Value)
		}
	}
}
