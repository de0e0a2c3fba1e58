package resource

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decoder reads nodes into fields and keeps what it could not use.
//
// It works on nodes rather than on structs because a struct has forgotten where a value stood, and because decoding
// into pointers is what made nulls dangerous: here a null is a case of its own, seen before any setter is called.
type decoder struct {
	faults  []Fault
	unknown []Key
}

// setter stores one value. Setters see resolved aliases, and never a null unless they ask for it.
type setter func(*yaml.Node)

// fields are the known keys of a section; nil for a key that is known and only the server reads. They are also what a
// misspelt key is compared with, so a key belongs here even if nothing comes of it.
type fields map[string]setter

// section is a mapping with known keys.
type section struct {
	name   Section
	fields fields
}

func (d *decoder) fault(kind FaultKind, n *yaml.Node, format string, args ...any) {
	d.faults = append(d.faults, Fault{kind, posOf(n), fmt.Sprintf(format, args...)})
}

// mapping hands each value of n to the setter of its key. A known key with a null means the same as no such key, which
// is what people mean who leave a key there and take its value away.
func (d *decoder) mapping(n *yaml.Node, s section) {
	for _, pair := range d.pairs(n) {
		key := pair.key.Value
		// Unknown keys are kept, not refused: whether they matter is the linter's decision.
		set, known := s.fields[key]
		if !known {
			d.unknown = append(d.unknown, Key{s.name, key, posOf(pair.key), similar(key, s.fields)})
			continue
		}
		if set != nil && !isNull(pair.value) {
			set(pair.value)
		}
	}
}

// pair is one entry of a mapping.
type pair struct {
	key, value *yaml.Node
}

// pairs lists the entries of a mapping, merge keys applied: an entry of the mapping itself beats a merged one, the
// earlier merged one the later. Of two entries with one key the last counts, as in the old runner.
func (d *decoder) pairs(n *yaml.Node) []pair {
	n = follow(n)
	if n.Kind != yaml.MappingNode {
		if !isNull(n) {
			d.fault(FaultType, n, "expected a mapping (`key: value`), found %s", kindName(n))
		}
		return nil
	}
	var list []pair
	at := map[string]int{}
	// Merges wait until all own keys are known, wherever in the mapping they stand.
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := follow(n.Content[i]), follow(n.Content[i+1])
		if key.Kind != yaml.ScalarNode {
			d.fault(FaultType, key, "a key must be plain text, found %s", kindName(key))
			continue
		}
		if key.ShortTag() == "!!merge" {
			merges = append(merges, value)
			continue
		}
		if before, twice := at[key.Value]; twice {
			d.fault(FaultDuplicate, key, "the key `%s` is given twice, the last one counts", key.Value)
			list[before].value = value
			continue
		}
		at[key.Value] = len(list)
		list = append(list, pair{key, value})
	}
	for _, m := range merges {
		for _, p := range d.merged(m) {
			if _, own := at[p.key.Value]; !own {
				at[p.key.Value] = len(list)
				list = append(list, p)
			}
		}
	}
	return list
}

// merged lists what a merge key brings in: a mapping, or a list of mappings.
func (d *decoder) merged(n *yaml.Node) []pair {
	if n.Kind != yaml.SequenceNode {
		return d.pairs(n)
	}
	var list []pair
	for _, item := range n.Content {
		list = append(list, d.pairs(item)...)
	}
	return list
}

// sub reads a mapping inside a mapping. Like all that return a setter it is called while the sections are written down, and
// reads when a value comes by.
func (d *decoder) sub(s section) setter {
	return func(n *yaml.Node) { d.mapping(n, s) }
}

// text stores a scalar without its place; anything else is left out, for documents that are not checked.
func text(to *string) setter {
	return func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode {
			*to = n.Value
		}
	}
}

// str stores a scalar of any type as it is written: `1.10` stays `1.10`, `yes` stays `yes`.
func (d *decoder) str(to *String) setter {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode {
			hint := ""
			if n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle == 0 {
				hint = ": put text that holds a colon and a blank into quotes"
			}
			d.fault(FaultType, n, "expected text, found %s%s", kindName(n), hint)
			return
		}
		*to = String{n.Value, posOf(n)}
	}
}

// strs stores a list of scalars. A lone scalar is refused, as before: `commands: make` would else mean one thing here
// and another on a runner that reads each letter or nothing.
func (d *decoder) strs(to *[]String) setter {
	return func(n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			d.fault(FaultType, n, "expected a list (`- item`), found %s", kindName(n))
			return
		}
		*to = d.items(n)
	}
}

func (d *decoder) items(n *yaml.Node) []String {
	var list []String
	for _, item := range n.Content {
		item = follow(item)
		if isNull(item) {
			d.fault(FaultNull, item, "the list has an empty item: remove it, or write \"\"")
			continue
		}
		var s String
		d.str(&s)(item)
		// Without a place it was no scalar, and str has said so.
		if s.Pos.Line > 0 {
			list = append(list, s)
		}
	}
	return list
}

// flag stores a boolean in any of YAML 1.1's spellings, as the old runner did.
func (d *decoder) flag(to *bool) setter {
	return func(n *yaml.Node) {
		if isExpression(n) {
			return
		}
		value := ""
		if n.Kind == yaml.ScalarNode {
			value = strings.ToLower(n.Value)
		}
		switch value {
		case "true", "yes", "on", "y":
			*to = true
		case "false", "no", "off", "n":
			*to = false
		default:
			d.fault(FaultType, n, "expected true or false, found %s", describe(n))
		}
	}
}

// number stores a whole number, in digits only: 0x10 and 1e3 are more likely mistakes.
func (d *decoder) number(to *Int) setter {
	return func(n *yaml.Node) {
		if isExpression(n) {
			return
		}
		value, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			d.fault(FaultType, n, "expected a whole number, found %s", describe(n))
			return
		}
		*to = Int{value, posOf(n)}
	}
}

// isExpression reports whether a value is known only to a build: a file that is checked as it is written still has its
// ${NAME}, or the linter's $(NAME) for it.
func isExpression(n *yaml.Node) bool {
	return strings.Contains(n.Value, "${") || strings.Contains(n.Value, "$(")
}

// follow resolves aliases. The budget was spent on them before, so a chain of them ends.
func follow(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// isNull covers a written null (`~`, `null`, nothing), an empty document, and a node that was never filled.
func isNull(n *yaml.Node) bool {
	return n.Kind == 0 || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" ||
		n.Kind == yaml.DocumentNode && len(n.Content) == 0
}

// kindName names a node's kind in the words of a person.
func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if isNull(n) {
		return "nothing"
	}
	return "text"
}

// describe quotes a scalar, shortened, and names anything else. The quotes keep control characters out of a log.
func describe(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		return kindName(n)
	}
	value := []rune(n.Value)
	if len(value) > 40 {
		value = append(value[:40], '…')
	}
	return strconv.Quote(string(value))
}
