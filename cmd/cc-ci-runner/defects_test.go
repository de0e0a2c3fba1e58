package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// repository is where this package's directory lies below.
const repository = "../.."

var (
	defectRow = regexp.MustCompile(`(?m)^\| (R?\d+) \|.*\| (.*) \|$`)
	inPackage = regexp.MustCompile("^`([a-z0-9/-]+)` (Test.*)$")
)

// Each known defect has a test, and each test that docs/defects.md names exists.
func TestDefectsHaveTests(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(repository, "docs/defects.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{}
	for _, row := range defectRow.FindAllStringSubmatch(string(page), -1) {
		tests[row[1]] = row[2]
	}
	for _, list := range []struct {
		prefix string
		count  int
	}{{"", 32}, {"R", 13}} {
		for n := range list.count {
			if number := fmt.Sprint(list.prefix, n+1); tests[number] == "" {
				t.Errorf("defect %s has no test", number)
			}
		}
	}
	for number, cell := range tests {
		for _, group := range strings.Split(cell, "; ") {
			parts := inPackage.FindStringSubmatch(group)
			if parts == nil {
				t.Errorf("defect %s: %q names no package and test", number, group)
				continue
			}
			source := testsOf(t, parts[1])
			for _, name := range strings.Split(parts[2], ", ") {
				name, sub, _ := strings.Cut(name, "/")
				if !strings.Contains(source, "func "+name+"(t *testing.T)") || !strings.Contains(source, `"`+sub) {
					t.Errorf("defect %s: %s has no %s %s", number, parts[1], name, sub)
				}
			}
		}
	}
}

// testsOf is the text of all test files of a package.
func testsOf(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(repository, dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
