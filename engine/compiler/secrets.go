package compiler

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"github.com/drone/drone-go/drone"
	"github.com/drone/runner-go/manifest"
	"github.com/drone/runner-go/secret"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
	"git.autonomic.zone/recipe-maintainers/cc-ci/linter"
)

// addSecrets finds the secrets of the steps that will run. One that is missing is an error, with its line; on a pull
// request, from which secrets are withheld, it is empty and the step's log says so. (On the old runner a missing secret
// was always empty, and a misspelt one was found by whatever went wrong later.)
func (c *compilation) addSecrets(ctx context.Context, kept []keptStep) error {
	finder := c.finder()
	var problems linter.Problems
	for _, k := range kept {
		for _, v := range k.source.Environment {
			if v.Secret.Value == "" {
				continue
			}
			value, reason := finder.find(ctx, v.Secret.Value)
			if reason != "" && c.in.Build.Event != drone.EventPullRequest {
				problems = append(problems, c.secretProblem(k.source, v, reason))
				continue
			}
			if reason != "" {
				k.step.Notes = append(k.step.Notes, fmt.Sprintf("%q is empty: secret %q %s (this is a pull request)",
					v.Name.Value, v.Secret.Value, reason))
			}
			k.step.Secrets = append(k.step.Secrets, engine.Secret{Env: v.Name.Value, Name: v.Secret.Value, Value: value})
		}
	}
	return problems.Err()
}

// secretProblem points at the `from_secret`, in the form of the linter's problems.
func (c *compilation) secretProblem(s *resource.Step, v resource.Variable, reason string) linter.Problem {
	return linter.Problem{
		File: c.in.File, Line: v.Secret.Pos.Line, Column: v.Secret.Pos.Column,
		Message: fmt.Sprintf("step `%s` needs the secret `%s` for %s, which %s", s.Name.Value, v.Secret.Value, v.Name.Value, reason),
		Rule:    "secret", Severity: linter.Error,
	}
}

// finder asks the provider once for each name: an external one may be slow, and may count.
type finder struct {
	provider secret.Provider
	request  secret.Request
	found    map[string]answer
}

// answer is a secret's value, or the reason why there is none.
type answer struct {
	value, reason string
}

func (c *compilation) finder() *finder {
	// runner-go's providers look inline and external secrets up in its own form of the file.
	conf := new(manifest.Manifest)
	for _, s := range c.manifest.Secrets {
		conf.Resources = append(conf.Resources, &manifest.Secret{
			Kind: manifest.KindSecret, Name: s.Name.Value, Data: s.Data,
			Get: manifest.SecretGet{Path: s.GetPath, Name: s.GetName},
		})
	}
	return &finder{
		provider: c.in.Secrets,
		request:  secret.Request{Repo: c.in.Repo, Build: c.in.Build, Conf: conf},
		found:    map[string]answer{},
	}
}

func (f *finder) find(ctx context.Context, name string) (value, reason string) {
	if known, asked := f.found[name]; asked {
		return known.value, known.reason
	}
	a := f.ask(ctx, name)
	f.found[name] = a
	return a.value, a.reason
}

// ask turns the three ways in which a provider says no into a reason. The reason goes into logs: providers put no
// values into their errors.
func (f *finder) ask(ctx context.Context, name string) answer {
	if f.provider == nil {
		return answer{reason: "does not exist"}
	}
	request := f.request
	request.Name = name
	found, err := f.provider.Find(ctx, &request)
	switch {
	case err != nil:
		return answer{reason: "cannot be had: " + short(err)}
	case found == nil:
		return answer{reason: "does not exist, or is withheld from this build"}
	}
	return answer{value: found.Data}
}

// maxReason is how much of a provider's error is shown: drone-go makes an error of the whole answer of a server.
const maxReason = 200

// short is an error as a part of one line.
func short(err error) string {
	text := []rune(strings.Join(strings.FieldsFunc(err.Error(), unicode.IsControl), " "))
	if len(text) > maxReason {
		return string(text[:maxReason]) + "…"
	}
	return string(text)
}
