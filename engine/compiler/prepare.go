package compiler

import (
	"context"
	"fmt"
	"strings"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
	"git.autonomic.zone/recipe-maintainers/cc-ci/linter"
)

// Prepare makes the Spec of a stage from its configuration file. What is wrong with the file comes back as
// linter.Problems, everything at once, each with its line; other errors are about the build: a branch that git would take
// for an option, a directory that is none. Warnings of the linter are in the Spec. Nothing on the host has changed yet.
func Prepare(ctx context.Context, in Input) (*engine.Spec, error) {
	in = in.withDefaults()
	m, p, err := read(in)
	if err != nil {
		return nil, err
	}
	fatal, said := linter.Check(in.File, m, p).Split(in.Options.Strict)
	if err := fatal.Err(); err != nil {
		return nil, err
	}
	spec, err := Compile(ctx, in, m, p)
	if err != nil {
		return nil, err
	}
	spec.Warnings = append(spec.Warnings, said.Lines()...)
	return spec, nil
}

// read guards, substitutes and parses the file, and picks the stage's pipeline. The guard comes first, because
// substitution reads the text too, and again after it, inside of Parse, because substitution can make text longer.
func read(in Input) (*resource.Manifest, *resource.Pipeline, error) {
	if err := resource.Guard(in.Config); err != nil {
		return nil, nil, linter.Refused(in.File, err)
	}
	text, err := substitute(string(in.Config), substitutions(in))
	if err != nil {
		return nil, nil, linter.Refused(in.File, err)
	}
	m, err := resource.Parse([]byte(text))
	if err != nil {
		return nil, nil, linter.Refused(in.File, err)
	}
	if p := m.Pick(in.Stage.Name); p != nil {
		return m, p, nil
	}
	return nil, nil, notFound(in, m)
}

// notFound names the pipelines that there are. A stage and its file part ways when the file changes in between.
func notFound(in Input, m *resource.Manifest) error {
	want := in.Stage.Name
	if want == "" {
		want = resource.DefaultName
	}
	message := "no document is of `kind: pipeline, type: exec`"
	if len(m.Pipelines) > 0 {
		var names []string
		for _, p := range m.Pipelines {
			names = append(names, p.StageName())
		}
		message = fmt.Sprintf("no exec pipeline is named `%s` (there are: %s)", want, strings.Join(names, ", "))
	}
	return linter.Refused(in.File, &resource.Error{Pos: resource.Pos{Line: 1, Column: 1}, Rule: "pipeline", Message: message})
}
