package client

import (
	"encoding/json"
	"io"

	"github.com/drone/drone-go/drone"
)

// linesChunk is about how much JSON of a log is in memory at a time.
const linesChunk = 64 << 10

// lineReader reads as the JSON array of the lines, encoding them while it is read: a whole log as one piece of JSON
// would take several times the log's size.
type lineReader struct {
	lines []*drone.Line
	next  int
	begun bool
	ended bool
	buf   []byte
	rest  []byte
}

// Read implements io.Reader.
func (r *lineReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.ended {
			return 0, io.EOF
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// fill encodes the next lines.
func (r *lineReader) fill() error {
	buf := r.buf[:0]
	if !r.begun {
		r.begun = true
		buf = append(buf, '[')
	}
	for r.next < len(r.lines) && len(buf) < linesChunk {
		if r.next > 0 {
			buf = append(buf, ',')
		}
		line, err := json.Marshal(r.lines[r.next])
		if err != nil {
			return err
		}
		buf = append(buf, line...)
		r.next++
	}
	if r.next == len(r.lines) {
		r.ended = true
		buf = append(buf, ']')
	}
	r.buf, r.rest = buf, buf
	return nil
}
