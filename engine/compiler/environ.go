package compiler

import (
	"maps"
	"os"
	"strings"

	"github.com/drone/runner-go/clone"
	"github.com/drone/runner-go/environ"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
)

// environments makes the variables that all steps share, later ones over earlier ones: the host's PATH and USER, the
// runner's, the build's parameters, proxies, system, repository, build, stage, link, git, directories. At a step's
// start the runtime sets the build's, the stage's and the step's again, and the secrets last.
//
// The clone has the same ones without the parameters: whoever may start a build may not say how git works. Parameters come
// before everything that the server says about the build, so that in a step none passes for DRONE_REPO.
func (c *compilation) environments() {
	parameters, warnings := legalParameters(c.in.Build.Params)
	c.spec.Warnings = append(c.spec.Warnings, warnings...)
	// The library's functions are the reference for names and values; only its Proxy and Expand, which read this
	// process's environment, are not used.
	below := environ.Combine(hostVariables(c.in.Options), c.in.Options.Environ)
	if c.in.Options.Path != "" {
		below["PATH"] = c.in.Options.Path
	}
	above := environ.Combine(
		c.in.Options.Proxy,
		environ.System(c.in.System),
		environ.Repo(c.in.Repo),
		environ.Build(c.in.Build),
		environ.Stage(c.in.Stage),
		environ.Link(c.in.Repo, c.in.Build, c.in.System),
		clone.Environ(clone.Config{
			SkipVerify: c.pipeline.Clone.SkipVerify,
			Trace:      c.pipeline.Clone.Trace,
			User:       clone.User{Name: c.in.Build.AuthorName, Email: c.in.Build.AuthorEmail},
		}),
		map[string]string{
			"HOME":                c.spec.Home,
			"HOMEPATH":            c.spec.Home,
			"USERPROFILE":         c.spec.Home,
			"DRONE_HOME":          c.spec.Workspace,
			"DRONE_WORKSPACE":     c.spec.Workspace,
			"GIT_TERMINAL_PROMPT": "0",
		},
	)
	// The library points cards at standard output, where they could not be told from a log.
	delete(above, "DRONE_CARD_PATH")
	c.own = withoutZeroBytes(environ.Combine(below, above))
	c.all = withoutZeroBytes(environ.Combine(below, parameters, above))
}

// withoutZeroBytes drops what no process can be given: with a zero byte in a pull request's title no step would start.
func withoutZeroBytes(env map[string]string) map[string]string {
	for name, value := range env {
		env[name] = strings.ReplaceAll(value, "\x00", "")
	}
	return env
}

// hostVariables are the only two that a build sees of the runner's own environment, where its secrets are. With the rest a
// step would hold the RPC secret, and by it every repository's secrets.
func hostVariables(o Options) map[string]string {
	env := map[string]string{}
	for _, name := range []string{"PATH", "USER"} {
		if value, found := o.Host[name]; found {
			env[name] = value
		}
	}
	return env
}

// stepEnvironment sets the step's own literal variables over the shared ones. $NAME in its PATH stands for the step's
// own variables, and $PATH for the PATH it would otherwise have: the runner's environment is out of reach.
func stepEnvironment(shared map[string]string, s *resource.Step) map[string]string {
	// Each step has a map of its own, for the variables of one are none of another's.
	env := maps.Clone(shared)
	for _, v := range s.Environment {
		if v.Secret.Value == "" {
			env[v.Name.Value] = v.Value
		}
	}
	if path := env["PATH"]; path != shared["PATH"] {
		env["PATH"] = os.Expand(path, func(name string) string {
			if name == "PATH" {
				return shared["PATH"]
			}
			return env[name]
		})
	}
	return env
}
