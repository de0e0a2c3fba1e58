package linter

import (
	"slices"
)

// checkShell refuses shells that this runner does not write scripts for. The old runner ignored the key and ran such a
// step in sh; it is an error all the same, because its commands are written for another shell.
func checkShell(c *check) {
	for _, s := range c.pipeline.Steps {
		switch shell := s.Shell.Value; {
		case slices.Contains([]string{"", "sh", "bash", "/bin/sh", "/bin/bash"}, shell), isExpression(shell):
		default:
			c.report(s.Shell.Pos, "`shell: %s` is not known: write `sh` or `bash`", s.Shell.Value)
		}
	}
}
