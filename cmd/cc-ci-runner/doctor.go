package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/process"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/client"
)

// doctorCommand looks whether the daemon would work here. It asks with the daemon's own parts, so that its answers are
// the daemon's, and beside a running one. On the host it makes nothing that stays but missing directories.
type doctorCommand struct {
	Config string `help:"The file with the configuration, as for the daemon." placeholder:"FILE"`
	// Settings is for units: ExecReload= runs the new program with the new configuration before the old one drains.
	Settings bool `help:"Look at the configuration only: the unit asks before a reload."`
}

// check is one question that doctor asks. The error is one sentence that says what is wrong and what to do; an answer
// beside it is not shown.
type check struct {
	name string
	ask  func(ctx context.Context) (answer string, err error)
}

// Run asks each question and exits with 1 when an answer is bad, with 2 for a configuration that cannot be read. It
// asks all: an admin mends everything at once.
func (c *doctorCommand) Run(ctx context.Context, out streams) error {
	config, warnings, err := newEnvironment(c.Config).load()
	if err != nil {
		return &exitError{exitUsage, "the configuration is faulty:\n" + err.Error()}
	}
	bad := false
	for _, check := range append([]check{{"configuration", func(context.Context) (string, error) {
		return fmt.Sprintf("good, %d warnings", len(warnings)), tryStart(config)
	}}}, c.checks(config)...) {
		answer, err := check.ask(ctx)
		mark := "ok  "
		if err != nil {
			mark, answer, bad = "BAD ", err.Error(), true
		}
		if _, err := fmt.Fprintf(out.out, "%s %-14s %s\n", mark, check.name+":", answer); err != nil {
			return err
		}
	}
	for _, warning := range warnings {
		if _, err := fmt.Fprintf(out.out, "note %s\n", warning); err != nil {
			return err
		}
	}
	if bad {
		return &exitError{code: exitFailed}
	}
	return nil
}

// tryStart looks at what is beyond the variables themselves and makes the daemon refuse its configuration all the same.
// After a reload nobody would start it again: the unit takes that exit code for final.
func tryStart(config *Config) error {
	var errs []error
	if err := process.CheckUser(config.User, config.dockerGroups()...); err != nil {
		errs = append(errs, fmt.Errorf("DRONE_RUNNER_USER: %w", err))
	}
	if config.LogFile != "" {
		errs = append(errs, tryLogFile(config.LogFile))
	}
	return errors.Join(errs...)
}

// tryLogFile looks whether the daemon could open its log file, and leaves none: one of another user would be in its way.
func tryLogFile(path string) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		if file, err = os.CreateTemp(filepath.Dir(path), ".doctor-"); err == nil {
			err = os.Remove(file.Name())
		}
	}
	if err != nil {
		return fmt.Errorf("DRONE_LOG_FILE: %w", err)
	}
	return file.Close()
}

// checks are the questions beside the configuration.
func (c *doctorCommand) checks(config *Config) []check {
	if c.Settings {
		return nil
	}
	return []check{
		{"server", func(ctx context.Context) (string, error) { return pingServer(ctx, config) }},
		{"containment", func(ctx context.Context) (string, error) { return describeHost(ctx, config) }},
		{"docker", func(ctx context.Context) (string, error) { return askDocker(ctx, config) }},
		{"git", func(context.Context) (string, error) { return findGit(config) }},
		{"workspaces", func(context.Context) (string, error) { return tryWorkspaces(config) }},
		{"state", func(context.Context) (string, error) { return tryDirectory("DRONE_RUNNER_STATE", config.State, 0o700) }},
	}
}

