package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestCheck writes a small repository in which each kind of name is there once and missing once.
func TestCheck(t *testing.T) {
	t.Chdir(t.TempDir())
	files := map[string]string{
		"README.md": "# A house\n[good](docs/one.md) [heading](docs/one.md#the-first-step) [dir](docs/more) [site](https://example.org)\n" +
			"[gone](docs/two.md) [no heading](docs/one.md#last)\n```\n[not a](link)\n```\n",
		"docs/one.md": "# One\n\n## The first `step`\n\n[self](#one), [up](../README.md), `TestThere`, `TestGone`,\n" +
			"`scripts/test nix`, `scripts/test nine`, `scripts/demo`, `scripts/gone.sh`, `nix/hosts/ci.nix`\n\n    scripts/test full\n    scripts/away\n",
		"docs/README.md":  "[one](one.md)\n",
		"docs/four.md":    "# Four\n",
		"docs/more/a.txt": "see docs/one.md and docs/three.md\n",
		"scripts/test":    "part_nix() {\n\tfull)\n",
		"scripts/demo":    "",
		"a_test.go":       "func TestThere(t *testing.T) {\n",
	}
	var paths []string
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	tree, err := load(append(paths, "removed.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"README.md: docs/one.md has no heading #last",
		"README.md: the link to docs/two.md leads nowhere",
		"README.md: there is no docs/two.md",
		"docs/README.md: four.md is not in the map",
		"docs/more/a.txt: there is no docs/three.md",
		"docs/one.md: scripts/test has no part nine",
		"docs/one.md: there is no scripts/away",
		"docs/one.md: there is no scripts/gone.sh",
		"docs/one.md: there is no test TestGone",
	}
	if got := tree.check(); !slices.Equal(got, want) {
		t.Errorf("problems:\n%q\nwant:\n%q", got, want)
	}
}
