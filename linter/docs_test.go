package linter_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/drone/drone-go/drone"
	"github.com/drone/runner-go/secret"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/compiler"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
	"git.autonomic.zone/recipe-maintainers/cc-ci/linter"
)

// documented is one rule's section in docs/linter.md.
type documented struct {
	name, severity string
	bad, good      string
}

// sections reads the page.
func sections(t *testing.T) []documented {
	t.Helper()
	data, err := os.ReadFile("../docs/linter.md")
	if err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile("(?s)^(\\S+)\n\n\\*(\\w+)\\*: .*?\n\nBad:\n\n```yaml\n(.*?)```\n\nGood:\n\n```yaml\n(.*?)```\n")
	var list []documented
	for _, text := range strings.Split(string(data), "\n### ")[1:] {
		found := form.FindStringSubmatch(text)
		if found == nil {
			t.Fatalf("the section %.40q has not the usual form", text)
		}
		list = append(list, documented{found[1], found[2], found[3], found[4]})
	}
	return list
}

func TestEveryRuleIsDocumented(t *testing.T) {
	var names []string
	for _, s := range sections(t) {
		names = append(names, s.name)
	}
	slices.Sort(names)
	if want := linter.Names(); !slices.Equal(names, want) {
		t.Errorf("documented %q\nrules      %q", names, want)
	}
}

// written is an example as the page means it: its three dots stand for very much text.
func written(rule, text string) []byte {
	switch rule {
	case "line-length":
		text = strings.Replace(text, "...", strings.Repeat("x", resource.MaxLine), 1)
	case "steps":
		var more strings.Builder
		for i := range linter.MaxSteps {
			fmt.Fprintf(&more, "- {name: more-%d}\n", i)
		}
		text = strings.Replace(text, "# ...\n", more.String(), 1)
	case "size":
		text = strings.Replace(text, "...", strings.Repeat("x\n# ", resource.MaxSize/4+1), 1)
	}
	return []byte(text)
}

// problems are what `lint` says, and what a build says for the rules that only a build can break.
func problems(t *testing.T, rule, text string) linter.Problems {
	t.Helper()
	found := linter.File(".drone.yml", written(rule, text))
	if len(found) > 0 || !slices.Contains([]string{"pipeline", "secret", "substitution"}, rule) {
		return found
	}
	_, err := compiler.Prepare(t.Context(), compiler.Input{
		Config:  []byte(text),
		Build:   &drone.Build{Ref: "refs/heads/main", Target: "main"},
		Repo:    &drone.Repo{HTTPURL: "https://git.example.com/octo/hello.git"},
		Secrets: secret.StaticVars(map[string]string{"token": "x"}),
		Root:    "/build",
		Options: compiler.Options{Strict: true},
	})
	if found, ok := errors.AsType[linter.Problems](err); ok {
		return found
	}
	if err != nil {
		t.Errorf("%s: %s", rule, err)
	}
	return nil
}

func TestExamplesBehaveAsDocumented(t *testing.T) {
	for _, s := range sections(t) {
		t.Run(s.name, func(t *testing.T) {
			bad := problems(t, s.name, s.bad)
			if len(bad) != 1 || bad[0].Rule != s.name || string(bad[0].Severity) != s.severity {
				t.Errorf("the bad example, a documented %s:\n%s (%v)", s.severity, bad.Error(), bad)
			}
			if good := problems(t, s.name, s.good); len(good) > 0 {
				t.Errorf("the good example:\n%s", good.Error())
			}
		})
	}
}
