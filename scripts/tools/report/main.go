// Command report reads the output of `go test -json`, shows what failed, and ends with one line of four numbers: tests
// that passed, failed and were skipped, and packages whose result came from Go's cache. Subtests count; so does a
// package that does not build. With -v it also shows each test as it ends, with -logs what tests write, at once.
//
// The numbers go to stdout, for scripts/test to read, all else to stderr. Its exit code says whether it could read,
// not whether tests passed: that is go test's and the second number's to tell.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// event is one line of `go test -json` (go doc test2json). Elapsed is in seconds.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a package that does not build
	Test       string
	Elapsed    float64
	Output     string
}

// report counts, and keeps the output of what may still fail: a test's until it has ended, so that what a package
// holds is what runs now. It is used by one goroutine.
type report struct {
	out                     io.Writer
	verbose, logs           bool
	passed, failed, skipped int
	cached                  int                 // packages
	output                  map[string][]string // by package and test
	failedTests             map[string]int      // by package
}

func main() {
	verbose := flag.Bool("v", false, "show each test as it ends")
	logs := flag.Bool("logs", false, "show what tests write to their logs, at once")
	flag.Parse()
	r := &report{out: os.Stderr, verbose: *verbose, logs: *logs, output: map[string][]string{}, failedTests: map[string]int{}}
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
	fmt.Println(r.passed, r.failed, r.skipped, r.cached)
}

// read goes through all events. A line that is no event is shown as it is: the go command writes some of its errors as
// text. Lines have no limit of length, as a test's output has none.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				if _, err := r.out.Write(line); err != nil {
					return err
				}
			} else if err := r.event(e); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// event takes one event. The errors are those of writing.
func (r *report) event(e event) error {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		// The only place where go test tells that a result is an old one.
		if e.Test == "" && strings.HasPrefix(e.Output, "ok ") && strings.Contains(e.Output, "(cached)") {
			r.cached++
		}
		r.output[key] = append(r.output[key], e.Output)
		if r.logs && strings.HasPrefix(e.Output, "    ") { // a line of a test's log
			_, err := io.WriteString(r.out, e.Output)
			return err
		}
		return nil
	// What the compiler says. The package gets an event fail of its own.
	case "build-output":
		_, err := io.WriteString(r.out, e.Output)
		return err
	case "pass":
		if e.Test != "" {
			r.passed++
		}
	case "skip":
		if e.Test != "" {
			r.skipped++
		}
	case "fail":
		return r.fail(e)
	default:
		return nil
	}
	// It has passed or was skipped: nobody asks for its output any more.
	delete(r.output, key)
	if r.verbose && e.Test != "" {
		_, err := fmt.Fprintf(r.out, "  %s %s %s (%.1f s)\n", e.Action, path.Base(e.Package), e.Test, e.Elapsed)
		return err
	}
	return nil
}

// fail counts a failure and shows its output. A package that fails because of its tests is not counted again, one that
// fails by itself (it does not build, it panicked, it ran out of time) is. A test that fails because of a subtest
// counts, as go test counts it.
func (r *report) fail(e event) error {
	key := e.Package + " " + e.Test
	if e.Test != "" {
		r.failedTests[e.Package]++
		r.failed++
	} else if r.failedTests[e.Package] == 0 {
		r.failed++
	}
	// In one write, since other parts may be showing theirs.
	_, err := io.WriteString(r.out, "FAIL "+key+"\n"+strings.Join(r.output[key], ""))
	delete(r.output, key)
	return err
}
