package resource

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// refusedBy is the rule that refuses a file, and where.
func refusedBy(t *testing.T, text string) (rule string, line int) {
	t.Helper()
	m, err := Parse([]byte(text))
	if err == nil {
		t.Fatalf("not refused: %d pipelines", len(m.Pipelines))
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("refused by %T", err)
	}
	return e.Rule, e.Pos.Line
}

func TestGuards(t *testing.T) {
	wide := "a: &a [" + strings.Repeat("x, ", 1000) + "x]\nb: [" + strings.Repeat("*a, ", 200) + "x]\n"
	tests := map[string]struct {
		text, rule string
		line       int
	}{
		"size":           {strings.Repeat("# a comment\n", MaxSize/12+1), "size", 1},
		"line":           {"a: b\nc: " + strings.Repeat("x", MaxLine) + "\n", "line-length", 2},
		"zero byte":      {"a: b\nc: \x00\n", "syntax", 2},
		"not UTF-8":      {"a: b\n\nc: \xff\n", "syntax", 3},
		"aliases":        {wide, "alias", 1},
		"nesting":        {"a:\n  " + strings.Repeat("[", 100) + strings.Repeat("]", 100), "depth", 2},
		"alias of self":  {"a: &a\n  b: *a\n", "depth", 2},
		"merge of self":  {"a: &a\n  <<: *a\n", "depth", 2},
		"alias of alias": {bomb(12), "alias", 1},
		"syntax":         {"a: [\n", "syntax", 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rule, line := refusedBy(t, test.text)
			if rule != test.rule || test.rule != "alias" && test.rule != "depth" && line != test.line {
				t.Errorf("refused by %s in line %d", rule, line)
			}
		})
	}
}

// bomb is a file in which each line refers ten times to the one before.
func bomb(lines int) string {
	text := "a0: &a0 x\n"
	for i := 1; i < lines; i++ {
		text += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	return text
}

func TestWhatIsJustBelowTheLimits(t *testing.T) {
	for name, text := range map[string]string{
		"line":    "a: " + strings.Repeat("x", MaxLine-4) + "\n",
		"size":    strings.Repeat("# a comment\n", MaxSize/12),
		"nesting": "a: " + strings.Repeat("[", 60) + strings.Repeat("]", 60),
		"aliases": bomb(4),
		"CRLF":    "kind: pipeline\r\ntype: exec\r\n",
		"BOM":     "\ufeffkind: pipeline\ntype: exec\n",
		"nothing": "",
	} {
		if _, err := Parse([]byte(text)); err != nil {
			t.Errorf("%s: %s", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"kind: pipeline\ntype: exec\nsteps:\n- {name: a, commands: [x], environment: {A: {from_secret: b}}}\n",
		"kind: pipeline\ntype: exec\nsteps: &s\n- <<: [*s, {a: b}]\n- when: {branch: {include: [a], exclude: b}}\n",
		"--- {kind: secret, name: a, get: {path: b}}\n--- !!binary x\n--- [*a]\n",
		"? [a]\n: b\n<<: c\n? \n: {kind: pipeline, type: exec}\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse([]byte(text))
		if err != nil {
			return
		}
		for _, p := range m.Pipelines {
			for _, fault := range p.Faults {
				if fault.Pos.Line < 1 || fault.Message == "" {
					t.Errorf("fault %+v", fault)
				}
			}
			for _, s := range p.Steps {
				if s.Pos.Line < 1 {
					t.Errorf("step %+v", s)
				}
				s.When.Match(Match{Branch: "main", Event: "push"})
			}
		}
	})
}
