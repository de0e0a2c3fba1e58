package linter

// checkShell refuses shells that this runner does not write scripts for.
func checkShell(c *check) {
	for _, s := range c.pipeline.Steps {
		switch s.Shell.Value {
		case "", "sh", "bash", "/bin/sh", "/bin/bash":
		default:
			c.report(s.Shell.Pos, "`shell: %s` is not known: write `sh` or `bash`", s.Shell.Value)
		}
	}
}
