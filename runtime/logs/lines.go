package logs

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"
)

// maxLine is the length in bytes at which a line without an end is cut, so that neither memory nor a request grows
// with it. It is cut after the masking, so no secret is parted.
const maxLine = 16 << 10

// splitter cuts a stream into lines and hands each to line: the text without its end, and whether it had one.
// Only "\n" ends a line. A "\r" before it is dropped; elsewhere (progress bars) it stays part of the text. Bytes that
// are not UTF-8 become U+FFFD, because JSON cannot carry them.
type splitter struct {
	part []byte // a line that has not ended yet
	line func(text []byte, ended bool)
}

// Write never fails.
func (s *splitter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			s.part = s.cut(append(s.part, rest...))
			break
		}
		text := rest[:end]
		if len(s.part) > 0 { // else the text is handed on where it lies, without a copy
			s.part = append(s.part, text...)
			text = s.part
		}
		s.emit(bytes.TrimRight(s.cut(text), "\r"), true)
		s.part = s.part[:0]
		rest = rest[end+1:]
	}
	return len(p), nil
}

// flush hands on a line that has not ended.
func (s *splitter) flush() {
	if len(s.part) > 0 {
		s.emit(s.part, false)
		s.part = s.part[:0]
	}
}

// cut hands on pieces of a line while it is too long, and returns the rest. It never parts the bytes of a character:
// four steps back there is the beginning of one, or the text is no UTF-8.
func (s *splitter) cut(text []byte) []byte {
	cutAny := false
	rest := text
	for len(rest) > maxLine {
		end := maxLine
		for end > maxLine-utf8.UTFMax && !utf8.RuneStart(rest[end]) {
			end--
		}
		s.emit(rest[:end], false)
		rest, cutAny = rest[end:], true
	}
	if cutAny {
		rest = text[:copy(text, rest)]
	}
	return rest
}

// emit hands on a line as valid UTF-8. The text is only valid until line returns.
func (s *splitter) emit(text []byte, ended bool) {
	if !utf8.Valid(text) {
		text = bytes.ToValidUTF8(text, []byte(string(utf8.RuneError)))
	}
	s.line(text, ended)
}

// writeNote masks a text of the runner's own and hands on its lines.
func writeNote(m *Masker, line func(text []byte, ended bool), text string) {
	note := splitter{line: line}
	_, _ = io.WriteString(&note, m.Mask(strings.TrimSuffix(text, "\n"))+"\n") // a splitter never fails
}
