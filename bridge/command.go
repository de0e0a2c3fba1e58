package bridge

import (
	"regexp"
	"slices"
	"strings"
)

// Verb is what a comment asks for.
type Verb int

// The verbs.
const (
	Run    Verb = iota // build a commit of the pull request
	Retest             // run what failed last again
	Cancel             // end every run of the pull request
	Help               // explain the commands
)

// maxCommand is the longest comment that can be a command. The longest that means something, a whole name and a whole
// hash, has 137 bytes.
const maxCommand = 200

// Command is a comment that is addressed to the bridge.
type Command struct {
	Verb Verb
	Args []string // the words behind the first, not yet judged; Help has none
}

// Parse reads a comment. It is a command only as a whole: one line of printable ASCII whose first word is one of
// the command words. So quotes, code blocks, sentences about the bridge and look-alike characters never fire.
func Parse(comment string) (Command, bool) {
	// Only what a text field adds by itself is trimmed: Unicode's other spaces are look-alikes.
	line := strings.Trim(comment, " \t\r\n")
	if len(line) > maxCommand {
		return Command{}, false
	}
	for _, c := range []byte(line) {
		if c < ' ' || c > '~' {
			return Command{}, false
		}
	}
	words := strings.Fields(line)
	if len(words) == 0 {
		return Command{}, false
	}
	c := Command{Args: words[1:]}
	// Unknown arguments are kept: the author is told about them, once it is clear that they may be.
	switch words[0] {
	case "!testme":
		if len(c.Args) == 1 && c.Args[0] == "?" {
			c = Command{Verb: Help}
		}
	case "!retest":
		c.Verb = Retest
	case "!cancel":
		c.Verb = Cancel
	default:
		return Command{}, false
	}
	return c, true
}

// Target is what a Run is about: which recipe, and which commit if the author named one. Whether the pull request has
// such a commit is not known yet.
type Target struct {
	Recipe string
	Prefix string // start of the commit's hash; empty for the head
}

// Git shows hashes with seven digits or more; a whole one has 40, or 64 in repositories that use SHA-256.
var (
	recipePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	prefixPattern = regexp.MustCompile(`^[0-9a-f]{7,64}$`)
	shaPattern    = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)
)

// ValidRecipe accepts names that are safe as a file's name and as a word: the pipeline gets it as RECIPE and may make a
// path or a command of it.
func ValidRecipe(name string) bool {
	return recipePattern.MatchString(name) && !strings.Contains(name, "..")
}

// target reads a Run's arguments: [recipe] [commit]. The recipe must be one of the repository's; without one it is
// the repository's only recipe, or the one with the repository's name. It reports false for anything else.
func (c Command) target(repo string, recipes []string) (Target, bool) {
	// A recipe whose name looks like a commit is taken for the recipe: the commit can be written longer.
	args := c.Args
	var t Target
	switch {
	case len(args) > 0 && slices.Contains(recipes, args[0]):
		t.Recipe, args = args[0], args[1:]
	case len(recipes) == 1:
		t.Recipe = recipes[0]
	case slices.Contains(recipes, strings.ToLower(repo)):
		t.Recipe = strings.ToLower(repo)
	default:
		return t, false
	}
	if len(args) > 0 && prefixPattern.MatchString(args[0]) {
		t.Prefix, args = args[0], args[1:]
	}
	return t, len(args) == 0 && ValidRecipe(t.Recipe)
}
