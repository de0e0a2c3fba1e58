package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const input = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"quiet\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"output","Package":"p","Test":"TestB","Output":"a.go:1: loud\n"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"fail","Package":"p"}
{"ImportPath":"q","Action":"build-output","Output":"q.go:1: syntax error\n"}
{"ImportPath":"q","Action":"build-fail"}
{"Action":"output","Package":"q","Output":"FAIL q [build failed]\n"}
{"Action":"fail","Package":"q"}
{"Action":"output","Package":"r","Output":"ok  \tr\t(cached)\n"}
{"Action":"pass","Package":"r"}
not an event
`
	var out strings.Builder
	r := &report{out: &out, output: map[string][]string{}, failedTests: map[string]int{}}
	if err := r.read(strings.NewReader(input)); err != nil {
		t.Fatal(err)
	}
	if r.passed != 1 || r.failed != 2 || r.skipped != 1 || r.cached != 1 {
		t.Errorf("%d passed, %d failed, %d skipped, %d cached, want 1, 2, 1, 1", r.passed, r.failed, r.skipped, r.cached)
	}
	for _, want := range []string{"a.go:1: loud", "q.go:1: syntax error", "not an event"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not shown in %q", want, out.String())
		}
	}
	if strings.Contains(out.String(), "quiet") {
		t.Errorf("the output of a passed test is shown: %q", out.String())
	}
}

func TestLogsOfPassedTests(t *testing.T) {
	const input = `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: 100 cycles\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
`
	var out strings.Builder
	r := &report{out: &out, logs: true, output: map[string][]string{}, failedTests: map[string]int{}}
	if err := r.read(strings.NewReader(input)); err != nil || out.String() != "    a_test.go:1: 100 cycles\n" {
		t.Errorf("shown: %q, %v", out.String(), err)
	}
}
