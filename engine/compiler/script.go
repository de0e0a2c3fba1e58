package compiler

import (
	"fmt"
	"strings"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
)

// script writes a step's commands into one shell script that prints each command before it runs it.
//
// The text is printed from single quotes, in which a shell expands nothing: backticks and $(...) run once, where they
// stand, and never a second time for the print. printf and not echo: what echo makes of a backslash differs from shell to
// shell. The shell's own trace (set -x) would show secrets that the command only names.
func script(commands []resource.String) []byte {
	var b strings.Builder
	b.WriteString("set -e\n")
	for _, command := range commands {
		fmt.Fprintf(&b, "\nprintf '%%s\\n' %s\n%s\n", singleQuoted("+ "+command.Value), command.Value)
	}
	return []byte(b.String())
}

// singleQuoted quotes text for a POSIX shell.
func singleQuoted(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// shellArgs is the call that runs a script. Any sh is the system's; bash is where the step's PATH has it. The linter has
// refused every other `shell`.
func shellArgs(shell, path string) []string {
	switch shell {
	case "bash", "/bin/bash":
		return []string{shell, "-e", path}
	}
	return []string{"/bin/sh", "-e", path}
}

// maxSlug keeps a script's name well below what file systems allow.
const maxSlug = 40

// scriptName is unique by its number; the rest is for whoever looks at the directory.
func scriptName(index int, step string) string {
	slug := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, step)
	if len(slug) > maxSlug {
		slug = slug[:maxSlug]
	}
	return fmt.Sprintf("%03d-%s", index+1, slug)
}
