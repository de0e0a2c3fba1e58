package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
)

// environment is the process's environment as it was at start, and the file of `daemon FILE` that is read below it. It
// is kept because each reading takes the secrets out of the process's environment (see readSecrets), and SIGHUP reads
// again. It is used by one goroutine at a time.
type environment struct {
	file string
	// start is what the process was started with, secrets included. Only newEnvironment writes it.
	start map[string]string
	// added are the names that the last reading took from the file. One that has gone from the file since must not
	// live on in the environment.
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

// load lays the environment of the start over the file's variables and reads the configuration. The result goes
// through the process's own environment, which is where envconfig and the proxy variables' readers look. After an
// error the settings in force are still good: nothing but that environment has changed.
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
	// Any value satisfies the check that a required one is there.
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
