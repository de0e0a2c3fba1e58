package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/drone/runner-go/client"
	"github.com/drone/runner-go/environ"
	"github.com/drone/runner-go/environ/provider"
	"github.com/drone/runner-go/secret"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/compiler"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/logs"
)

// preparer turns what a server (or the flags of exec) says of a stage into its Spec. It may be used by several stages
// at once: nothing changes it after newPreparer.
type preparer struct {
	// server and root are where builds' names derive from and where their directories lie.
	server string
	root   string

	// machine is the runner's name, for DRONE_STAGE_MACHINE.
	machine string

	// options are the same for all builds; addVariables changes a copy.
	options compiler.Options

	// secrets and variables are the external plugins; nil means none.
	secrets   secret.Provider
	variables provider.Provider
}

// newPreparer hands on the settings that decide what steps see. It reads PATH, USER and the proxies of this process
// now: a reload does not change them.
func newPreparer(config *Config) *preparer {
	p := &preparer{
		server:  config.server(),
		root:    config.Root,
		machine: config.Name,
		options: compiler.Options{
			Host:          hostVariables(),
			Environ:       config.Environ,
			Proxy:         environ.Proxy(),
			Path:          config.Path,
			Symlinks:      config.Symlinks,
			NetrcAllSteps: !config.NetrcCloneOnly,
			Strict:        config.Lint == "strict",
		},
	}
	if config.SecretEndpoint != "" {
		p.secrets = compiler.External(config.SecretEndpoint, string(config.SecretToken), config.SecretSkipVerify)
	}
	if config.EnvEndpoint != "" {
		p.variables = provider.External(config.EnvEndpoint, string(config.EnvToken), config.EnvSkipVerify)
	}
	return p
}

// hostVariables are the two variables of the runner's own environment that steps get, as with drone-runner-exec. All
// others stay with the runner: its secrets came in the same way.
func hostVariables() map[string]string {
	vars := map[string]string{}
	for _, name := range []string{"PATH", "USER"} {
		if value, ok := os.LookupEnv(name); ok {
			vars[name] = value
		}
	}
	return vars
}

// prepare satisfies runtime's Prepare. It may ask the plugins, and changes nothing on the host. Its error is the
// stage's, for people to read; it names no secret's value.
func (p *preparer) prepare(ctx context.Context, d *client.Context) (*engine.Spec, error) {
	options := p.options
	masked, err := p.addVariables(ctx, d, &options)
	if err != nil {
		return nil, err
	}
	name := engine.BuildName(p.server, d.Stage.ID)
	root, err := filepath.Abs(filepath.Join(p.root, name))
	if err != nil {
		return nil, fmt.Errorf("find the build's directory: %w", err)
	}
	// A copy, since the stage is the runner's. The name is for DRONE_STAGE_MACHINE, which builds of exec have, too.
	stage := *d.Stage
	stage.Machine = p.machine
	spec, err := compiler.Prepare(ctx, compiler.Input{
		File: d.Repo.Config, Config: d.Config.Data,
		Build: d.Build, Repo: d.Repo, Stage: &stage, System: d.System, Netrc: d.Netrc,
		Secrets: compiler.Secrets(d.Secrets, p.secrets),
		Name:    name, Root: root, Options: options,
	})
	if err != nil {
		return nil, withoutValues(err, masked)
	}
	spec.Mask = append(spec.Mask, masked...)
	return spec, nil
}

// withoutValues is an error that shows none of the values. What is wrong with a file is said with words of the file, in
// which ${NAME} has been replaced by then.
func withoutValues(err error, values []string) error {
	text := logs.NewMasker(values).Mask(err.Error())
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}

// addVariables asks the environment plugin for variables and returns the values that logs must not show. They win over
// DRONE_RUNNER_ENVIRON. A plugin that does not answer fails the stage: the steps would run without what an admin wants
// them to have.
func (p *preparer) addVariables(ctx context.Context, d *client.Context, options *compiler.Options) ([]string, error) {
	if p.variables == nil {
		return nil, nil
	}
	list, err := p.variables.List(ctx, &provider.Request{Build: d.Build, Repo: d.Repo})
	if err != nil {
		return nil, fmt.Errorf("ask the environment plugin (DRONE_ENV_PLUGIN_ENDPOINT): %w", err)
	}
	var masked []string
	merged := maps.Clone(options.Environ)
	if merged == nil {
		merged = map[string]string{}
	}
	for _, variable := range list {
		merged[variable.Name] = variable.Data
		if variable.Mask {
			masked = append(masked, variable.Data)
		}
	}
	options.Environ = merged
	return masked, nil
}

// local is the stage that the flags describe, in the form in which a server would send it, so that exec and compile go
// through prepare like any other.
func (f *stageFlags) local(d details, config []byte, file string) (*client.Context, error) {
	secrets, err := f.secrets()
	if err != nil {
		return nil, err
	}
	d.repo.Config = file
	return &client.Context{
		Build: d.build, Stage: d.stage, Repo: d.repo, System: d.system, Netrc: d.netrc,
		Config: &client.File{Data: config}, Secrets: secrets,
	}, nil
}
