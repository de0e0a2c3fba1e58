package linter

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
)

// found lints a pipeline whose first three lines are given, and writes each problem as `line:column rule`.
func found(t *testing.T, rest string) string {
	t.Helper()
	var list []string
	for _, p := range File("x.yml", []byte("kind: pipeline\ntype: exec\n"+rest)) {
		list = append(list, fmt.Sprintf("%d:%d %s", p.Line, p.Column, p.Rule))
	}
	return strings.Join(list, ", ")
}

func TestRules(t *testing.T) {
	for rest, want := range map[string]string{
		// clone-number
		"clone: {depth: 0, retries: 20}\n":             "",
		"clone: {depth: -5}\n":                         "3:16 clone-number",
		"clone: {retries: -1}\n":                       "3:18 clone-number",
		"clone: {retries: 21}\n":                       "3:18 clone-number",
		"clone: {depth: ${DEPTH}, disable: ${NONE}}\n": "",
		// clone-step
		"clone: {disable: false}\nsteps: [{name: clone}]\n": "4:16 clone-step",
		"clone: {disable: true}\nsteps: [{name: clone}]\n":  "",
		"steps: [{name: Clone}]\n":                          "",
		// depends-on and cycle
		"steps: [{name: a, depends_on: [clone]}]\n":                                                                   "",
		"clone: {disable: true}\nsteps: [{name: a, depends_on: [clone]}]\n":                                           "",
		"steps: [{name: a, depends_on: [B]}, {name: b}]\n":                                                            "3:32 depends-on",
		"steps: [{name: a, depends_on: [b, b]}, {name: b}]\n":                                                         "",
		"steps: [{name: a, depends_on: [b]}, {name: b, depends_on: [c]}, {name: c, depends_on: [b, a]}]\n":            "3:88 cycle, 3:91 cycle",
		"steps: [{name: a, depends_on: [b, c]}, {name: b, depends_on: [d]}, {name: c, depends_on: [d]}, {name: d}]\n": "",
		// duplicate-step, step-name
		"steps: [{name: a}, {name: A}]\n":            "",
		"steps: [{name: a}, {name: a}, {name: a}]\n": "3:27 duplicate-step, 3:38 duplicate-step",
		"steps: [{name: \" \"}, {}]\n":               "3:9 step-name, 3:22 step-name",
		"steps: [{name: \"a\\nb\"}]\n":               "3:16 step-name",
		// environment
		"steps: [{name: a, environment: {\"\": x}}]\n":        "3:33 environment",
		"steps: [{name: a, environment: {A.b-c: x, 1: y}}]\n": "",
		"steps: [{name: a, commands: [\"x\\0\"]}]\n":          "3:30 environment",
		// failure, shell, image
		"steps: [{name: a, failure: IGNORE}, {name: b, failure: always}]\n": "",
		"steps: [{name: a, failure: never}]\n":                              "3:28 failure",
		"steps: [{name: a, failure: fast}]\n":                               "3:28 failure",
		"steps: [{name: a, shell: /bin/bash}, {name: b, shell: sh}]\n":      "",
		"steps: [{name: a, shell: zsh}]\n":                                  "3:26 shell",
		"steps: [{name: a, shell: Bash}]\n":                                 "3:26 shell",
		"steps: [{name: a, image: \"\"}]\n":                                 "",
		"steps: [{name: a, image: x}]\n":                                    "3:26 image",
		// when, glob
		"steps: [{name: a, when: {event: [push, \"pull_*\"], status: {exclude: [failure]}}}]\n":   "",
		"steps: [{name: a, when: {event: pull}}]\n":                                               "3:33 when",
		"steps: [{name: a, when: {status: [changed]}}]\n":                                         "3:35 when",
		"steps: [{name: a, when: {status: {exclude: sucess}}}]\n":                                 "3:44 when",
		"trigger: {event: pr, branch: \"[\"}\n":                                                   "3:18 when",
		"steps: [{name: a, when: {branch: \"a{\"}}]\n":                                            "3:34 when",
		"steps: [{name: a, when: {branch: \"" + strings.Repeat("x", 1025) + "\"}}]\n":             "3:34 glob",
		"steps: [{name: a, when: {branch: {exclude: [\"{a,b,c,d}{a,b,c,d}{a,b,c,d}{a,b}\"]}}}]\n": "3:45 glob",
		// workspace
		"workspace: {path: a/../../b}\n": "3:19 workspace",
		"workspace: {path: opt}\n":       "3:19 workspace",
		"workspace: {path: ''}\n":        "",
		// unknown-key, no-effect
		"x-anything: {a: [1]}\n": "",
		"X-anything: {a: [1]}\n": "3:1 unknown-key",
		"steps: [{name: a, x-note: b, settings: {}, privileged: 1}]\n": "3:30 no-effect, 3:44 no-effect",
		"steps: [{name: a, when: {paths: {exclude: [b]}}}]\n":          "3:44 no-effect",
		"volumes: []\nvolume: []\n":                                    "3:1 no-effect, 4:1 unknown-key",
	} {
		if got := found(t, rest); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", rest, got, want)
		}
	}
}

