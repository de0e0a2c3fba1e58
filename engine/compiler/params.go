package compiler

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// legalParameters are the parameters of a build that become variables, and the names of those that do not: whoever
// may start a build must not thereby decide which programs its steps find, or what git runs beside its work.
func legalParameters(params map[string]string) (legal map[string]string, refused []string) {
	legal = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		if refusedParameter(name, params[name]) {
			refused = append(refused, name)
			continue
		}
		legal[name] = params[name]
	}
	return legal, refused
}

// variableName are names that reach a process as they are. `LD_PRELOAD=x` as a name would set LD_PRELOAD, and bash
// takes functions from names like BASH_FUNC_git%%.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

func refusedParameter(name, value string) bool {
	switch name {
	case "PATH", "BASH_ENV", "ENV", "IFS",
		"GIT_ASKPASS", "GIT_EXEC_PATH", "GIT_DIR", "GIT_WORK_TREE", "GIT_EXTERNAL_DIFF",
		"GIT_PROXY_COMMAND", "GIT_TEMPLATE_DIR", "GIT_EDITOR", "GIT_PAGER":
		return true
	}
	for _, prefix := range []string{"LD_", "GIT_SSH", "GIT_CONFIG"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return !variableName.MatchString(name) || strings.Contains(value, "\x00")
}
