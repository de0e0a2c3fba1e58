package client

import (
	"bytes"
	"encoding/json"
	"io"

	"github.com/drone/drone-go/drone"
)

// linesChunk is about how much JSON of a log is in memory at a time.
const linesChunk = 64 << 10

// lineReader reads as the JSON array of the lines, encoding them while it is read: a whole log as one piece of JSON
// would take more memory than the log itself. The request has no Content-Length, so it goes out in chunks. An attempt
// that fails needs a new reader.
type lineReader struct {
	lines []*drone.Line
	next  int
	begun bool
	ended bool
	buf   bytes.Buffer // what is encoded and not yet read
}

// Read implements io.Reader.
func (r *lineReader) Read(p []byte) (int, error) {
	if r.buf.Len() == 0 {
		if r.ended {
			return 0, io.EOF
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	return r.buf.Read(p)
}

// fill encodes the next lines into the empty buffer.
func (r *lineReader) fill() error {
	r.buf.Reset()
	if !r.begun {
		r.begun = true
		r.buf.WriteByte('[')
	}
	encoder := json.NewEncoder(&r.buf)
	for r.next < len(r.lines) && r.buf.Len() < linesChunk {
		if r.next > 0 {
			r.buf.WriteByte(',')
		}
		if err := encoder.Encode(r.lines[r.next]); err != nil {
			return err
		}
		r.buf.Truncate(r.buf.Len() - 1) // the encoder ends each value with a newline
		r.next++
	}
	if r.next == len(r.lines) {
		r.ended = true
		r.buf.WriteByte(']')
	}
	return nil
}
