package resource

import (
	"strings"
	"testing"
	"time"
)

func condition(include, exclude string) *Condition {
	list := func(text string) []String {
		var out []String
		for _, s := range strings.Fields(text) {
			out = append(out, String{Value: s})
		}
		return out
	}
	return &Condition{list(include), list(exclude)}
}

func TestConditionMatch(t *testing.T) {
	tests := []struct {
		include, exclude, value string
		want                    bool
	}{
		{"", "", "anything", true},
		{"main", "", "main", true},
		{"main", "", "mainly", false},
		{"Main", "", "main", false},
		{"a main", "", "main", true},
		{"", "main", "main", false},
		{"", "main", "topic", true},
		{"*", "main", "main", false},
		{"feature/*", "", "feature/a", true},
		{"feature/*", "", "feature/a/b", false},
		{"feature/**", "", "feature/a/b", true},
		{"**/b", "", "feature/a/b", true},
		{"refs/tags/**", "", "refs/tags/v1", true},
		{"*", "", "feature/a", false},
		{"v?.?", "", "v1.2", true},
		{"[a-c]x", "", "bx", true},
		{"[!a-c]x", "", "bx", false},
		{"{main,release-*}", "", "release-1", true},
		{"{main,release-*}", "", "topic", false},
		{`a\*`, "", "a*", true},
		{"[", "", "[", false},
		{"", "[", "[", true},
		{"main", "", "", false},
		{"", "main", "", true},
		{"*", "", "", true},
	}
	for _, test := range tests {
		if got := condition(test.include, test.exclude).Match(test.value); got != test.want {
			t.Errorf("include %q, exclude %q, value %q: %v", test.include, test.exclude, test.value, got)
		}
	}
}

func TestPatternAlternatives(t *testing.T) {
	for pattern, want := range map[string]int{
		"": 1, "main": 1, "a,b": 1, "{a,b}": 2, "{a,b,c}{d,e}": 6, "{a}": 1, "{a,{b,c}}": 4, `\{a,b}`: 1, "{a,b": 2, "a}": 1, "{,}": 2,
	} {
		if got := PatternAlternatives(pattern); got != want {
			t.Errorf("%s: %d, want %d", pattern, got, want)
		}
	}
	if got := PatternAlternatives(strings.Repeat("{a,b}", 200)); got <= MaxAlternatives {
		t.Errorf("many braces: %d", got)
	}
	if got := PatternAlternatives(strings.Repeat("{a,", 200)); got <= MaxAlternatives {
		t.Errorf("many open braces: %d", got)
	}
}

// costly are patterns within the limits that take as long as such patterns can, and a name that suits them.
func costly() (patterns []string, name string) {
	patterns = []string{
		strings.Repeat("{p,pp}", 6) + strings.Repeat("*p", 400) + "x",
		strings.Repeat("{p*,*p}", 6) + strings.Repeat("[a-z]", 100) + "*x",
		strings.Repeat("**/", 300) + "x",
		strings.Repeat("**/*p", 200) + "x",
		strings.Repeat("{**/p,*/**}", 6) + "/x",
		strings.Repeat("{", 300) + strings.Repeat("}", 300),
		"{" + strings.Repeat(",", 63) + "}*x",
	}
	return patterns, strings.Repeat("pp/", 300)
}

func TestMatchingEnds(t *testing.T) {
	patterns, name := costly()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, p := range patterns {
			condition(p, "").Match(name)
		}
		// What the linter refuses costs nothing here.
		condition(strings.Repeat("{p,{p,p}}", 30), strings.Repeat("*p", 10_000)).Match(name)
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("matching does not end")
	}
}

func BenchmarkMatchCostly(b *testing.B) {
	patterns, name := costly()
	for b.Loop() {
		for _, p := range patterns {
			condition(p, "").Match(name)
		}
	}
}

func TestWorkspaceDir(t *testing.T) {
	for path, want := range map[string]string{
		"": "drone/src", "/drone/src": "drone/src", "a": "a", "/a/b/": "a/b", "a//b/./c": "a/b/c", "home/drone/go": "home/drone/go",
		"home/x": "home/x", "tmp/x": "tmp/x", "~/x": "~/x", "..a": "..a",
	} {
		if got, err := WorkspaceDir(path); err != nil || got != want {
			t.Errorf("%q: %q, %v", path, got, err)
		}
	}
	for _, path := range []string{"..", "../x", "a/../..", "a/../b", "/", ".", "home", "home/drone", "opt", "opt/x", "tmp", "a\nb", "a\x00", "/home/drone/"} {
		if got, err := WorkspaceDir(path); err == nil {
			t.Errorf("%q: %q", path, got)
		}
	}
}
