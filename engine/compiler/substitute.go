package compiler

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/drone/envsubst"
	"github.com/drone/envsubst/parse"
	"github.com/drone/runner-go/environ"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
)

// substitutions are the variables of `${NAME}` in the file, later ones over earlier ones. Parameters come last, as on the
// old runner: unlike in the steps' environments, one with the name of the build's own variable replaces it here.
func substitutions(in Input) map[string]string {
	parameters, _ := legalParameters(in.Build.Params)
	return environ.Combine(
		in.Options.Environ,
		environ.System(in.System),
		environ.Repo(in.Repo),
		environ.Build(in.Build),
		environ.Stage(in.Stage),
		environ.Link(in.Repo, in.Build, in.System),
		parameters,
	)
}

// The limits of substitution. The library copies the rest of the file for each escape, recurses for each expression,
// compares a pattern with every part of a value, and its operators multiply lengths.
const (
	maxExpressions = 10_000
	maxEscapeWork  = 1 << 30
	maxText        = 64 << 20
	maxCompare     = 1 << 30
)

// substitute replaces ${NAME} and its operators in the whole file, as the old runner did: `$NAME` is left to the shell,
// `$${NAME}` becomes `${NAME}`, and an unknown name is empty. The library also makes `$` of each `$$`, `\` of `\\` and
// `/` of `\/`, anywhere in the file; pipelines are written with that in mind.
//
// Kept from the old runner: a value is spliced into the YAML as it is, so that `name: ${X}` and `- run ${X}` mean what
// they always meant; whoever writes ${DRONE_COMMIT_MESSAGE} into a command lets the committer write the command, and
// should write $DRONE_COMMIT_MESSAGE. A value that spans lines becomes one quoted YAML string, so that no value adds
// keys or steps; the old runner did this for \n, here every character that YAML reads as a line end, and every other
// control character, counts. Parameters with refused names are not substituted either.
func substitute(text string, vars map[string]string) (string, error) {
	if n := strings.Count(text, "${"); n > maxExpressions {
		return "", refuse(resource.Pos{Line: 1, Column: 1}, "the file holds %d expressions ${...}, more than %d", n, maxExpressions)
	}
	escapes := strings.Count(text, "$$") + strings.Count(text, `\\`) + strings.Count(text, `\/`)
	if escapes*len(text) > maxEscapeWork {
		return "", refuse(resource.Pos{Line: 1, Column: 1}, "the file holds too many escapes ($$, \\\\, \\/) for its size")
	}
	value := func(name string) string { return quoteLines(vars[name]) }
	out, err := evaluate(text, value)
	if err != nil {
		return "", refuse(blame(text, err, value), "the expression ${...} %s ($${...} leaves it to the shell)", err)
	}
	return out, nil
}

func refuse(at resource.Pos, format string, args ...any) error {
	return &resource.Error{Pos: at, Rule: "substitution", Message: fmt.Sprintf(format, args...)}
}

var (
	errTooMuch  = errors.New("takes too long or makes too much text")
	errNegative = errors.New("has a length below zero")
)

// evaluate substitutes once the cost is known to be bounded. The library takes no context, so it must not be begun if it
// could take long.
func evaluate(text string, value func(string) string) (out string, err error) {
	tree, err := parse.Parse(text)
	if err != nil {
		return "", fmt.Errorf("is malformed: %w", err)
	}
	work := cost{value: value}
	work.node(tree.Root)
	if work.text > maxText || work.compare > maxCompare {
		return "", errTooMuch
	}
	// The library indexes with what ${NAME:0:-1} says, and panics.
	defer func() {
		if recover() != nil {
			out, err = "", errNegative
		}
	}()
	return envsubst.Eval(text, value)
}

// blame finds the first line that fails on its own. An expression that spans lines is blamed on the first line.
func blame(text string, why error, value func(string) string) resource.Pos {
	fails := func(line string) bool {
		_, err := parse.Parse(line)
		return err != nil
	}
	switch {
	case errors.Is(why, errTooMuch):
		return resource.Pos{Line: 1, Column: 1}
	case errors.Is(why, errNegative):
		// The whole file was cheap enough to evaluate, so all of its lines are.
		fails = func(line string) bool {
			_, err := evaluate(line, value)
			return err != nil
		}
	}
	number := 1
	for line := range strings.Lines(text) {
		if at := strings.Index(line, "${"); at >= 0 && fails(line) {
			return resource.Pos{Line: number, Column: at + 1}
		}
		number++
	}
	return resource.Pos{Line: 1, Column: 1}
}

// quoteLines makes one YAML string of a value that would otherwise end the line it is put into: the library splices
// values in as they are.
func quoteLines(value string) string {
	if strings.ContainsFunc(value, endsLine) {
		return strconv.Quote(value)
	}
	return value
}

// endsLine reports what YAML 1.1 or 1.2 reads as the end of a line, and all other control characters but the tab.
func endsLine(r rune) bool {
	return r < ' ' && r != '\t' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029
}

// cost is the most that evaluating expressions can take: bytes made, and steps of comparing patterns.
type cost struct {
	value         func(string) string
	text, compare int
}

// node adds a node's cost and returns the greatest length of what it becomes, capped so that nothing overflows.
func (c *cost) node(n parse.Node) int {
	if c.text > maxText || c.compare > maxCompare {
		return 0
	}
	length := 0
	switch n := n.(type) {
	case *parse.TextNode:
		length = len(n.Value)
	case *parse.ListNode:
		for _, child := range n.Nodes {
			length = min(length+c.node(child), maxText+1)
		}
		return length
	case *parse.FuncNode:
		length = c.function(n)
	}
	c.text = min(c.text+length, maxText+1)
	return length
}

// function estimates one ${NAME...}. Where operators differ, the estimate is the high one.
func (c *cost) function(n *parse.FuncNode) int {
	length := min(len(c.value(n.Param)), maxText)
	args := 0
	for _, arg := range n.Args {
		args = min(args+c.node(arg), maxText)
	}
	switch {
	case strings.HasPrefix(n.Name, "//"):
		// Each byte may become the replacement, which also stands between all of them if the pattern is empty.
		return min((length+1)*(args+1), maxText+1)
	case strings.HasPrefix(n.Name, "#"), strings.HasPrefix(n.Name, "%"):
		// The pattern is compared with every part of the value. Each factor is at most maxText: no overflow below.
		c.compare = min(c.compare+min(length*length, maxCompare)*(args+1), maxCompare+1)
	}
	return min(length+args, maxText+1)
}
