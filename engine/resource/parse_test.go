package resource

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// only parses a file with one pipeline.
func only(t *testing.T, text string) *Pipeline {
	t.Helper()
	m, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Pipelines) != 1 {
		t.Fatalf("%d pipelines", len(m.Pipelines))
	}
	return m.Pipelines[0]
}

// step parses the body of one step, in YAML's flow style.
func step(t *testing.T, body string) (*Step, *Pipeline) {
	t.Helper()
	p := only(t, "{kind: pipeline, type: exec, steps: [{"+body+"}]}")
	if len(p.Steps) != 1 {
		t.Fatalf("%d steps", len(p.Steps))
	}
	return p.Steps[0], p
}

func values(list []String) []string {
	var out []string
	for _, s := range list {
		out = append(out, s.Value)
	}
	return out
}

func TestParseWholePipeline(t *testing.T) {
	p := only(t, `kind: pipeline
type: exec
name: build
version: 1
platform: {os: linux, arch: arm64}
node: {disk: ssd}
concurrency: {limit: 1}
trigger: {branch: [main]}
depends_on: [lint]
workspace: {path: /go/src}
clone: {disable: true, depth: 5, retries: 2, tags: yes, skip_verify: on, trace: "true"}
steps:
- name: one
  commands: [make, 1]
  environment: {A: x, B: {from_secret: " token "}, C: {value: y}}
  depends_on: [zero]
  detach: true
  failure: ignore
  shell: bash
  image: none
  when: {branch: main, event: [push, tag], ref: {include: [a], exclude: b}}
`)
	if len(p.Faults) > 0 || len(p.Unknown) > 0 {
		t.Fatalf("faults %v, unknown keys %v", p.Faults, p.Unknown)
	}
	clone := p.Clone
	clone.Depth.Pos, clone.Retries.Pos = Pos{}, Pos{}
	if want := (Clone{Disable: true, Depth: Int{Value: 5}, Retries: Int{Value: 2}, Tags: true, SkipVerify: true, Trace: true}); clone != want {
		t.Errorf("clone %+v", p.Clone)
	}
	if p.StageName() != "build" || p.Workspace.Value != "/go/src" || values(p.DependsOn)[0] != "lint" || values(p.Trigger.Branch.Include)[0] != "main" {
		t.Errorf("%+v", p)
	}
	s := p.Steps[0]
	if s.Name != (String{"one", Pos{13, 9}}) || s.Pos != (Pos{13, 3}) || !slices.Equal(values(s.Commands), []string{"make", "1"}) ||
		!s.Detach || s.Failure.Value != "ignore" || s.Shell.Value != "bash" || s.Image.Value != "none" || values(s.DependsOn)[0] != "zero" {
		t.Errorf("step %+v", s)
	}
	if got := fmt.Sprintf("%s=%s %s=>%s %s=%s", s.Environment[0].Name.Value, s.Environment[0].Value, s.Environment[1].Name.Value,
		s.Environment[1].Secret.Value, s.Environment[2].Name.Value, s.Environment[2].Value); got != "A=x B=>token C=y" {
		t.Errorf("environment %s", got)
	}
	if w := s.When; values(w.Branch.Include)[0] != "main" || len(w.Event.Include) != 2 || values(w.Ref.Exclude)[0] != "b" {
		t.Errorf("when %+v", w)
	}
}

// What is written is what a step gets: the old runner did not turn scalars into numbers or booleans either.
func TestScalarsKeepTheirText(t *testing.T) {
	for _, text := range []string{"1", "1.10", "0x10", "010", "1e3", "true", "yes", "off", "2001-01-01", "1_000", "a b", "-1", ".5", "12:30"} {
		s, p := step(t, "name: a, environment: {A: "+text+"}")
		if len(p.Faults) > 0 || s.Environment[0].Value != text {
			t.Errorf("%s becomes %q, faults %v", text, s.Environment[0].Value, p.Faults)
		}
	}
	s, _ := step(t, `name: 1, environment: {A: "", B: '~', C: "null", D: !!str 5, E: "a\nb"}`)
	var got []string
	for _, v := range s.Environment {
		got = append(got, v.Value)
	}
	if !slices.Equal(got, []string{"", "~", "null", "5", "a\nb"}) || s.Name.Value != "1" {
		t.Errorf("%q, name %q", got, s.Name.Value)
	}
}

