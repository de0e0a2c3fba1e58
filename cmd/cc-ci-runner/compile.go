package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/drone/drone-go/drone"
	"github.com/drone/runner-go/environ"
	"github.com/drone/runner-go/secret"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/compiler"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
)

// source is the pipeline and the build that exec and compile share. drone-runner-exec took ROOT SOURCE, in which the
// file cannot be given without a root; one argument is the file here.
type source struct {
	stageFlags
	Args []string `arg:"" optional:"" name:"source" help:"The pipeline file (.drone.yml); - is standard input. drone-runner-exec's form ROOT SOURCE is understood too."`
}

// compileCommand prints a Spec.
type compileCommand struct {
	source
}

// Run prints what exec would run. Secrets are left out of a Spec's JSON. Nothing is run, and nothing on the host
// changes.
func (c *compileCommand) Run(ctx context.Context, out streams) error {
	p, stage, err := c.stage()
	if err != nil {
		return err
	}
	// Values are not printed, so a secret that nobody gave is no reason to print nothing.
	p.secrets = anySecret{}
	spec, err := p.prepare(ctx, stage)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(out.out)
	encoder.SetIndent("", "  ")
	// Shell scripts hold < and &, and a person reads this.
	encoder.SetEscapeHTML(false)
	return encoder.Encode(spec)
}

// anySecret finds every secret. Its value is not printed, but must not be empty: an empty secret counts as missing.
type anySecret struct{}

func (anySecret) Find(_ context.Context, in *secret.Request) (*drone.Secret, error) {
	return &drone.Secret{Name: in.Name, Data: "not given"}, nil
}

// places are the pipeline file and where the build's directory is made: by default .drone.yml here, and the directory
// for temporary files, as DRONE_RUNNER_ROOT's default.
func (c *source) places() (file, root string, err error) {
	file, root = ".drone.yml", c.Root
	switch len(c.Args) {
	case 0:
	case 1:
		file = c.Args[0]
	case 2:
		root, file = c.Args[0], c.Args[1]
	default:
		return "", "", &exitError{exitUsage, "name one pipeline file"}
	}
	if root == "" {
		root = os.TempDir()
	}
	return file, root, nil
}

// preparer is what turns the build into a Spec, as the daemon does it. There is no plugin, no symbolic link and no
// strictness: these are the daemon's settings, and a pipeline is tried without its configuration.
func (c *source) preparer(root string) (*preparer, error) {
	vars, err := readEnvFile("--env-file", c.EnvFile)
	if err != nil {
		return nil, err
	}
	name, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("find this host's name: %w", err)
	}
	return &preparer{
		// Two runs of exec on one host must not share a name: the server is a part of it, and the stage's number is
		// 1 unless a flag says otherwise.
		server: fmt.Sprintf("exec:%d:%d", os.Getpid(), time.Now().UnixNano()), root: root, machine: name,
		options: compiler.Options{
			Host: hostVariables(), Environ: vars, Proxy: environ.Proxy(), NoClone: c.RepoHTTP == "" && c.RepoSSH == "",
		},
	}, nil
}

// pickOnly takes the file's only pipeline when the flags name none. A server knows which stage it means; a person who
// tries a file should not have to say. An explicit --stage-name=default looks like none.
func (c *source) pickOnly(d *details, data []byte) {
	if c.Pipeline != "" || c.StageName != "default" {
		return
	}
	m, err := resource.Parse(bytes.Clone(data))
	if err != nil {
		return // prepare says what is wrong with the file
	}
	if len(m.Pipelines) == 1 {
		d.stage.Name = m.Pipelines[0].StageName()
	}
}
