package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"git.autonomic.zone/recipe-maintainers/cc-ci/linter"
)

// lintCommand checks files.
type lintCommand struct {
	Files []string `arg:"" name:"file" help:"Pipeline files; - is standard input."`
}

// Run prints one line per problem and exits with 1 when there is one.
func (c *lintCommand) Run(out streams) error {
	bad := false
	for _, name := range c.Files {
		data, err := readSource(name)
		if err != nil {
			return err
		}
		for _, problem := range linter.File(name, data) {
			bad = true
			if _, err := fmt.Fprintln(out.out, problem); err != nil {
				return err
			}
		}
	}
	if bad {
		return &exitError{code: exitFailed}
	}
	return nil
}

// readSource reads a pipeline file, or standard input for a dash.
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
