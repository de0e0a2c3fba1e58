package compiler

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/drone/envsubst"
	"github.com/drone/envsubst/parse"
	"github.com/drone/runner-go/environ"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
)

// substitutions are the variables of `${NAME}` in the file, later ones over earlier ones.
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

// The limits of substitution. The library re-reads the whole rest of the file for each escape and recurses for each
// expression; its operators can multiply lengths.
const (
	maxExpressions = 10_000
	maxEscapeWork  = 1 << 30
	maxSubstWork   = 64 << 20
)

// substitute replaces ${NAME} and its operators in the whole file, as the old runner did: `$NAME` and `$${NAME}` are
// left to the shell, an unknown name is empty.
//
// Kept from the old runner: a value is spliced into the YAML as it is, so that `name: ${X}` and `- run ${X}` mean what
// they always meant; whoever writes ${DRONE_COMMIT_MESSAGE} into a command lets the committer write the command, and
// should write $DRONE_COMMIT_MESSAGE. A value that spans lines becomes one quoted YAML string, so that no value adds
// keys or steps; the old runner did this for \n, here every character that YAML reads as a line end, and every other
// control character, counts. Parameters with refused names are not substituted either.
func substitute(text string, vars map[string]string) (out string, err error) {
	if strings.Count(text, "${") > maxExpressions {
		return "", refuse("substitution", "the file holds more than %d expressions ${...}", maxExpressions)
	}
	escapes := strings.Count(text, "$$") + strings.Count(text, `\\`) + strings.Count(text, `\/`)
	if escapes*len(text) > maxEscapeWork {
		return "", refuse("substitution", "the file holds too many escapes ($$, \\\\, \\/) for its size")
	}
	value := func(name string) string { return quoteLines(vars[name]) }
	tree, err := parse.Parse(text)
	if err != nil {
		return "", refuse("substitution", "an expression ${...} cannot be read: %s", err)
	}
	work := cost{value: value}
	work.node(tree.Root)
	if work.total > maxSubstWork {
		return "", refuse("substitution", "the expressions ${...} would make the file too large")
	}
	// The library indexes with what ${NAME:0:-1} says and panics.
	defer func() {
		if recover() != nil {
			out, err = "", refuse("substitution", "an expression ${NAME:offset:length} has a length below zero")
		}
	}()
	out, err = envsubst.Eval(text, value)
	if err != nil {
		return "", refuse("substitution", "an expression ${...} cannot be evaluated: %s", err)
	}
	return out, nil
}

func refuse(rule, format string, args ...any) error {
	return &resource.Error{Pos: resource.Pos{Line: 1, Column: 1}, Rule: rule, Message: fmt.Sprintf(format, args...)}
}

// quoteLines makes one YAML string of a value that would otherwise end the line it is put into.
func quoteLines(value string) string {
	if strings.ContainsFunc(value, endsLine) {
		return strconv.Quote(value)
	}
	return value
}

func endsLine(r rune) bool {
	return r < ' ' && r != '\t' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029
}

// cost is the most that evaluating an expression can take: bytes made, and steps of comparing patterns.
type cost struct {
	value func(string) string
	total int
}

// node adds a node's cost and returns the greatest length of what it becomes.
func (c *cost) node(n parse.Node) int {
	if c.total > maxSubstWork {
		return 0
	}
	length := 0
	switch n := n.(type) {
	case *parse.TextNode:
		length = len(n.Value)
	case *parse.ListNode:
		for _, child := range n.Nodes {
			length += c.node(child)
		}
		return length
	case *parse.FuncNode:
		length = c.function(n)
	}
	c.total = min(c.total+length, 2*maxSubstWork)
	return length
}

func (c *cost) function(n *parse.FuncNode) int {
	length := len(c.value(n.Param))
	args := 0
	for _, arg := range n.Args {
		args += c.node(arg)
	}
	length = min(length, maxSubstWork)
	args = min(args, maxSubstWork)
	switch {
	case strings.HasPrefix(n.Name, "//"):
		// Each byte may become the replacement, which also stands between all of them if the pattern is empty.
		return min((length+1)*(args+1), 2*maxSubstWork)
	case strings.HasPrefix(n.Name, "#"), strings.HasPrefix(n.Name, "%"):
		// The pattern is compared with every beginning of the value.
		c.total += min(length*length*(args+1), 2*maxSubstWork)
	}
	return length + args
}
