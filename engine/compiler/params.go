package compiler

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// legalParameters are the parameters of a build that become variables, and a warning for each that does not: whoever may
// start a build must not thereby decide which programs its steps find, or what a shell or git runs beside its work.
func legalParameters(params map[string]string) (legal map[string]string, warnings []string) {
	legal = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		switch {
		case !variableName.MatchString(name), strings.Contains(params[name], "\x00"):
			warnings = append(warnings, fmt.Sprintf("build parameter %q is refused: it cannot be a variable", name))
		case changesExecution(name):
			warnings = append(warnings, fmt.Sprintf("build parameter %q is refused: it could change how commands are found and run", name))
		default:
			legal[name] = params[name]
		}
	}
	return legal, warnings
}

// variableName are names that reach a process as they are. `LD_PRELOAD=x` as a name would set LD_PRELOAD, and bash
// takes functions from names like BASH_FUNC_git%%.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// changesExecution reports whether a shell, the dynamic linker or git takes orders from a variable. PS4 is one of
// them: a shell that traces expands it, commands included. The names are those of sh(1) and bash(1), ld.so(8) and git(1).
// It is a list of what reaches every step; interpreters that a step calls have variables of their own, which only the
// pipeline's author can know.
func changesExecution(name string) bool {
	switch name {
	case "PATH", "BASH_ENV", "ENV", "IFS", "PS4", "SHELLOPTS", "BASHOPTS",
		"GIT_ASKPASS", "GIT_EXEC_PATH", "GIT_DIR", "GIT_WORK_TREE", "GIT_EXTERNAL_DIFF",
		"GIT_PROXY_COMMAND", "GIT_TEMPLATE_DIR", "GIT_EDITOR", "GIT_PAGER":
		return true
	}
	for _, prefix := range []string{"LD_", "GIT_SSH", "GIT_CONFIG"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
