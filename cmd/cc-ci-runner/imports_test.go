package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "git.autonomic.zone/recipe-maintainers/cc-ci/"

// edges are the imports that packages may have of each other; docs/architecture.md draws them. Tests are not counted.
var edges = map[string][]string{
	"cmd/cc-ci-runner":    {"engine", "engine/compiler", "engine/leftover", "engine/process", "engine/resource", "engine/swarm", "engine/swarm/proxy", "linter", "runtime", "runtime/client"},
	"cmd/cc-ci-bridge":    {"bridge", "bridge/drone", "bridge/gitea", "bridge/journal", "bridge/safehttp"},
	"runtime":             {"engine", "engine/leftover", "runtime/client", "runtime/logs"},
	"runtime/client":      nil,
	"runtime/logs":        nil,
	"engine":              {"engine/leftover", "engine/process", "engine/swarm"},
	"engine/leftover":     nil,
	"engine/process":      {"engine/leftover"},
	"engine/resource":     nil,
	"engine/compiler":     {"engine", "engine/resource", "linter"},
	"engine/swarm":        {"engine/leftover", "engine/swarm/ledger", "engine/swarm/proxy"},
	"engine/swarm/ledger": {"engine/leftover"},
	"engine/swarm/proxy":  {"engine/leftover", "engine/swarm/ledger"},
	"linter":              {"engine/resource"},
	"bridge":              {"bridge/drone", "bridge/gitea", "bridge/journal", "bridge/safehttp"},
	"bridge/drone":        {"bridge/safehttp"},
	"bridge/gitea":        {"bridge/safehttp"},
	"bridge/journal":      nil,
	"bridge/safehttp":     nil,
}

// runnerGo are the packages of runner-go that are used; it is to stay replaceable.
var runnerGo = []string{"client", "clone", "environ", "environ/provider", "handler/router", "logger/history", "manifest",
	"pipeline", "pipeline/reporter/history", "secret"}

func TestImportsGoDownOnly(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		fields := strings.Fields(line)
		name := strings.TrimPrefix(fields[0], module)
		allowed, known := edges[name]
		if strings.HasSuffix(name, "test") {
			continue // helpers of tests
		}
		if !known {
			t.Errorf("package %s has no place in the house: add it to docs/architecture.md and here", name)
		}
		for _, imported := range fields[1:] {
			if own, ok := strings.CutPrefix(imported, module); ok && !slices.Contains(allowed, own) {
				t.Errorf("%s must not import %s", name, own)
			}
			if pkg, ok := strings.CutPrefix(imported, "github.com/drone/runner-go/"); ok && !slices.Contains(runnerGo, pkg) {
				t.Errorf("%s imports %s, which is not among the packages of runner-go that we use", name, imported)
			}
		}
	}
}
