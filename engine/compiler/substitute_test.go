package compiler

import (
	"strings"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"
)

func TestSubstitute(t *testing.T) {
	vars := map[string]string{"A": "main", "SHA": "0123456789abcdef", "MSG": "one\ntwo", "Q": `say "x"`}
	tests := map[string]string{
		"${A}":              "main",
		"$A":                "$A",
		"$${A}":             "${A}",
		"${NONE}":           "",
		"${NONE:-default}":  "default",
		"${NONE=default}":   "default",
		"${A:-default}":     "main",
		"${SHA:0:8}":        "01234567",
		"${SHA:8}":          "89abcdef",
		"${A^^}":            "MAIN",
		"${A^}":             "Main",
		"${A,,}":            "main",
		"${#A}":             "4",
		"${A/ai/u}":         "mun",
		"${A//n/m}":         "maim",
		"${A##m}":           "ain",
		"${A%in}":           "ma",
		"${NONE:-${A}}":     "main",
		"${Q}":              `say "x"`,
		"${MSG}":            `"one\ntwo"`,
		"a\n${A}\n$(x) `y`": "a\nmain\n$(x) `y`",
		"${A":               "?", "${}": "?", "${A.b}": "?", "${A[@]}": "?", "${A:0:-1}": "?",
	}
	for text, want := range tests {
		got, err := substitute(text, vars)
		if (err != nil) != (want == "?") {
			t.Errorf("%s: error %v", text, err)
		}
		if err == nil && got != want {
			t.Errorf("%s = %q, want %q", text, got, want)
		}
	}
}

func TestSubstitutionNamesTheLine(t *testing.T) {
	for _, expression := range []string{"${A[@]}", "${DRONE_BRANCH:0:-1}"} {
		got := refusal(t, sample(pipeline("- name: a\n  commands:\n  - echo ${DRONE_BRANCH}\n  - echo "+expression+"\n")))
		if !strings.HasPrefix(got, ".drone.yml:9:10: ") || !strings.HasSuffix(got, "(substitution)") {
			t.Errorf("%s: %s", expression, got)
		}
	}
}

// A value cannot become keys or steps: what would end its line arrives as one quoted string.
func TestHostileValuesStayOnTheirLine(t *testing.T) {
	for _, end := range []string{"\n", "\r", "\r\n", "\u0085", "\u2028", "\u2029"} {
		value := "x" + end + "- name: evil" + end + "  commands: [id]" + end
		in := sample(pipeline("- name: a\n  commands:\n  - echo\n  environment:\n    MESSAGE: ${DRONE_COMMIT_MESSAGE}\n"))
		in.Build.Message = value
		spec := prepared(t, in)
		if len(spec.Steps) != 1 || spec.Steps[0].Env["MESSAGE"] != value {
			t.Errorf("%q: steps %s, MESSAGE %q", end, edges(spec), spec.Steps[0].Env["MESSAGE"])
		}
	}
}

func TestParametersSubstituteLast(t *testing.T) {
	in := sample(pipeline("- name: a\n  commands: [\"echo ${DRONE_BRANCH} ${VERSION} ${PATH}\"]\n"))
	in.Options.Environ = map[string]string{"VERSION": "environ", "PATH": "/environ"}
	in.Build.Params = map[string]string{"DRONE_BRANCH": "parameter", "PATH": "/evil"}
	if got := string(prepared(t, in).Steps[0].Files[0].Data); !strings.Contains(got, "echo parameter environ /environ\n") {
		t.Errorf("script %q", got)
	}
}

// within fails the test if something takes minutes instead of moments.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not end", what)
	}
}

func TestHostileSubstitution(t *testing.T) {
	long := strings.Repeat("a", 60<<10)
	nested := "a"
	for range 12 {
		nested = "${M//a/" + nested + nested + "}"
	}
	deep := strings.Repeat("${A:-", 5000) + strings.Repeat("}", 5000)
	for name, text := range map[string]string{
		"many expressions": strings.Repeat("${A}", 20_000),
		"much text":        strings.Repeat("${M}", 9_000),
		"much replaced":    "${M//a/" + long + "}",
		"nested replaced":  "${M//a/${M//a/${M//a/${M//a/${M//a/b}}}}}",
		"nested twice":     nested,
		"long patterns":    strings.Repeat("${M##*"+strings.Repeat("a", 500)+"b}", 100),
		"many escapes":     strings.Repeat("$$", 400<<10),
		"many backslashes": strings.Repeat(`\\`, 400<<10),
		"deep":             deep,
		"open and open":    strings.Repeat("${A:-", 9_000),
		"zero byte":        "kind: pipeline\x00${A}",
		"not text":         "kind: \xff\xfe",
	} {
		in := sample(text)
		in.Build.Params = map[string]string{"M": long}
		within(t, name, func() {
			if _, err := Prepare(t.Context(), in); err == nil {
				t.Errorf("%s: not refused", name)
			} else if len(err.Error()) > 1000 {
				t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
			}
		})
	}
}

// An operator on a commit message of a usual length is cheap enough.
func TestSubstitutionTakesUsualMessages(t *testing.T) {
	in := sample(pipeline("- name: \"${DRONE_COMMIT_MESSAGE%%:*}\"\n"))
	in.Build.Event, in.Build.Message = drone.EventPush, "fix: "+strings.Repeat("word ", 2000)
	if got := prepared(t, in).Steps[0].Name; got != "fix" {
		t.Errorf("name %q", got)
	}
}
