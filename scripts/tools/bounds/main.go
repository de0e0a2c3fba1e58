// Command bounds holds Go code to the house's bounds: the length of functions and files, the number of parameters, and
// the things that belong into main or into tests only. Its arguments are Go files.
//
// It parses each file by itself and knows no types, so it takes seconds for the whole repository, and a package that
// is imported under another name escapes it. It exits with 1 for problems, with 2 where it cannot look. scripts/lint
// runs it.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
)

// The bounds. Lines count as an editor counts them, with comments and blank ones: what has to fit is a reader's view.
// Tests may have more parameters: their helpers have few callers.
const (
	maxFunction   = 80
	maxFile       = 500
	maxParameters = 4
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: bounds FILE.go ...")
		os.Exit(2)
	}
	broken := 0
	for _, path := range os.Args[1:] {
		problems, err := check(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, "bounds:", err)
			os.Exit(2)
		}
		for _, problem := range problems {
			fmt.Println(problem)
		}
		broken += len(problems)
	}
	if broken > 0 {
		os.Exit(1)
	}
}

// file is one parsed file and what is wrong with it.
type file struct {
	set      *token.FileSet
	test     bool // a test, or a package that only tests use
	main     bool
	problems []string
}

// check returns a file's problems, each as file:line: message, which editors can jump to. Generated files have none:
// nobody reads them.
func check(path string) ([]string, error) {
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, path, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	if ast.IsGenerated(parsed) {
		return nil, nil
	}
	f := &file{set: set, main: parsed.Name.Name == "main"}
	// Packages such as runtimetest are code of tests that other packages need, too.
	f.test = strings.HasSuffix(path, "_test.go") || strings.HasSuffix(parsed.Name.Name, "test")
	if lines := set.File(parsed.Pos()).LineCount(); lines > maxFile {
		f.problem(parsed.Pos(), "the file has %d lines, at most %d are wanted", lines, maxFile)
	}
	for _, declaration := range parsed.Decls {
		if function, ok := declaration.(*ast.FuncDecl); ok {
			f.function(function)
		}
	}
	if !f.test {
		ast.Inspect(parsed, f.call)
	}
	return f.problems, nil
}

func (f *file) problem(at token.Pos, format string, args ...any) {
	position := f.set.Position(at)
	f.problems = append(f.problems, fmt.Sprintf("%s:%d: ", position.Filename, position.Line)+fmt.Sprintf(format, args...))
}

// function checks one declared function. Function literals belong to the function around them. The receiver is no
// parameter.
func (f *file) function(function *ast.FuncDecl) {
	name := function.Name.Name
	lines := f.set.Position(function.End()).Line - f.set.Position(function.Pos()).Line + 1
	if lines > maxFunction {
		f.problem(function.Pos(), "function %s has %d lines, at most %d are wanted", name, lines, maxFunction)
	}
	// NumFields counts names: (a, b int) is two.
	if parameters := function.Type.Params.NumFields(); parameters > maxParameters && !f.test {
		f.problem(function.Pos(), "function %s has %d parameters, at most %d are wanted", name, parameters, maxParameters)
	}
	// A method may well be called so.
	if name == "init" && function.Recv == nil {
		f.problem(function.Pos(), "function init is not wanted: main wires the parts")
	}
}

// call checks the calls that have their place in main or in tests only: a context of one's own cannot be cancelled, an
// exit skips the teardown, and a sleep waits for nothing that could be waited for. It always returns true, to see
// calls inside of calls.
func (f *file) call(node ast.Node) bool {
	call, ok := node.(*ast.CallExpr)
	if !ok {
		return true
	}
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return true
	}
	receiver, ok := selector.X.(*ast.Ident)
	if !ok {
		return true
	}
	switch name := receiver.Name + "." + selector.Sel.Name; name {
	case "time.Sleep":
		f.problem(call.Pos(), "time.Sleep is for tests: wait with a context")
	case "os.Exit", "context.Background", "log.Fatal", "log.Fatalf":
		if !f.main {
			f.problem(call.Pos(), "%s is for main and tests", name)
		}
	}
	return true
}
