package compiler

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
	"git.autonomic.zone/recipe-maintainers/cc-ci/linter"
)

// compilation is the Spec of one stage while it is being made.
type compilation struct {
	in       Input
	manifest *resource.Manifest
	pipeline *resource.Pipeline
	spec     *engine.Spec

	// own is the environment of every step without the build's parameters, all the same with them. The clone gets own.
	own map[string]string
	all map[string]string
}

// Compile makes the Spec from a pipeline that the linter has let through. What the linter refuses it need not survive: it
// counts on names that are there and differ, and on dependencies without a circle. Callers want Prepare.
func Compile(ctx context.Context, in Input, m *resource.Manifest, p *resource.Pipeline) (*engine.Spec, error) {
	in = in.withDefaults()
	if in.Options.NoClone {
		without := *p
		without.Clone.Disable = true
		p = &without
	}
	c := &compilation{in: in, manifest: m, pipeline: p}
	if err := c.layout(); err != nil {
		return nil, err
	}
	c.environments()
	if err := c.credentials(); err != nil {
		return nil, err
	}
	if err := c.addClone(); err != nil {
		return nil, err
	}
	kept := c.addSteps()
	c.order(kept)
	if err := c.addSecrets(ctx, kept); err != nil {
		return nil, err
	}
	return c.spec, nil
}

// layout names the build and its directories. They are the old runner's, below another root, so that scripts with a
// path such as $HOME/../../drone/src still work.
func (c *compilation) layout() error {
	in := c.in
	if !filepath.IsAbs(in.Root) {
		return fmt.Errorf("the build's directory %q is not an absolute path", in.Root)
	}
	dir, err := resource.WorkspaceDir(c.pipeline.Workspace.Value)
	if err != nil {
		return fmt.Errorf("workspace.path %q %w", c.pipeline.Workspace.Value, err)
	}
	c.spec = &engine.Spec{
		Build: in.Name,
		Labels: map[string]string{
			"repo":   in.Repo.Slug,
			"number": strconv.FormatInt(in.Build.Number, 10),
			"stage":  c.pipeline.StageName(),
		},
		Repo:      in.Repo.Slug,
		Root:      filepath.Clean(in.Root),
		Home:      filepath.Join(in.Root, resource.HomeDir),
		Workspace: filepath.Join(in.Root, dir),
		Scripts:   filepath.Join(in.Root, resource.ScriptsDir),
		Tmp:       filepath.Join(in.Root, resource.TmpDir),
		Links:     map[string]string{},
	}
	for source, target := range in.Options.Symlinks {
		link := filepath.Join(c.spec.Root, target)
		if !strings.HasPrefix(link, c.spec.Root+"/") {
			return fmt.Errorf("symlink %s:%s: the target leaves the build's directory", source, target)
		}
		c.spec.Links[link] = source
	}
	return nil
}

// addClone adds the automatic clone as the first step. It runs in every state of the stage, as it always did. Its name,
// `clone`, is the linter's to keep from other steps; depends_on may name it.
func (c *compilation) addClone() error {
	if c.pipeline.Clone.Disable {
		return nil
	}
	commands, notes, err := cloneCommands(cloneArgs{
		Remote:  remote(c.in.Repo),
		Ref:     c.in.Build.Ref,
		Branch:  c.in.Build.Target,
		Commit:  c.in.Build.After,
		Depth:   c.pipeline.Clone.Depth.Value,
		Retries: c.pipeline.Clone.Retries.Value,
		Tags:    c.pipeline.Clone.Tags,
	})
	if err != nil {
		return err
	}
	step := &engine.Step{
		Name:     linter.CloneStep,
		Run:      engine.RunAlways,
		Commands: commands,
		Dir:      c.spec.Workspace,
		Env:      c.own,
		Notes:    notes,
	}
	c.spec.Steps = append(c.spec.Steps, step)
	c.giveNetrc(step)
	return nil
}

// keptStep is a step that the build's conditions let through, in the file and in the Spec.
type keptStep struct {
	source *resource.Step
	step   *engine.Step
}

// addSteps adds the pipeline's steps that the build matches.
func (c *compilation) addSteps() []keptStep {
	match := resource.Match{
		Action:   c.in.Build.Action,
		Branch:   c.in.Build.Target, // of a pull request the branch that it goes into
		Cron:     c.in.Build.Cron,
		Event:    c.in.Build.Event,
		Instance: c.in.System.Host,
		Ref:      c.in.Build.Ref,
		Repo:     c.in.Repo.Slug,
		Target:   c.in.Build.Deploy,
	}
	var kept []keptStep
	for i, source := range c.pipeline.Steps {
		if !source.When.Match(match) {
			continue
		}
		step := &engine.Step{
			Name:          source.Name.Value,
			Detach:        source.Detach,
			IgnoreFailure: strings.EqualFold(source.Failure.Value, "ignore"),
			Run:           runPolicy(source),
			Dir:           c.spec.Workspace,
			Env:           stepEnvironment(c.all, source),
		}
		if len(source.Commands) > 0 {
			// The script belongs to the step, and is written when it starts: no step can rewrite a later one's. A step
			// without commands has none, and passes.
			path := filepath.Join(c.spec.Scripts, scriptName(i, source.Name.Value))
			step.Files = []*engine.File{{Path: path, Mode: 0o700, Data: script(source.Commands)}}
			step.Commands = []engine.Command{{Args: shellArgs(source.Shell.Value, path)}}
		}
		c.spec.Steps = append(c.spec.Steps, step)
		kept = append(kept, keptStep{source, step})
	}
	return kept
}

// runPolicy reads `when.status`: both states, or only failure; everything else is success. It stands among the conditions
// but is none of the build's: which state the stage is in is known when the step is due.
func runPolicy(s *resource.Step) engine.RunPolicy {
	status := &s.When.Status
	switch {
	case status.Empty() || !status.Match("failure"):
		return engine.RunOnSuccess
	case status.Match("success"):
		return engine.RunAlways
	}
	return engine.RunOnFailure
}
