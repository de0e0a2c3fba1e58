package bridge

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	commands := map[string]Command{
		"!testme":                 {Verb: Run},
		"  !testme \r\n":          {Verb: Run},
		"!testme abc1234":         {Verb: Run, Args: []string{"abc1234"}},
		"!testme  app   abc1234 ": {Verb: Run, Args: []string{"app", "abc1234"}},
		"!testme ?":               {Verb: Help},
		"!retest":                 {Verb: Retest},
		"!cancel":                 {Verb: Cancel},
		"!testme ? really":        {Verb: Run, Args: []string{"?", "really"}},
	}
	for comment, want := range commands {
		got, ok := Parse(comment)
		if !ok || got.Verb != want.Verb || !slices.Equal(got.Args, want.Args) {
			t.Errorf("Parse(%q) = %v %v, want %v", comment, got, ok, want)
		}
	}
	others := []string{
		"", " ", "testme", "!testme\n!testme", "please !testme", "> !testme", "`!testme`", "```\n!testme\n```", "    !testme\nx",
		"!TESTME", "!testme!", "!testmenow", "! testme", "!testme\u00a0", "\u200b!testme", "！testme", "!tеstme", // the last has a Cyrillic letter
		"!testme\x00", "!testme\tabc1234", "\u2028!testme", "!testme " + strings.Repeat("a", 300), "\u00a0!testme",
	}
	for _, comment := range others {
		if got, ok := Parse(comment); ok {
			t.Errorf("Parse(%q) = %v, want no command", comment, got)
		}
	}
}

func TestTarget(t *testing.T) {
	one, several := []string{"app"}, []string{"app", "web", "cafe123"}
	cases := []struct {
		args    string
		recipes []string
		want    Target
		ok      bool
	}{
		{"", one, Target{Recipe: "app"}, true},
		{"abcdef1", one, Target{Recipe: "app", Prefix: "abcdef1"}, true},
		{"app abcdef1", one, Target{Recipe: "app", Prefix: "abcdef1"}, true},
		{"web", several, Target{Recipe: "web"}, true},
		{"cafe123", several, Target{Recipe: "cafe123"}, true}, // a recipe's name comes before a hash
		{"", several, Target{Recipe: "app"}, true},            // the repository is App
		{"", []string{"web", "shop"}, Target{}, false},
		{"other", one, Target{}, false},
		{"abcdef", one, Target{}, false},                         // too short
		{"ABCDEF1", one, Target{}, false},                        // hashes are lower case
		{strings.Repeat("a", 65), one, Target{}, false},          // too long
		{"app abcdef1 more", one, Target{}, false},               //
		{"../../etc/passwd", one, Target{}, false},               //
		{"$(id)", one, Target{}, false},                          //
		{"", []string{"..evil"}, Target{}, false},                // never valid, even when configured
		{"", []string{strings.Repeat("a", 65)}, Target{}, false}, //
	}
	for _, c := range cases {
		cmd := Command{Args: strings.Fields(c.args)}
		got, ok := cmd.target("App", c.recipes)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("target(%q, %v) = %v %v, want %v %v", c.args, c.recipes, got, ok, c.want, c.ok)
		}
	}
}

// FuzzParse checks what must hold for every comment: a command is one line of printable ASCII that begins with a
// command word, and what it is resolved to is safe.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"!testme", "!testme app abc1234", "> !testme", "!cancel\n", "!testme \u00a0", "!retest ?"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, comment string) {
		cmd, ok := Parse(comment)
		if !ok {
			return
		}
		line := strings.Trim(comment, " \t\r\n")
		if strings.ContainsAny(line, "\n\r\x00") || !strings.HasPrefix(line, "!") {
			t.Fatalf("%q is no command", comment)
		}
		target, ok := cmd.target("app", []string{"app", "web"})
		if ok && (!ValidRecipe(target.Recipe) || target.Prefix != "" && !prefixPattern.MatchString(target.Prefix)) {
			t.Fatalf("%q resolves to %v", comment, target)
		}
	})
}
