package linter

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// files are the YAML files of a directory of testdata.
func files(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join("testdata", dir, "*.yml"))
	if err != nil || len(list) == 0 {
		t.Fatalf("%s: %d files, %v", dir, len(list), err)
	}
	return list
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestGoodFiles(t *testing.T) {
	for _, path := range files(t, "ok") {
		if problems := File(filepath.Base(path), read(t, path)); len(problems) > 0 {
			t.Errorf("%s:\n%s", path, problems.Error())
		}
	}
}

// The problems of each bad file are in the file beside it. CC_CI_UPDATE=1 writes them anew.
func TestBadFiles(t *testing.T) {
	for _, path := range files(t, "err") {
		golden := strings.TrimSuffix(path, ".yml") + ".out"
		got := File(filepath.Base(path), read(t, path)).Error() + "\n"
		if os.Getenv("CC_CI_UPDATE") == "1" {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want := string(read(t, golden)); got != want {
			t.Errorf("%s:\ngot\n%swant\n%s", path, got, want)
		}
	}
}

func TestExamplesOfTheDocs(t *testing.T) {
	list, err := filepath.Glob("../docs/examples/*.yml")
	if err != nil || len(list) < 3 {
		t.Fatalf("%d files, %v", len(list), err)
	}
	for _, path := range list {
		if problems := File(filepath.Base(path), read(t, path)); len(problems) > 0 {
			t.Error(problems.Error())
		}
	}
}
