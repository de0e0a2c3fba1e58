package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
)

// environment is the process's environment as it was at start, and the file of `daemon FILE` that is read below it.
// It is kept so that SIGHUP can read the file again.
type environment struct {
	file  string
	start map[string]string
	added map[string]bool

	// unneeded is a secret that the command does without: who may not read it can use the command all the same.
	unneeded string
}

func newEnvironment(file string) *environment {
	e := &environment{file: file, start: map[string]string{}, added: map[string]bool{}}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		e.start[name] = value
	}
	return e
}

// load lays the environment of the start over the file's variables and reads the configuration.
func (e *environment) load() (*Config, []string, error) {
	vars, err := readEnvFile("the configuration file", e.file)
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for name := range e.added {
		errs = append(errs, os.Unsetenv(name))
	}
	clear(e.added)
	for name := range vars {
		e.added[name] = true
	}
	maps.Copy(vars, e.start)
	if name := e.unneeded; name != "" && vars[name] == "" && vars[name+"_FILE"] == "" {
		vars[name] = "none"
	}
	for name, value := range vars {
		if err := os.Setenv(name, value); err != nil {
			errs = append(errs, fmt.Errorf("set %s: %w", name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	return loadConfig()
}
