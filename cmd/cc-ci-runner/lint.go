package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
	"git.autonomic.zone/recipe-maintainers/cc-ci/linter"
)

// lintCommand checks files as they are written, without a build: what only a build can break (secrets, substitution)
// is compile's and exec's to find. Warnings count as problems here: this is the place to learn of them.
type lintCommand struct {
	Files []string `arg:"" name:"file" help:"Pipeline files; - is standard input."`
}

// Run prints one line per problem and exits with 1 when there is one. Files that cannot be read do not keep the others
// from being checked; they are named at the end, with the same exit code.
func (c *lintCommand) Run(out streams) error {
	bad := false
	var unread []error
	for _, name := range c.Files {
		data, err := readSource(name)
		if err != nil {
			unread = append(unread, err)
			continue
		}
		// A file of another runner is no problem, but a typing error in `kind` would look the same: say it.
		if m, err := resource.Parse(bytes.Clone(data)); err == nil && len(m.Pipelines) == 0 {
			if _, err := fmt.Fprintf(out.err, "%s: no document is of `kind: pipeline, type: exec`: there is nothing to check\n", name); err != nil {
				return err
			}
		}
		for _, problem := range linter.File(name, data) {
			bad = true
			if _, err := fmt.Fprintln(out.out, problem); err != nil {
				return err
			}
		}
	}
	if bad && len(unread) == 0 {
		return &exitError{code: exitFailed}
	}
	return errors.Join(unread...)
}

// readSource reads a pipeline file, or standard input for a dash. It reads all of it; the parser's limit on size comes
// after.
func readSource(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(os.Stdin)
	}
	data, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist; name a pipeline file, such as .drone.yml", name)
	}
	return data, err
}
