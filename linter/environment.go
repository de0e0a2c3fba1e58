package linter

import "strings"

// checkEnvironment refuses variables and commands that no process can be given. The strings of execve(2) end at a zero
// byte, and the first `=` ends a variable's name: A=B with the value 1 would arrive as A with the value B=1.
func checkEnvironment(c *check) {
	for _, s := range c.pipeline.Steps {
		for _, v := range s.Environment {
			switch {
			case v.Name.Value == "" || strings.ContainsAny(v.Name.Value, "=\x00"):
				c.report(v.Name.Pos, "%q cannot be the name of a variable", v.Name.Value)
			case strings.Contains(v.Value, "\x00"):
				c.report(v.Name.Pos, "the value of %s holds a zero byte", v.Name.Value)
			}
		}
		for _, command := range s.Commands {
			if strings.Contains(command.Value, "\x00") {
				c.report(command.Pos, "the command holds a zero byte")
			}
		}
	}
}
