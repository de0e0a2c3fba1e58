package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

const (
	// lineCost is what a line counts against the limit beside its text: what it costs as JSON
	// (`{"pos":1,"out":"","time":1},` and more digits) and in memory. Without it, five million empty lines would fit
	// into any limit.
	lineCost = 40

	// spoolBuffer is how much is collected before it is written to disk. The flusher writes it every second too, so
	// it only counts for a step that writes faster than that.
	spoolBuffer = 64 << 10

	// headShare is the part of the limit that the beginning gets. The end gets the rest: it says why a step failed.
	headShare = 4
)

// spool keeps the first and the last lines of a log on disk while it grows without bound. Segment 0 is the head.
// The others follow each other; each holds as much as the tail may, and only the last two exist, so that at any time
// they hold the tail and no more than twice as much.
//
// A segment is text: a header, then a line each, so that a crash costs no more than the last one.
type spool struct {
	place
	limit int64

	file    *os.File // of the segment; nil once it is closed
	segment int
	kept    int64 // cost of the lines in this segment
	total   int64 // bytes of text of all lines so far, cut ones too
	buf     []byte
}

// place is where the spool of a step lies. The steps of a stage share a directory, and the server's ids tell them
// apart, so that Resume needs to know nothing but the directory.
type place struct {
	dir  string
	step int64
}

// newSpool creates the head segment, so that a log without a line is uploaded too after a crash. A spool of the same
// step that is already there is a mistake of the caller or a crash that was not resumed: it is not written over, unless
// the crash came before its first line.
func newSpool(at place, limit int64) (*spool, error) {
	if err := os.MkdirAll(at.dir, 0o700); err != nil {
		return nil, err
	}
	s := &spool{place: at, limit: limit, buf: make([]byte, 0, spoolBuffer+maxLine+64)}
	err := s.open()
	if errors.Is(err, fs.ErrExist) {
		if lines, fault := readSpool(at); fault != nil || len(lines) > 0 {
			return nil, errors.Join(err, fault)
		}
		if err = at.remove(); err == nil {
			err = s.open()
		}
	}
	return s, err
}

// path names a segment's file.
func (p place) path(segment int) string {
	return filepath.Join(p.dir, fmt.Sprintf("%d.%d.log", p.step, segment))
}

// open creates the segment's file. Its header says how much came before it, so that what was cut can be told from the
// files alone.
func (s *spool) open() (err error) {
	if s.file, err = os.OpenFile(s.path(s.segment), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	s.buf = fmt.Appendf(s.buf[:0], "%s %d %d\n", spoolMagic, s.limit, s.total)
	s.kept = 0
	return s.flush()
}

// share is how much of the limit a segment may hold.
func (s *spool) share() int64 {
	head := s.limit / headShare
	if s.segment == 0 {
		return head
	}
	return s.limit - head
}

// add appends a line: number, time, a blank (or a plus where the line goes on in the next), text.
func (s *spool) add(pos int, seconds int64, text []byte, ended bool) error {
	size, mark := int64(len(text)), byte('+')
	if ended {
		size, mark = size+1, ' '
	}
	if s.kept+size+lineCost > s.share() {
		if err := s.rotate(); err != nil {
			return err
		}
	}
	s.kept += size + lineCost
	s.total += size
	s.buf = append(strconv.AppendInt(s.buf, int64(pos), 10), ' ')
	s.buf = append(strconv.AppendInt(s.buf, seconds, 10), mark)
	s.buf = append(append(s.buf, text...), '\n')
	if len(s.buf) >= spoolBuffer {
		return s.flush()
	}
	return nil
}

// rotate begins the next segment, with the first line that no longer fits into this one, and removes the one that the
// tail no longer reaches. The new one is there before the old one goes, so that a crash in between leaves too much,
// never too little.
func (s *spool) rotate() error {
	if err := s.close(); err != nil {
		return err
	}
	s.segment++
	if err := s.open(); err != nil {
		return err
	}
	if s.segment < 3 {
		return nil
	}
	return os.Remove(s.path(s.segment - 2))
}

// flush hands what was collected to the kernel: from then on it outlives this process. It is not synced to the disk:
// after a power cut the build is lost anyway, and syncing would slow every step down.
func (s *spool) flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	_, err := s.file.Write(s.buf)
	s.buf = s.buf[:0]
	return err
}

// close ends the segment. Closing again does nothing.
func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	err := errors.Join(s.flush(), s.file.Close())
	s.file = nil
	return err
}

// there says whether the files still have their names, without which they cannot be read again: what is written to a file
// that somebody has removed is lost without an error.
func (s *spool) there() error {
	_, err := os.Stat(s.path(s.segment))
	return err
}

// remove removes all segments.
func (p place) remove() error {
	segments, err := p.segments()
	for _, segment := range segments {
		if gone := os.Remove(p.path(segment)); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}
