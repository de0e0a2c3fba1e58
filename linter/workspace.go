package linter

import "git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"

// checkWorkspace refuses a working directory outside of the build's own, or one that would hide its other directories.
// The compiler uses the same function, so what passes here is what is made.
func checkWorkspace(c *check) {
	ws := c.pipeline.Workspace
	if _, err := resource.WorkspaceDir(ws.Value); err != nil {
		c.report(ws.Pos, "workspace.path %q %s", ws.Value, err)
	}
}
