// Command report reads the output of `go test -json`, shows what failed, and ends with one line of four numbers: tests
// that passed, failed and were skipped, and packages whose result came from Go's cache. Subtests count; so does a
// package that does not build. With -v it also shows each test as it ends, with -logs what tests write, at once.
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

// event is one line of `go test -json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a package that does not build
	Test       string
	Elapsed    float64
	Output     string
}

// report counts, and keeps the output of what may still fail.
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

// read goes through all events. A line that is no event is shown as it is.
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

func (r *report) event(e event) error {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		if e.Test == "" && strings.HasPrefix(e.Output, "ok ") && strings.Contains(e.Output, "(cached)") {
			r.cached++
		}
		r.output[key] = append(r.output[key], e.Output)
		if r.logs && strings.HasPrefix(e.Output, "    ") { // a line of a test's log
			_, err := io.WriteString(r.out, e.Output)
			return err
		}
		return nil
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
	delete(r.output, key)
	if r.verbose && e.Test != "" {
		_, err := fmt.Fprintf(r.out, "  %s %s %s (%.1f s)\n", e.Action, path.Base(e.Package), e.Test, e.Elapsed)
		return err
	}
	return nil
}

// fail counts a failure and shows its output. A package that fails because of its tests is not counted again, one
// that fails by itself (it does not build, it panicked, it ran out of time) is.
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
