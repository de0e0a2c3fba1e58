// Package linter holds the rules that a pipeline must meet, one rule a file. Each problem says where it is and what to
// do; docs/linter.md shows a bad and a good example of every rule.
//
// The way of a file: package resource parses it, refuses what cannot be read, and keeps what is wrong in a readable
// pipeline with its place; the rules here judge the result. package compiler calls Check for the daemon, exec and
// compile, `cc-ci-runner lint` calls File. Nothing here touches the host or keeps state between calls.
//
// A new rule is a function in a file of its own, a line in rules, cases in TestRules, and a section in docs/linter.md,
// whose names and examples a test holds against the rules.
package linter

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
)

// Severity says whether a problem stops a build.
type Severity string

// The severities. A Warning is something that the old runner let pass: it stops a build only in strict mode.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Problem is one thing to change in a pipeline.
type Problem struct {
	// File is the name that the caller gave; Line and Column count from 1.
	File   string
	Line   int
	Column int

	// Message may quote the file, and is as long as what it quotes: String bounds it.
	Message string

	// Rule is a heading of docs/linter.md.
	Rule     string
	Severity Severity
}

// String is the form of compilers, which editors can jump to: file:line:column: message (rule).
func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s (%s)", printable(p.File), p.Line, p.Column, printable(p.Message), p.Rule)
}

// maxMessage is how many bytes of a message are shown: it quotes the file, which may have a key as long as a book.
const maxMessage = 500

// printable is text as one line that changes nothing on a terminal: a message quotes what strangers have written, and
// goes to admins' terminals, logs and Drone's pages. What does not print is shown as Go would escape it.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case b.Len() > maxMessage:
			return b.String() + "…"
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// Problems is an error made of everything that is wrong, one line each.
type Problems []Problem

// maxLines is how many problems one text shows: a server stores it, and a person reads it.
const maxLines = 100

// Error is the problems' Lines in one text.
func (p Problems) Error() string { return strings.Join(p.Lines(), "\n") }

// Lines are the problems as text, one a line; of very many the first, and how many more there are.
func (p Problems) Lines() []string {
	var lines []string
	for i := range p {
		if i == maxLines {
			return append(lines, fmt.Sprintf("%s: and %d more problems", p[i].File, len(p)-maxLines))
		}
		lines = append(lines, p[i].String())
	}
	return lines
}

// Err is nil where there is no problem.
func (p Problems) Err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// Split parts the problems that stop a build from those that are only said. In strict mode all of them stop it.
func (p Problems) Split(strict bool) (fatal, said Problems) {
	for _, one := range p {
		if strict || one.Severity == Error {
			fatal = append(fatal, one)
		} else {
			said = append(said, one)
		}
	}
	return fatal, said
}

// File checks a file as it is written, without a build: all its pipelines. The file's name is only for the messages.
// The problems are in the file's order; none means that it is good as far as that can be told without a build's
// variables and secrets. Unlike the daemon it looks at the documents beside the pipelines, too: nobody else would tell
// their author.
func File(name string, data []byte) Problems {
	m, err := resource.Parse(data)
	if err != nil {
		// In [${A}, ${B}] the braces are no YAML until a build has replaced them; $(A) is, and keeps the columns.
		var again error
		m, again = resource.Parse(regexp.MustCompile(`\$\{([^{}\n]*)\}`).ReplaceAll(data, []byte("$$($1)")))
		if again != nil {
			return Refused(name, err)
		}
	}
	c := &check{file: name, manifest: m}
	for _, p := range m.Pipelines {
		c.pipeline = p
		c.run()
	}
	c.documents()
	return c.sorted()
}

// Check checks one pipeline of a file, after substitution: what a build is about to run. p is one of m's pipelines;
// the others are looked at only for their names.
func Check(name string, m *resource.Manifest, p *resource.Pipeline) Problems {
	c := &check{file: name, manifest: m, pipeline: p}
	c.run()
	return c.sorted()
}