func TestAnchorsAndMergeKeys(t *testing.T) {
	p := only(t, `
kind: pipeline
type: exec
x-base: &base
  environment: &env {A: base, B: base}
  when: {event: push}
x-other: &other {failure: ignore, shell: bash}
steps:
- <<: *base
  name: one
- <<: [*other, *base]
  name: two
  shell: sh
- name: three
  environment:
    <<: *env
    B: own
`)
	if len(p.Faults) > 0 || len(p.Steps) != 3 {
		t.Fatalf("%d steps, faults %v", len(p.Steps), p.Faults)
	}
	one, two, three := p.Steps[0], p.Steps[1], p.Steps[2]
	if len(one.Environment) != 2 || len(one.When.Event.Include) != 1 {
		t.Errorf("one: %+v", one)
	}
	if two.Shell.Value != "sh" || two.Failure.Value != "ignore" || len(two.Environment) != 2 {
		t.Errorf("two: %+v", two)
	}
	env := map[string]string{}
	for _, v := range three.Environment {
		env[v.Name.Value] = v.Value
	}
	if !reflect.DeepEqual(env, map[string]string{"A": "base", "B": "own"}) {
		t.Errorf("three: %v", env)
	}
}

func TestDocuments(t *testing.T) {
	m, err := Parse([]byte(`# a comment first
---
kind: pipeline
type: docker
name: other
steps: [{name: x, image: alpine, commands: null}]
--- # the runner's own
kind: pipeline
type: exec
name: own
---
kind: pipeline
type: exec
---
kind: secret
name: token
data: abc
---
kind: secret
name: external
get: {path: a/b, name: c}
extra: x
---
kind: signature
hmac: 00
---
---
kind: template
load: x.star
data: [1, {2: 3}]
---
- a list
...
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Pipelines) != 2 || m.Pick("own") != m.Pipelines[0] || m.Pick("default") != m.Pipelines[1] || m.Pick("") != m.Pipelines[1] || m.Pick("other") != nil {
		t.Errorf("pipelines %v", m.Pipelines)
	}
	if len(m.Secrets) != 2 || m.Secrets[0].Data != "abc" || m.Secrets[1].GetPath != "a/b" || m.Secrets[1].GetName != "c" || len(m.Secrets[1].Unknown) != 1 {
		t.Errorf("secrets %+v", m.Secrets)
	}
	if len(m.Others) != 3 || m.Others[0].Type != "docker" || m.Others[1].Kind != "signature" || m.Others[2].Pos.Line != 28 {
		t.Errorf("others %+v", m.Others)
	}
	if len(m.Faults) != 1 || m.Faults[0].Pos.Line != 32 {
		t.Errorf("faults %+v", m.Faults)
	}
}

func TestFaultsHavePlaces(t *testing.T) {
	tests := map[string]Fault{
		"name: [x]":                        {FaultType, Pos{5, 9}, "expected text, found a list"},
		"commands: x":                      {FaultType, Pos{5, 13}, "expected a list (`- item`), found text"},
		"commands: [[x]]":                  {FaultType, Pos{5, 14}, "expected text, found a list"},
		"commands:\n  - a: b":              {FaultType, Pos{6, 5}, "expected text, found a mapping: put text that holds a colon and a blank into quotes"},
		"commands: [~]":                    {FaultNull, Pos{5, 14}, "the list has an empty item: remove it, or write \"\""},
		"environment: [x]":                 {FaultType, Pos{5, 16}, "expected a mapping (`key: value`), found a list"},
		"environment: {A: [x]}":            {FaultType, Pos{5, 20}, "expected text or `from_secret: NAME`, found a list"},
		"environment: {A: }":               {FaultNull, Pos{5, 17}, "the variable A has no value: write A: \"\" for an empty one"},
		"environment: {A: {}}":             {FaultNull, Pos{5, 17}, "the variable A names no secret in `from_secret`"},
		"environment: {A: {from_secret:}}": {FaultNull, Pos{5, 17}, "the variable A names no secret in `from_secret`"},
		"environment: {[a]: b}":            {FaultType, Pos{5, 17}, "a key must be plain text, found a list"},
		"detach: maybe":                    {FaultType, Pos{5, 11}, `expected true or false, found "maybe"`},
		"detach: [true]":                   {FaultType, Pos{5, 11}, "expected true or false, found a list"},
		"when: x":                          {FaultType, Pos{5, 9}, "expected a mapping (`key: value`), found text"},
		"when: {branch: [{a: b}]}":         {FaultType, Pos{5, 19}, "expected text, found a mapping"},
		"depends_on: a":                    {FaultType, Pos{5, 15}, "expected a list (`- item`), found text"},
		"shell: sh\n  shell: bash":         {FaultDuplicate, Pos{6, 3}, "the key `shell` is given twice, the last one counts"},
		"<<: x":                            {FaultType, Pos{5, 7}, "expected a mapping (`key: value`), found text"},
	}
	for text, want := range tests {
		p := only(t, "kind: pipeline\ntype: exec\n\nsteps:\n- "+text+"\n")
		if len(p.Faults) != 1 || p.Faults[0] != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, p.Faults, want)
		}
	}
	p := only(t, "kind: pipeline\ntype: exec\nclone: {depth: x, retries: [1]}\nsteps: {a: b}\n")
	if len(p.Faults) != 3 || p.Faults[0].Message != `expected a whole number, found "x"` || p.Faults[2].Message != "expected a list of steps, found a mapping" {
		t.Errorf("%+v", p.Faults)
	}
}

func TestUnknownKeysHaveSuggestions(t *testing.T) {
	for text, want := range map[string]Key{
		"brnach: x":                      {InStep, "brnach", Pos{4, 3}, ""},
		"comands: [x]":                   {InStep, "comands", Pos{4, 3}, "commands"},
		"dependson: [x]":                 {InStep, "dependson", Pos{4, 3}, "depends_on"},
		"Name: x":                        {InStep, "Name", Pos{4, 3}, "name"},
		"when: {brnach: x}":              {InWhen, "brnach", Pos{4, 10}, "branch"},
		"when: {events: x}":              {InWhen, "events", Pos{4, 10}, "event"},
		"when: {branch: {includes: []}}": {InCondition, "includes", Pos{4, 19}, "include"},
		"environment: {A: {fromsecret: x, value: y}}": {InVariable, "fromsecret", Pos{4, 21}, "from_secret"},
	} {
		p := only(t, "kind: pipeline\ntype: exec\nsteps:\n- "+text+"\n")
		if len(p.Unknown) != 1 || p.Unknown[0] != want {
			t.Errorf("%s: %+v, want %+v", text, p.Unknown, want)
		}
	}
	p := only(t, "kind: pipeline\ntype: exec\nplatfrom: {}\nclone: {dept: 1}\nworkspace: {base: /x}\ntrigger: {event: {exclude: push}, brunch: x}\n")
	var got []string
	for _, k := range p.Unknown {
		got = append(got, string(k.Section)+"."+k.Name+">"+k.Similar)
	}
	if want := "pipeline.platfrom>platform clone.dept>depth workspace.base> trigger.brunch>branch"; strings.Join(got, " ") != want {
		t.Errorf("%q", got)
	}
}

func TestSyntaxErrorsHaveALine(t *testing.T) {
	for text, line := range map[string]int{
		"kind: pipeline\ntype: exec\nsteps:\n\t- x\n": 4,
		"a: b: c\n":           1,
		"a:\n  - x\n y: z\n":  2,
		"a: 'x\n":             1,
		"a: *none\n":          1,
		"ok: x\n---\na: {\n":  1,
		"x: \"\\q\"\n":        1,
		"a: &x [1, 2\nb: 3\n": 1,
	} {
		_, err := Parse([]byte(text))
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Rule != "syntax" || e.Pos.Line < line || e.Pos.Line > strings.Count(text, "\n")+1 {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A file that is checked without a build still has expressions where numbers and flags will be.
func TestExpressionsAreNoFaults(t *testing.T) {
	p := only(t, "kind: pipeline\ntype: exec\nclone: {disable: \"${A}\", depth: \"${B}\", retries: $(C)}\n")
	if len(p.Faults) > 0 || p.Clone != (Clone{}) {
		t.Errorf("%+v, faults %v", p.Clone, p.Faults)
	}
}

func TestFaultsQuoteLittle(t *testing.T) {
	p := only(t, "kind: pipeline\ntype: exec\nclone: {disable: "+strings.Repeat("x", 5000)+", trace: {}}\nsteps: text\n")
	if len(p.Faults) != 3 || len(p.Faults[0].Message) > 100 || p.Faults[1].Message != "expected true or false, found a mapping" {
		t.Errorf("%+v", p.Faults)
	}
}

func TestErrorText(t *testing.T) {
	_, err := Parse([]byte("a: b\n\tc: d\n"))
	if err == nil || err.Error() != "line 2, column 1: found a tab character that violates indentation" {
		t.Error(err)
	}
}

func TestDistance(t *testing.T) {
	for words, want := range map[[2]string]int{
		{"", ""}: 0, {"a", ""}: 1, {"same", "same"}: 0, {"branch", "brnach"}: 2, {"event", "events"}: 1, {"name", "nam"}: 1, {"abc", "xyz"}: 3, {"a", "abcdef"}: 3,
	} {
		if got := distance(words[0], words[1]); got != want {
			t.Errorf("%q: %d, want %d", words, got, want)
		}
	}
}
