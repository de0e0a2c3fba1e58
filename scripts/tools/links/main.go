// Command links checks that what the documentation names is there: the targets and headings of relative links, the
// repository's paths, the tests, the parts of scripts/test. It runs at the repository's root; its arguments are the
// tracked files.
//
// It reads Markdown with regular expressions, which is enough for pages that keep to plain links; addresses of other
// sites are not looked at, so it needs no network. It exits with 1 for problems, with 2 where it cannot read.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// made are files that the documentation lets a person make.
var made = []string{"nix/hosts/ci.nix", "nix/hosts/secrets.yaml"}

var (
	// link is a Markdown link's target, without a title. Code blocks (fence) are cut out first.
	link    = regexp.MustCompile(`\]\(\s*([^)\s]+)\s*\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	// named is a path of the repository, in documentation and in comments. It begins with one of the folders at the
	// top.
	named = regexp.MustCompile(`(?:^|[\s"'` + "`" + `(])((?:\./)?(?:bridge|cmd|docs|engine|linter|nix|runtime|scripts)/[\w./-]*\w)`)
	// page is looked for in all files, so that comments and messages, too, name pages that exist.
	page = regexp.MustCompile(`\bdocs/[\w/-]+\.md\b`)
	// test is a test's name, or the beginning of several tests' names.
	test = regexp.MustCompile(`\bTest[A-Z]\w+\b`)
	// part is a call of scripts/test with the words behind it.
	part  = regexp.MustCompile(`scripts/test((?: [a-z0-9]+)+)`)
	fence = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
)

func main() {
	tree, err := load(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "links:", err)
		os.Exit(2)
	}
	problems := tree.check()
	for _, problem := range problems {
		fmt.Println(problem)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
}

// tree is the repository's text by path, as the working tree has it. Everything is read at once: it is a few
// megabytes.
type tree struct {
	text  map[string]string
	tests string // all Go test files
}

// load reads the files. One that is not there is left out, every other fault is an error.
func load(paths []string) (*tree, error) {
	t := &tree{text: map[string]string{}}
	var tests strings.Builder
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) { // tracked, and removed from the working tree
			continue
		}
		if err != nil {
			return nil, err
		}
		t.text[path] = string(data)
		if strings.HasSuffix(path, "_test.go") {
			tests.Write(data)
		}
	}
	t.tests = tests.String()
	return t, nil
}

// check returns the problems of all files in the order of the alphabet, each once.
func (t *tree) check() []string {
	var problems []string
	for path, text := range t.text {
		if filepath.Ext(path) == ".md" {
			problems = append(problems, t.links(path, text)...)
			problems = append(problems, t.names(path, text)...)
		}
		for _, name := range page.FindAllString(text, -1) {
			// This program's own test speaks of pages that are not there.
			if t.text[name] == "" && !strings.HasPrefix(path, "scripts/tools/links/") {
				problems = append(problems, fmt.Sprintf("%s: there is no %s", path, name))
			}
		}
	}
	problems = append(problems, t.unmapped()...)
	slices.Sort(problems)
	return slices.Compact(problems)
}

// links looks for the files and headings that a page's links point to.
func (t *tree) links(path, text string) []string {
	var problems []string
	for _, match := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		target, anchor, _ := strings.Cut(match[1], "#")
		// A scheme: https:, mailto:.
		if strings.Contains(target, ":") {
			continue // another site
		}
		file := path
		if target != "" {
			file = filepath.Join(filepath.Dir(path), target)
		}
		switch {
		case !t.has(file):
			problems = append(problems, fmt.Sprintf("%s: the link to %s leads nowhere", path, match[1]))
		case anchor != "" && !slices.Contains(anchors(t.text[file]), anchor):
			problems = append(problems, fmt.Sprintf("%s: %s has no heading #%s", path, file, anchor))
		}
	}
	return problems
}

// unmapped are the pages that the map of the documentation leaves out. Pages in folders below docs/ are there by their
// folder.
func (t *tree) unmapped() []string {
	var problems []string
	for path := range t.text {
		name, isPage := strings.CutPrefix(path, "docs/")
		if isPage && filepath.Ext(name) == ".md" && !strings.Contains(name, "/") && name != "README.md" &&
			!strings.Contains(t.text["docs/README.md"], "("+name+")") {
			problems = append(problems, "docs/README.md: "+name+" is not in the map")
		}
	}
	return problems
}

// names looks for the paths, tests and parts of scripts/test that a page names. A path may be meant from the root or
// from the page's own directory.
func (t *tree) names(path, text string) []string {
	var problems []string
	for _, match := range named.FindAllStringSubmatch(text, -1) {
		name := strings.TrimPrefix(match[1], "./")
		if !t.has(name) && !t.has(filepath.Join(filepath.Dir(path), name)) && !slices.Contains(made, name) {
			problems = append(problems, fmt.Sprintf("%s: there is no %s", path, name))
		}
	}
	for _, name := range test.FindAllString(text, -1) {
		if !strings.Contains(t.tests, "func "+name) { // or tests whose names begin so
			problems = append(problems, fmt.Sprintf("%s: there is no test %s", path, name))
		}
	}
	for _, match := range part.FindAllStringSubmatch(text, -1) {
		// The first word is always one of the script's; those after it may belong to the sentence.
		word := strings.Fields(match[1])[0]
		if script := t.text["scripts/test"]; !strings.Contains(script, "part_"+word+"()") && !strings.Contains(script, "\t"+word+")") {
			problems = append(problems, fmt.Sprintf("%s: scripts/test has no part %s", path, word))
		}
	}
	return problems
}

// has says whether a file or a directory of that name is there.
func (t *tree) has(name string) bool {
	if _, ok := t.text[name]; ok {
		return true
	}
	for path := range t.text {
		if strings.HasPrefix(path, name+"/") {
			return true
		}
	}
	return false
}

// anchors are the names that a page's headings get on a forge: lower case, a dash for each blank, letters beyond ASCII
// kept, all else dropped. A second heading of one name would get a number there, which is not followed here.
func anchors(text string) []string {
	var names []string
	for _, match := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		names = append(names, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || r > 127:
				return r
			case 'A' <= r && r <= 'Z':
				return r - 'A' + 'a'
			}
			return -1
		}, match[1]))
	}
	return names
}
