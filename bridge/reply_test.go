package bridge

import (
	"strings"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// TestForeignTextIsInert puts hostile text into every place of a reply that comes from outside.
func TestForeignTextIsInert(t *testing.T) {
	evil := "`x` @everyone ![](http://evil/p.png) [a](javascript:b) <img src=x>\u202e\n# head\x1b[31m" + strings.Repeat("y", 500)
	r := &journal.Request{Recipe: evil, SHA: evil, Newer: evil, Build: 3}
	o := &journal.Outcome{Status: statusFailure, Step: evil, Text: "the CI server says " + code(evil, 200), Duration: time.Second}
	for _, text := range []string{queuedText(r), runningText(r, "http://drone/3"), resultText(r, o, "http://drone/3")} {
		if strings.ContainsAny(text, "\u202e\x1b") || strings.Contains(text, "\n# head") {
			t.Errorf("control characters got through: %q", text)
		}
		outside := ""
		for i, part := range strings.Split(text, "`") {
			if i%2 == 0 {
				outside += part
			}
		}
		if strings.Contains(outside, "@") || strings.Contains(outside, "evil") || strings.Contains(outside, "<img") {
			t.Errorf("foreign text is outside of code spans: %q", outside)
		}
	}
	if d := describe(o); len(d) > 140 || strings.ContainsAny(d, "`\n\x1b") {
		t.Errorf("description %q", d)
	}
}

func TestCodeNeverEmpty(t *testing.T) {
	for in, want := range map[string]string{"": "`-`", "  ": "`-`", "a`b": "`a_b`", "abcdef": "`abcd...`"} {
		if got := code(in, 4); got != want && in != "a`b" || in == "a`b" && got != want {
			t.Errorf("code(%q) = %s, want %s", in, got, want)
		}
	}
}
