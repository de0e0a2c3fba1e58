package resource

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parse reads a file. The error is always an *Error: no part of the file can be used then. It takes time and memory in
// proportion to the limits of Guard, so no context. An empty file is a Manifest without documents.
func Parse(data []byte) (*Manifest, error) {
	if err := Guard(data); err != nil {
		return nil, err
	}
	m := new(Manifest)
	var spent budget
	// The decoder splits documents as YAML does; a line of a script that happens to start with dashes splits nothing.
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err != nil {
			return nil, syntaxError(err, data)
		}
		if err := spent.spend(&doc, 0); err != nil {
			return nil, err
		}
		m.add(&doc)
	}
}

// syntaxError turns the library's `yaml: line 3: text` into a place and a text.
func syntaxError(err error, data []byte) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if found := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(text); found != nil {
		text = strings.TrimPrefix(text, found[0])
		// The expression has matched digits only; a number too large for an int leaves the first line.
		if n, err := strconv.Atoi(found[1]); err == nil {
			line = n
		}
	}
	if strings.Contains(text, "a tab character") {
		line = tabAfter(line, data)
	}
	return &Error{Pos{line, 1}, "syntax", text}
}

// tabAfter is the first line from a given one that begins with a tab: the library names the line before it.
func tabAfter(from int, data []byte) int {
	number := 0
	for line := range bytes.Lines(data) {
		number++
		if indent := len(line) - len(bytes.TrimLeft(line, " \t")); number >= from && bytes.ContainsRune(line[:indent], '\t') {
			return number
		}
	}
	return from
}

// add sorts one document into the manifest.
func (m *Manifest) add(doc *yaml.Node) {
	root := doc
	if doc.Kind == yaml.DocumentNode && len(doc.Content) > 0 {
		root = doc.Content[0]
	}
	root = follow(root)
	if isNull(root) {
		return
	}
	// The faults of this first look are dropped: the second one finds those of our documents again, and other documents
	// are none of our business.
	head := new(decoder)
	other := &Other{Pos: posOf(root)}
	head.mapping(root, section{name: "", fields: fields{
		"kind": text(&other.Kind),
		"type": text(&other.Type),
		"name": text(&other.Name),
	}})
	switch {
	case root.Kind != yaml.MappingNode:
		m.Faults = append(m.Faults, Fault{FaultType, posOf(root), "a document must be a mapping with `kind`, `type` and `name`"})
	case other.Kind == "pipeline" && other.Type == "exec":
		m.Pipelines = append(m.Pipelines, parsePipeline(root))
	case other.Kind == "secret":
		m.Secrets = append(m.Secrets, m.parseSecret(root))
	default:
		m.Others = append(m.Others, other)
	}
}

// parseSecret reads a `kind: secret`. Its `get.key` is known to the server's documentation and used by nobody.
func (m *Manifest) parseSecret(root *yaml.Node) *Secret {
	s := &Secret{Pos: posOf(root)}
	d := new(decoder)
	d.mapping(root, section{name: InSecret, fields: fields{
		"version": nil, "kind": nil, "type": nil,
		"name": d.str(&s.Name),
		"data": text(&s.Data),
		"get": d.sub(section{name: InGet, fields: fields{
			"path": text(&s.GetPath),
			"name": text(&s.GetName),
			"key":  nil,
		}}),
	}})
	m.Faults = append(m.Faults, d.faults...)
	s.Unknown = d.unknown
	return s
}
