package compiler

import (
	"slices"
	"strings"
	"testing"
)

func TestParametersRefused(t *testing.T) {
	refused := []string{
		"PATH", "BASH_ENV", "ENV", "IFS", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GIT_SSH", "GIT_SSH_COMMAND",
		"GIT_CONFIG", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_PARAMETERS",
		"GIT_ASKPASS", "GIT_EXEC_PATH", "GIT_DIR", "GIT_WORK_TREE", "GIT_EXTERNAL_DIFF", "GIT_PROXY_COMMAND", "GIT_TEMPLATE_DIR",
		"GIT_EDITOR", "GIT_PAGER", "PS4", "SHELLOPTS", "BASHOPTS", "", "LD_PRELOAD=/tmp/x.so", "A=B", "BASH_FUNC_git%%", "A B", "A\nB", "1A",
	}
	legal := []string{"GIT_BRANCH", "GIT_AUTHOR", "PATHS", "MY_PATH", "ENVIRONMENT", "LDAP", "version", "some.key", "with-dash", "_x"}
	in := sample("kind: pipeline\ntype: exec\nsteps:\n- name: a\n  commands: [\"echo ${LD_AUDIT}.${GIT_BRANCH}\"]\n")
	in.Build.Params = map[string]string{"ZERO": "a\x00b"}
	for _, name := range slices.Concat(refused, legal) {
		in.Build.Params[name] = "canary-" + name
	}
	spec := prepared(t, in)
	clone, step := spec.Steps[0], spec.Steps[1]
	for name, value := range clone.Env {
		if strings.HasPrefix(value, "canary") {
			t.Errorf("parameter %s reaches the clone", name)
		}
	}
	for _, name := range append(refused, "ZERO") {
		if strings.HasPrefix(step.Env[name], "canary") {
			t.Errorf("parameter %q reaches the step", name)
		}
		if n := len(warningsOf(spec.Warnings, quoted(name))); n != 1 {
			t.Errorf("parameter %q: %d warnings", name, n)
		}
	}
	for _, name := range legal {
		if step.Env[name] != "canary-"+name {
			t.Errorf("parameter %s = %q", name, step.Env[name])
		}
	}
	if text := string(step.Files[0].Data); !strings.Contains(text, "echo .canary-GIT_BRANCH\n") {
		t.Errorf("substituted: %q", text)
	}
}

func quoted(name string) string {
	return "parameter " + strings.NewReplacer("\n", `\n`).Replace(`"`+name+`"`)
}

func warningsOf(warnings []string, text string) []string {
	return slices.DeleteFunc(slices.Clone(warnings), func(w string) bool { return !strings.Contains(w, text) })
}

func TestHostEnvironmentStaysWhenParametersAreRefused(t *testing.T) {
	in := sample(pipeline(oneStep))
	in.Build.Params = map[string]string{"PATH": "/evil"}
	if got := prepared(t, in).Steps[0].Env["PATH"]; got != "/usr/bin:/bin" {
		t.Errorf("PATH = %q", got)
	}
}