// Refused is the problem of a file that could not be read at all: the error of resource.Parse or resource.Guard, or of
// another reader, which knows no place and gets the first line.
func Refused(name string, err error) Problems {
	p := Problem{File: name, Line: 1, Column: 1, Message: err.Error(), Rule: "syntax", Severity: Error}
	if e, ok := errors.AsType[*resource.Error](err); ok {
		p.Line, p.Column, p.Message, p.Rule = e.Pos.Line, e.Pos.Column, e.Message, e.Rule
	}
	return Problems{p}
}

// rule is one check of a pipeline. Its severity follows one question: did such a pipeline work on the old runner? If it
// may have, it works here too, and the rule is a warning.
type rule struct {
	name     string
	severity Severity
	check    func(*check)
}

// rules are all the rules of a pipeline. The rules of files that cannot be read are in package resource. Their order
// is of no importance: problems are sorted. A function and not a variable, so that nobody can change it.
func rules() []rule {
	return []rule{
		{"clone-number", Error, checkCloneNumbers},
		{"clone-step", Error, checkCloneStep},
		{"depends-on", Error, checkDependsOn},
		{"cycle", Error, checkCycle},
		{"duplicate-key", Warning, checkDuplicateKeys},
		{"duplicate-pipeline", Error, checkDuplicatePipelines},
		{"duplicate-step", Error, checkDuplicateSteps},
		{"environment", Error, checkEnvironment},
		{"failure", Warning, checkFailure},
		{"glob", Error, checkGlobs},
		{"image", Error, checkImage},
		{"no-effect", Warning, checkNoEffect},
		{"null", Error, checkNulls},
		{"shell", Error, checkShell},
		{"step-name", Error, checkStepNames},
		{"steps", Error, checkStepCount},
		{"type", Error, checkTypes},
		{"unknown-key", Warning, checkUnknownKeys},
		{"when", Warning, checkWhen},
		{"workspace", Error, checkWorkspace},
	}
}

// Names are all rules in the alphabet's order: those of a pipeline, those of a file, and those that only a build can
// break (package compiler).
func Names() []string {
	names := []string{"alias", "depth", "kind", "line-length", "size", "syntax", "pipeline", "secret", "substitution"}
	for _, r := range rules() {
		names = append(names, r.name)
	}
	slices.Sort(names)
	return names
}

// check is one run of the rules over one pipeline. A rule reads manifest and pipeline, and reports; it changes
// nothing. In documents there is no pipeline.
type check struct {
	file     string
	manifest *resource.Manifest
	pipeline *resource.Pipeline
	rule     rule
	problems Problems
}

// run applies all rules; none depends on another, so that everything wrong is reported at once.
func (c *check) run() {
	for _, r := range rules() {
		c.rule = r
		r.check(c)
	}
}

// documents adds what is wrong outside of the pipelines.
func (c *check) documents() {
	for _, f := range c.manifest.Faults {
		c.rule = rule{name: string(f.Kind), severity: Error}
		c.report(f.Pos, "%s", f.Message)
	}
	c.rule = rule{name: "unknown-key", severity: Warning}
	for _, s := range c.manifest.Secrets {
		c.unknownKeys(s.Unknown)
	}
	c.rule = rule{name: "kind", severity: Warning}
	for _, other := range c.manifest.Others {
		if other.Kind == "" {
			c.report(other.Pos, "the document has no `kind`, so no runner takes it: begin it with `kind: pipeline` and `type: exec`")
		}
	}
}

// report adds a problem of the rule that runs. Values of the file go into args, never into the format.
func (c *check) report(at resource.Pos, format string, args ...any) {
	// What was left out stands nowhere; the pipeline's first line stands for it.
	if at.Line == 0 {
		at = c.pipeline.Pos
	}
	c.problems = append(c.problems, Problem{
		File: c.file, Line: at.Line, Column: at.Column,
		Message: fmt.Sprintf(format, args...), Rule: c.rule.name, Severity: c.rule.severity,
	})
}

// sorted are the problems in the file's order, and at one place in that of the rules' names, so that the output does
// not depend on the order of rules or maps.
func (c *check) sorted() Problems {
	slices.SortStableFunc(c.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Rule, b.Rule))
	})
	return c.problems
}

// isExpression reports whether a value is still to be replaced, as in a file that is checked without a build.
func isExpression(value string) bool {
	return strings.Contains(value, "${") || strings.Contains(value, "$(")
}
