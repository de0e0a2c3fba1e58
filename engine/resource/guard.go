package resource

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// The limits of a file. Real pipelines stay far below each of them.
const (
	// MaxSize is the size of a file, before and after substitution.
	MaxSize = 1 << 20

	// MaxLine is the length of one line in bytes. (The old runner cut the file off, silently, at 64 KiB.)
	MaxLine = 256 << 10

	// MaxNodes counts the values of one file with every alias written out, so that a few lines of aliases to aliases
	// do not become a million steps.
	MaxNodes = 100_000

	// MaxDepth is how deep values nest; an alias to a value around itself ends here too.
	MaxDepth = 64
)

// Error is a reason to refuse a whole file.
type Error struct {
	Pos     Pos
	Rule    string
	Message string
}

// Error returns the message with its place.
func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Pos.Line, e.Pos.Column, e.Message)
}

// Guard refuses a file that is not worth parsing: too large, a line too long, bytes that no YAML has. The error is an
// *Error. Parse calls it; who reads the text before that calls it as well.
func Guard(data []byte) error {
	if len(data) > MaxSize {
		return &Error{Pos{1, 1}, "size", fmt.Sprintf("the file has %d bytes, more than %d", len(data), MaxSize)}
	}
	if !utf8.Valid(data) {
		return invalidText(data)
	}
	line := 1
	for text := range bytes.Lines(data) {
		if len(text) > MaxLine {
			return &Error{Pos{line, 1}, "line-length",
				fmt.Sprintf("the line has %d bytes, more than %d: split it", len(text), MaxLine)}
		}
		// A zero byte would end the substitution of variables early and drop the rest of the file.
		if at := bytes.IndexByte(text, 0); at >= 0 {
			return &Error{Pos{line, at + 1}, "syntax", "the line holds a zero byte"}
		}
		line++
	}
	return nil
}

// invalidText finds the line that is no text. YAML in UTF-16 ends here too: substitution would not understand it.
func invalidText(data []byte) error {
	line := 1
	for text := range bytes.Lines(data) {
		if !utf8.Valid(text) {
			return &Error{Pos{line, 1}, "syntax", "the line is not UTF-8 text"}
		}
		line++
	}
	return &Error{Pos{1, 1}, "syntax", "the file is not UTF-8 text"}
}

// budget counts values while it follows aliases, and stops at the limits. It is spent before anything else looks at
// the nodes, so that whatever walks them later, following aliases as it likes, takes at most as many steps.
type budget struct {
	nodes int
}

// spend walks a node and everything below it.
func (b *budget) spend(n *yaml.Node, depth int) error {
	if b.nodes++; b.nodes > MaxNodes {
		return &Error{posOf(n), "alias", fmt.Sprintf("the file holds more than %d values once aliases are written out", MaxNodes)}
	}
	if depth > MaxDepth {
		return &Error{posOf(n), "depth", fmt.Sprintf("values nest deeper than %d levels, or an alias contains itself", MaxDepth)}
	}
	if n.Kind == yaml.AliasNode {
		return b.spend(n.Alias, depth+1)
	}
	for _, child := range n.Content {
		if err := b.spend(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func posOf(n *yaml.Node) Pos { return Pos{n.Line, n.Column} }