// A pipeline's patterns together are bounded too.
func TestVeryManyPatterns(t *testing.T) {
	var b strings.Builder
	b.WriteString("steps:\n- name: a\n  when:\n    branch:\n")
	for range 300 {
		b.WriteString("    - \"" + strings.Repeat("x", 1000) + "\"\n")
	}
	if got := found(t, b.String()); !strings.HasSuffix(got, "7 glob") || strings.Count(got, "glob") != 1 {
		t.Error(got)
	}
}

func TestProblemText(t *testing.T) {
	p := Problem{File: "a/.drone.yml", Line: 3, Column: 5, Message: "what is wrong", Rule: "some-rule", Severity: Warning}
	if got := p.String(); got != "a/.drone.yml:3:5: what is wrong (some-rule)" {
		t.Error(got)
	}
	many := Problems(slices.Repeat([]Problem{p}, 250))
	if lines := many.Lines(); len(lines) != maxLines+1 || lines[maxLines] != "a/.drone.yml: and 150 more problems" {
		t.Errorf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
}

// A message quotes keys and names that strangers have chosen.
func TestProblemsArePrintable(t *testing.T) {
	p := File("a\nb.yml", []byte("kind: pipeline\ntype: exec\n\"x\\e[2J\\nfake: line\\u202e\": 1\n"+strings.Repeat("k", 1000)+": 1\nsteps: [{name: ä}]\n"))
	for i, line := range p.Lines() {
		if len(line) > maxMessage+100 || strings.ContainsAny(line, "\n\x1b\u202e") {
			t.Errorf("%d: %q", i, line)
		}
	}
	if want := "a\\nb.yml:3:1: the key `x\\x1b[2J\\nfake: line\\u202e` is not known in a `pipeline` and is ignored (unknown-key)"; len(p) != 2 || p[0].String() != want {
		t.Errorf("%s", p.Error())
	}
}

func TestSplitBySeverity(t *testing.T) {
	all := Problems{{Rule: "a", Severity: Warning}, {Rule: "b", Severity: Error}}
	fatal, said := all.Split(false)
	if len(fatal) != 1 || fatal[0].Rule != "b" || len(said) != 1 || said[0].Rule != "a" {
		t.Errorf("fatal %v, said %v", fatal, said)
	}
	if fatal, said = all.Split(true); len(fatal) != 2 || len(said) != 0 || said.Err() != nil || fatal.Err() == nil {
		t.Errorf("strict: fatal %v, said %v", fatal, said)
	}
}

func TestRefused(t *testing.T) {
	got := Refused("x.yml", &resource.Error{Pos: resource.Pos{Line: 4, Column: 2}, Rule: "size", Message: "large"})
	if got.Error() != "x.yml:4:2: large (size)" {
		t.Error(got.Error())
	}
	if got := Refused("x.yml", errors.New("odd")).Error(); got != "x.yml:1:1: odd (syntax)" {
		t.Error(got)
	}
}

// A stage is judged by its own pipeline only.
func TestCheckLooksAtOnePipeline(t *testing.T) {
	m, err := resource.Parse([]byte("kind: pipeline\ntype: exec\nname: good\nsteps: [{name: a}]\n---\nkind: pipeline\ntype: exec\nname: bad\nsteps: [{image: b}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := Check("x.yml", m, m.Pick("good")); len(got) > 0 {
		t.Error(got.Error())
	}
	if got := Check("x.yml", m, m.Pick("bad")); len(got) != 2 {
		t.Error(got.Error())
	}
}
