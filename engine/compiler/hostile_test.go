package compiler

import (
	"fmt"
	"strings"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
)

// A value of nothing crashed the old runner, and with it every build that it ran.
func TestNullsAreRefused(t *testing.T) {
	for steps, want := range map[string]string{
		"- name: a\n  environment:\n    FOO:\n": ".drone.yml:8:5: the variable FOO has no value: write FOO: \"\" for an empty one (null)",
		"-\n- name: a\n":                        ".drone.yml:6:2: the step is empty: give it a `name` and `commands`, or remove it (null)",
		"- name: a\n  commands: [x, ~]\n":       ".drone.yml:7:17: the list has an empty item: remove it, or write \"\" (null)",
	} {
		equal(t, steps, refusal(t, sample(pipeline(steps))), want)
	}
}

func TestNullsThatMeanNothing(t *testing.T) {
	spec := prepared(t, sample("kind: pipeline\ntype: exec\nname:\nclone:\nplatform:\ntrigger:\nworkspace:\ndepends_on:\nsteps:\n"+
		"- name: a\n  commands:\n  environment:\n  when:\n  depends_on:\n  failure:\n  detach:\n"))
	if got := edges(spec); got != "clone< a<clone" {
		t.Errorf("steps %s", got)
	}
}

// The old runner's parser cut the file off at the first line longer than 64 KiB, without a word.
func TestLongLines(t *testing.T) {
	in := sample(pipeline("- name: a\n  commands:\n  - echo " + strings.Repeat("x", 70<<10) + "\n- name: b\n"))
	spec := prepared(t, in)
	if len(spec.Steps) != 2 || len(spec.Steps[0].Files[0].Data) < 140<<10 {
		t.Errorf("%d steps", len(spec.Steps))
	}
	in = sample(pipeline("- name: a\n  commands:\n  - echo " + strings.Repeat("x", resource.MaxLine) + "\n- name: b\n"))
	if got := refusal(t, in); !strings.HasPrefix(got, ".drone.yml:8:1: the line has ") || !strings.HasSuffix(got, "(line-length)") {
		t.Error(got)
	}
}

// A line of a command that begins with dashes divided the file.
func TestDashesInsideOfCommands(t *testing.T) {
	in := sample("---\nkind: pipeline\ntype: docker\nname: other\n--- # exec\nkind: pipeline\ntype: exec\nname: default\nclone: {disable: true}\n" +
		"steps:\n- name: a\n  commands:\n  - \"echo '\n\n---x\n\n'\"\n...\n")
	step := prepared(t, in).Steps[0]
	if !strings.Contains(string(step.Files[0].Data), "---x") {
		t.Errorf("script %q", step.Files[0].Data)
	}
}

func TestHostileYAML(t *testing.T) {
	bomb := "kind: pipeline\ntype: exec\nx-0: &a0 [x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 12; i++ {
		bomb += fmt.Sprintf("x-%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	steps := "kind: pipeline\ntype: exec\nx-s: &s {name: a, commands: &c [x]}\nsteps:\n" + strings.Repeat("- *s\n", 100_000)
	for name, text := range map[string]string{
		"alias bomb":       bomb + "steps: *a11\n",
		"many aliases":     steps,
		"own alias":        "kind: pipeline\ntype: exec\nsteps: &s\n- *s\n",
		"own merge":        "kind: pipeline\ntype: exec\nx: &s\n  <<: *s\n",
		"deep flow":        "kind: pipeline\ntype: exec\nsteps: " + strings.Repeat("[", 500_000),
		"deep block":       "kind: pipeline\ntype: exec\nsteps:\n" + strings.Repeat("- ", 100_000) + "x\n",
		"deep mapping":     "kind: pipeline\ntype: exec\nsteps: " + strings.Repeat("{a: ", 100_000),
		"many documents":   strings.Repeat("--- x\n", 150_000),
		"large":            strings.Repeat("# comment\n", 200_000),
		"unknown anchor":   "kind: pipeline\ntype: exec\nsteps: *x\n",
		"tab":              "kind: pipeline\ntype: exec\nsteps:\n\t- x\n",
		"two mappings":     "kind: pipeline: x\n",
		"binary":           "\x89PNG\r\n\x1a\n",
		"nothing":          "",
		"only a list":      "- a\n",
		"text":             "hello\n",
		"steps of text":    pipeline("- x\n"),
		"steps as mapping": "kind: pipeline\ntype: exec\nsteps: {a: {}}\n",
		"list as name":     pipeline("- name: [a]\n"),
		"no name":          pipeline("- commands: [x]\n"),
		"image":            pipeline("- {name: a, image: alpine}\n"),
		"two names":        pipeline("- name: a\n- name: a\n"),
		"step clone":       "kind: pipeline\ntype: exec\nsteps:\n- name: clone\n",
		"shell":            pipeline("- {name: a, shell: fish}\n"),
		"depth":            "kind: pipeline\ntype: exec\nclone: {depth: -1}\nsteps: []\n",
		"depth as text":    "kind: pipeline\ntype: exec\nclone: {depth: all}\nsteps: []\n",
		"retries":          "kind: pipeline\ntype: exec\nclone: {retries: 1000}\nsteps: []\n",
		"workspace":        "kind: pipeline\ntype: exec\nworkspace: {path: ../../etc}\nsteps: []\n",
		"commands as text": pipeline("- {name: a, commands: make}\n"),
		"zero in a value":  pipeline("- {name: a, environment: {A: \"\\0\"}}\n"),
		"variable's name":  pipeline("- {name: a, environment: {\"A=B\": x}}\n"),
	} {
		within(t, name, func() {
			got := refusal(t, sample(text))
			if len(got) > 20_000 {
				t.Errorf("%s: an error of %d bytes", name, len(got))
			}
		})
	}
}

// On the old runner a pattern of 250 bytes kept one core busy for a day.
func TestHostileGlobs(t *testing.T) {
	braces := strings.Repeat("{p,{p,{p,p}}}", 20) + "x"
	for _, pattern := range []string{braces, strings.Repeat("{pull,p}*", 30), strings.Repeat("*", 900) + "x", strings.Repeat("**/", 300) + "x"} {
		in := sample(pipeline("- {name: a, when: {event: [\"" + pattern + "\"]}}\n"))
		in.Build.Event = strings.Repeat("p", 200)
		within(t, pattern, func() {
			spec, err := Prepare(t.Context(), in)
			if err == nil && len(spec.Steps) > 0 {
				t.Errorf("%s matches", pattern)
			}
		})
	}
	if got := refusal(t, sample(pipeline("- {name: a, when: {event: \""+braces+"\"}}\n"))); !strings.HasSuffix(got, "(glob)") {
		t.Error(got)
	}
}

func TestManyWarningsAreCut(t *testing.T) {
	text := "kind: pipeline\ntype: exec\nclone: {disable: true}\n"
	for i := range 5000 {
		text += fmt.Sprintf("key%d: x\n", i)
	}
	spec := prepared(t, sample(text+"steps: [{name: a}]\n"))
	if len(spec.Warnings) > 200 || !strings.Contains(spec.Warnings[len(spec.Warnings)-1], "4900 more") {
		t.Errorf("%d warnings, the last is %q", len(spec.Warnings), spec.Warnings[len(spec.Warnings)-1])
	}
}
