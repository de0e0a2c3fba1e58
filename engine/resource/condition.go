package resource

import (
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"go.yaml.in/yaml/v3"
)

// Conditions is a section `when` (or `trigger`, which the server evaluates).
type Conditions struct {
	Action   Condition
	Branch   Condition
	Cron     Condition
	Event    Condition
	Instance Condition
	Paths    Condition
	Ref      Condition
	Repo     Condition
	Status   Condition
	Target   Condition
}

// Condition is one matcher: a string, a list, or {include, exclude}. Its strings are globs (doublestar), with braces.
type Condition struct {
	Include []String
	Exclude []String
}

// Match is what conditions are compared with.
type Match struct {
	Action, Branch, Cron, Event, Instance, Ref, Repo, Target string
}

// Limits of patterns: the cost of matching grows with the number of ways to read the braces, which multiply.
const (
	// MaxPattern is the length of one pattern in bytes.
	MaxPattern = 1024

	// MaxAlternatives is in how many ways one pattern's braces can be read: {a,b}{c,d} in four.
	MaxAlternatives = 64

	// MaxPatternWork bounds the length of all patterns of a pipeline, each times its alternatives. The linter holds it.
	MaxPatternWork = 256 << 10
)

// Match reports whether every condition holds. Paths are never compared: this runner does not know what changed. Status is
// not either: it depends on how the other steps end.
func (c *Conditions) Match(m Match) bool {
	return c.Action.Match(m.Action) &&
		c.Branch.Match(m.Branch) &&
		c.Cron.Match(m.Cron) &&
		c.Event.Match(m.Event) &&
		c.Instance.Match(m.Instance) &&
		c.Ref.Match(m.Ref) &&
		c.Repo.Match(m.Repo) &&
		c.Target.Match(m.Target)
}

// Match reports whether the value is let through: exclude wins, and without include everything else is let through.
func (c *Condition) Match(value string) bool {
	if anyMatch(c.Exclude, value) {
		return false
	}
	return len(c.Include) == 0 || anyMatch(c.Include, value)
}

// Empty reports whether the condition was not given.
func (c *Condition) Empty() bool { return len(c.Include) == 0 && len(c.Exclude) == 0 }

// anyMatch reports whether one of the patterns matches, in a time that the limits bound.
func anyMatch(patterns []String, value string) bool {
	for _, p := range patterns {
		// A pattern beyond the limits matches nothing; the linter has refused it by then. A malformed one neither.
		if PatternAlternatives(p.Value) > MaxAlternatives || len(p.Value) > MaxPattern {
			continue
		}
		pattern := p.Value
		// As on the old runner release/** means what is below release, and not release itself.
		if strings.HasSuffix(pattern, "/**") {
			pattern += "/*"
		}
		if ok, err := doublestar.Match(pattern, value); ok && err == nil {
			return true
		}
	}
	return false
}

// PatternAlternatives counts in how many ways the braces of a pattern can be read, at most: nested braces count as if
// they stood side by side. It stops counting beyond MaxAlternatives.
func PatternAlternatives(pattern string) int {
	total := 1
	// One counter for each brace that is open, innermost last.
	var open []int
	closeOne := func() {
		total *= open[len(open)-1]
		open = open[:len(open)-1]
	}
	for i := 0; i < len(pattern) && total <= MaxAlternatives; i++ {
		switch pattern[i] {
		case '\\':
			i++
		case '{':
			open = append(open, 1)
		case ',':
			if len(open) > 0 {
				open[len(open)-1]++
			}
		case '}':
			if len(open) > 0 {
				closeOne()
			}
		}
	}
	// Braces that are never closed are malformed, but a matcher may still try them.
	for len(open) > 0 && total <= MaxAlternatives {
		closeOne()
	}
	return total
}

// Named are the conditions with their keys, in the order of the alphabet.
func (c *Conditions) Named() []NamedCondition {
	return []NamedCondition{
		{"action", &c.Action}, {"branch", &c.Branch}, {"cron", &c.Cron}, {"event", &c.Event},
		{"instance", &c.Instance}, {"paths", &c.Paths}, {"ref", &c.Ref}, {"repo", &c.Repo},
		{"status", &c.Status}, {"target", &c.Target},
	}
}

// NamedCondition is a condition and its key.
type NamedCondition struct {
	Name      string
	Condition *Condition
}

// conditions reads a section `when` or `trigger`.
func (d *decoder) conditions(name Section, to *Conditions) setter {
	s := section{name: name, fields: fields{}}
	for _, c := range to.Named() {
		s.fields[c.Name] = d.condition(c.Condition)
	}
	return d.sub(s)
}

// condition reads one matcher in any of its three forms.
func (d *decoder) condition(to *Condition) setter {
	return func(n *yaml.Node) {
		switch n.Kind {
		case yaml.MappingNode:
			d.mapping(n, section{name: InCondition, fields: fields{
				"include": d.oneOrMore(&to.Include),
				"exclude": d.oneOrMore(&to.Exclude),
			}})
		default:
			d.oneOrMore(&to.Include)(n)
		}
	}
}

// oneOrMore stores a scalar or a list of scalars.
func (d *decoder) oneOrMore(to *[]String) setter {
	return func(n *yaml.Node) {
		if n.Kind == yaml.SequenceNode {
			*to = d.items(n)
			return
		}
		var s String
		if d.str(&s)(n); s.Pos.Line > 0 {
			*to = []String{s}
		}
	}
}
