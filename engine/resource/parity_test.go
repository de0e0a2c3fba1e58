package resource

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/drone/runner-go/manifest"
)

// pick joins up to four words by slashes.
func pick(r *rand.Rand, words []string) string {
	var list []string
	for range 1 + r.IntN(4) {
		list = append(list, words[r.IntN(len(words))])
	}
	return strings.Join(list, "/")
}

// Our matcher is another one than the old runner's, because that one's time is not bounded; what it says is the same.
func TestConditionsMatchAsOnTheOldRunner(t *testing.T) {
	patterns := []string{"a", "b", "*", "**", "?", "[ab]", "[^a]", "{a,b}", "a*", "*b", "a*b", "{a*,b}", "v*.*", "a-{a,b}-*", `\*`}
	words := []string{"a", "b", "aa", "ab", "v1.2", "a-b-c", "x", "*"}
	rounds := 50_000
	if os.Getenv("CC_CI_TEST_FULL") == "1" {
		rounds *= 10
	}
	r := rand.New(rand.NewPCG(1, 2))
	matches := 0
	for range rounds {
		include, exclude, value := pick(r, patterns), pick(r, patterns), pick(r, words)
		ours := condition(include, exclude)
		theirs := manifest.Condition{Include: []string{include}, Exclude: []string{exclude}}
		want := theirs.Match(value)
		if want {
			matches++
		}
		if got := ours.Match(value); got != want {
			t.Fatalf("include %q, exclude %q, value %q: %v, on the old runner %v", include, exclude, value, got, want)
		}
	}
	if matches < rounds/50 {
		t.Errorf("only %d of %d match: the test compares nothing", matches, rounds)
	}
}

// What the old parser reads from a file without surprises, ours reads too.
func TestVariablesAreReadAsOnTheOldRunner(t *testing.T) {
	const text = `kind: secret
name: a
data: %s
`
	for _, value := range []string{"1", "1.10", "yes", "0x10", "2001-01-01", `"a\nb"`, "'it''s'", "a # comment", "a: b", "|\n  x\n  y", "&a x", "!!str 5", "-", "1_0"} {
		file := strings.Replace(text, "%s", value, 1)
		theirs, theirErr := manifest.ParseString(file)
		ours, ourErr := Parse([]byte(file))
		if theirErr != nil || ourErr != nil {
			if (theirErr == nil) != (ourErr == nil) {
				t.Errorf("%q: error %v, on the old runner %v", value, ourErr, theirErr)
			}
			continue
		}
		if want := theirs.Resources[0].(*manifest.Secret).Data; ours.Secrets[0].Data != want {
			t.Errorf("%q: %q, on the old runner %q", value, ours.Secrets[0].Data, want)
		}
	}
}