// pingServer asks the server's /rpc/v2/ping, which takes nothing but the secret. Ten seconds are for a person who
// waits.
func pingServer(ctx context.Context, config *Config) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := client.New(client.Config{
		Proto: config.RPCProto, Host: config.RPCHost, Secret: string(config.RPCSecret), SkipVerify: config.RPCSkipVerify,
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.Ping(ctx, config.Name); err != nil {
		return "", err
	}
	return config.server() + " answers and knows the secret", nil
}

// describeHost says how builds would be contained, a line each. Its name for the probe's cgroups is its own: beside a
// running daemon the daemon's would be in use.
func describeHost(ctx context.Context, config *Config) (string, error) {
	report, err := process.Probe(ctx, process.Config{
		Name: fmt.Sprintf("cc-ci-doctor-%d", os.Getpid()), User: config.User, WithoutGroups: config.dockerGroups(),
		Limits:      process.Limits{Memory: int64(config.Memory), CPUs: config.CPUs, PIDs: config.PIDs},
		ShareMounts: !config.PrivateTmp,
	})
	if err != nil {
		return "", err
	}
	text := ""
	for i, line := range report.Lines() {
		if i > 0 {
			text += "\n                    "
		}
		text += line
	}
	return text, nil
}

// askDocker says what steps get of Docker, and whether it is fit for builds. It asks what the daemon asks before it
// takes builds (swarm.Health).
func askDocker(ctx context.Context, config *Config) (string, error) {
	switch config.Docker {
	case "none":
		return "hidden from steps where builds have mounts of their own (DRONE_RUNNER_DOCKER=none)", nil
	case "", "host":
		return "not tracked: what steps make is not removed (DRONE_RUNNER_DOCKER=proxy changes that)", nil
	}
	docker, err := swarm.Open(ctx, swarm.Config{
		Mode: swarm.ModeProxy, Endpoint: config.DockerEndpoint, Networks: config.DockerNetworks, CertDir: config.SwarmCerts,
	})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := errors.Join(docker.Health(ctx), docker.Close()); err != nil {
		return "", err
	}
	return config.DockerEndpoint + " is fit for builds", nil
}

// findGit looks where the clone step will look: DRONE_RUNNER_PATH, else the PATH of this process, which under a
// service manager is another than an admin's.
func findGit(config *Config) (string, error) {
	path := config.Path
	if path == "" {
		path = os.Getenv("PATH")
	}
	for _, dir := range filepath.SplitList(path) {
		if found, err := exec.LookPath(filepath.Join(dir, "git")); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("git is not in the PATH of steps: install it, or set DRONE_RUNNER_PATH")
}

// tryWorkspaces looks at where builds are to have their directories, with the eyes of who runs their steps.
func tryWorkspaces(config *Config) (string, error) {
	text, err := tryDirectory("DRONE_RUNNER_ROOT", config.Root, 0o755)
	if closed := closedAbove(config); err == nil && closed != "" {
		err = errors.New(closed)
	}
	return text, err
}

// closedAbove says which directory keeps the steps of DRONE_RUNNER_USER from those of their builds; empty if none
// does. Only what nobody but root can enter is sure to: whether a group's or an owner's right lets the user in depends
// on who that is, and a range is many. A directory that is not there yet is made with 0755.
func closedAbove(config *Config) string {
	if config.User == "" {
		return ""
	}
	for dir := filepath.Clean(config.Root); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && info.Mode().Perm()&0o011 == 0 {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid == 0 {
				return fmt.Sprintf("DRONE_RUNNER_ROOT: the steps run as DRONE_RUNNER_USER, who cannot enter %s: chmod o+x it, or choose another place", dir)
			}
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}

// tryDirectory makes the directory if need be, and a file in it.
func tryDirectory(variable, dir string, mode os.FileMode) (string, error) {
	if err := os.MkdirAll(dir, mode); err != nil {
		return "", fmt.Errorf("%s: %w", variable, err)
	}
	file, err := os.CreateTemp(dir, ".doctor-")
	if err != nil {
		return "", fmt.Errorf("%s: %w", variable, err)
	}
	if err := file.Close(); err != nil {
		return "", fmt.Errorf("%s: %w", variable, err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return "", fmt.Errorf("%s: %w", variable, err)
	}
	return dir + " can be written", nil
}
