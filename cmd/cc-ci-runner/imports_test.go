package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "git.autonomic.zone/recipe-maintainers/cc-ci/"

// edges are the imports that packages may have of each other; docs/architecture.md draws them. Tests are not counted.
var edges = map[string][]string{
	"cmd/cc-ci-runner":    {"engine", "engine/compiler", "engine/leftover", "engine/process", "engine/resource", "engine/swarm", "engine/swarm/proxy", "linter", "runtime", "runtime/client", "runtime/logs"},
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

// The files are read here, and not by the go command, so that the test's result is not kept when one of them changes.
func TestImportsGoDownOnly(t *testing.T) {
	packages := 0
	for name, imports := range imports(t, "../..") {
		packages++
		allowed, known := edges[name]
		if !known {
			t.Errorf("package %s has no place in the house: add it to docs/architecture.md and here", name)
		}
		for _, imported := range imports {
			if own, ok := strings.CutPrefix(imported, module); ok && !slices.Contains(allowed, own) {
				t.Errorf("%s must not import %s", name, own)
			}
			if pkg, ok := strings.CutPrefix(imported, "github.com/drone/runner-go/"); ok && !slices.Contains(runnerGo, pkg) {
				t.Errorf("%s imports %s, which is not among the packages of runner-go that we use", name, imported)
			}
		}
	}
	if packages < len(edges) {
		t.Errorf("%d packages were found, and %d are named here", packages, len(edges))
	}
}

// imports lists what each package of the module imports. Tests and their helpers are left out.
func imports(t *testing.T, root string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name := filepath.ToSlash(strings.TrimPrefix(path, root+"/"))
		if entry.IsDir() && (strings.HasPrefix(entry.Name(), ".git") || name == "scripts" || strings.HasSuffix(name, "test")) {
			return fs.SkipDir
		}
		if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "test/") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(name))
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			found[pkg] = append(found[pkg], imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
