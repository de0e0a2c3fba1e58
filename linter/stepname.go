package linter

import "strings"

// checkStepNames refuses steps without a name, or with one that would break the log's lines. All other names are good,
// also long ones and those with slashes: scripts and cgroups get a short form of them.
func checkStepNames(c *check) {
	for _, s := range c.pipeline.Steps {
		switch {
		case strings.TrimSpace(s.Name.Value) == "":
			c.report(s.Pos, "the step has no `name`")
		case strings.ContainsFunc(s.Name.Value, isControl):
			c.report(s.Name.Pos, "the step's name holds a control character")
		}
	}
}

// isControl reports ASCII's control characters.
func isControl(r rune) bool { return r < ' ' || r == 0x7f }
