package logs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/drone/drone-go/drone"
)

// spoolMagic begins each segment; the number is the version of the format.
const spoolMagic = "cc-ci-log-1"

// listSpools names the steps that have a spool in a directory, by the server's ids and in their order; none
// where there is no directory.
func listSpools(dir string) ([]int64, error) {
	var steps []int64
	err := eachSegment(dir, func(step int64, _ int) {
		if !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
	})
	slices.Sort(steps)
	return steps, err
}

// segments numbers the segments that are there, in order.
func (p place) segments() ([]int, error) {
	var segments []int
	err := eachSegment(p.dir, func(step int64, segment int) {
		if step == p.step {
			segments = append(segments, segment)
		}
	})
	slices.Sort(segments)
	return segments, err
}

// eachSegment goes through the files that path named, in the directory's order, in which 10 comes before 2. Others in
// the directory are none of ours.
func eachSegment(dir string, found func(step int64, segment int)) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		name, isLog := strings.CutSuffix(entry.Name(), ".log")
		first, second, _ := strings.Cut(name, ".")
		step, stepErr := strconv.ParseInt(first, 10, 64)
		segment, segmentErr := strconv.Atoi(second)
		if isLog && stepErr == nil && segmentErr == nil {
			found(step, segment)
		}
	}
	return err
}

// segment is one file of a spool as it was read. A file without a header is one without lines and without a limit.
type segment struct {
	limit, before int64 // the log's limit; bytes of all lines before this segment
	lines         []drone.Line
}

// readSegment reads one file. Whatever is not a whole record is left out, because a crash tears the last one, and so is
// a segment whose header was not written yet: a log that could never be uploaded would be tried for ever.
func readSegment(name string) (*segment, error) {
	text, err := readText(name)
	if err != nil {
		return nil, err
	}
	header, text, _ := strings.Cut(text, "\n")
	seg := &segment{}
	if n, _ := fmt.Sscanf(header, spoolMagic+" %d %d", &seg.limit, &seg.before); n < 2 {
		return &segment{}, nil
	}
	seg.lines = make([]drone.Line, 0, strings.Count(text, "\n"))
	for record := range strings.Lines(text) {
		if line, ok := parseRecord(record); ok {
			seg.lines = append(seg.lines, line)
		}
	}
	return seg, nil
}

// readText reads a file into a string at once; by way of a slice it would be in memory twice.
func readText(name string) (_ string, err error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	var text strings.Builder
	text.Grow(int(info.Size()))
	_, err = io.Copy(&text, file)
	return text.String(), err
}

// parseRecord is the other half of spool.add. The message shares the memory of the record, so that a log is in memory
// once while it is uploaded. Where the line had an end, the record's own is that end.
func parseRecord(record string) (line drone.Line, ok bool) {
	if !strings.HasSuffix(record, "\n") {
		return line, false
	}
	pos, rest, _ := strings.Cut(record, " ")
	end := strings.IndexAny(rest, " +")
	if end < 0 {
		return line, false
	}
	var err, timeErr error
	line.Number, err = strconv.Atoi(pos)
	line.Timestamp, timeErr = strconv.ParseInt(rest[:end], 10, 64)
	line.Message = rest[end+1:]
	if rest[end] == '+' {
		line.Message = strings.TrimSuffix(line.Message, "\n")
	}
	return line, err == nil && timeErr == nil
}

// readSpool reads what a step's spool keeps: the head, a line that says what was cut, the tail.
func readSpool(from place) ([]*drone.Line, error) {
	numbers, err := from.segments()
	if err != nil {
		return nil, err
	}
	var lines []*drone.Line
	var tail []*segment
	for _, number := range numbers {
		seg, err := readSegment(from.path(number))
		if err != nil {
			return nil, err
		}
		switch {
		case number == 0:
			lines = pointers(seg.lines)
		case len(seg.lines) > 0:
			tail = append(tail, seg)
		}
	}
	if len(tail) == 0 {
		return lines, nil
	}
	return append(lines, withNotice(lines, tail)...), nil
}

// withNotice joins the tail's segments, drops what is beyond its share of the limit, and says what is missing
// between the head and the rest. The notice takes the number of the first line that is missing, so that all others
// keep the numbers under which they were shown live.
func withNotice(head []*drone.Line, tail []*segment) []*drone.Line {
	var lines []*drone.Line
	for _, seg := range tail {
		lines = append(lines, pointers(seg.lines)...)
	}
	limit := tail[0].limit
	// The segments hold up to twice the tail's share: which lines of the older one are kept is decided here, from the
	// end.
	room := limit - limit/headShare
	from := len(lines)
	for ; from > 0; from-- {
		if room -= int64(len(lines[from-1].Message) + lineCost); room < 0 {
			break
		}
	}
	// Of all text before the tail, what is in the head was kept.
	cut := tail[0].before - size(head) + size(lines[:from])
	next := 0
	if len(head) > 0 {
		next = head[len(head)-1].Number + 1
	}
	// Nothing is missing: the tail goes on where the head ends.
	if from == len(lines) || lines[from].Number == next {
		return lines[from:]
	}
	notice := &drone.Line{
		Number: next,
		Message: fmt.Sprintf("… %s in %s lines cut; DRONE_RUNNER_LOG_LIMIT=%d sets how much is kept\n",
			bytesText(cut), thousands(lines[from].Number-next), limit),
		Timestamp: lines[from].Timestamp,
	}
	return append([]*drone.Line{notice}, lines[from:]...)
}

// pointers is the form that the server's client takes.
func pointers(lines []drone.Line) []*drone.Line {
	out := make([]*drone.Line, len(lines))
	for i := range lines {
		out[i] = &lines[i]
	}
	return out
}

// size is the length of the text of lines.
func size(lines []*drone.Line) int64 {
	var n int64
	for _, line := range lines {
		n += int64(len(line.Message))
	}
	return n
}

// bytesText writes a size as people read it.
func bytesText(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// thousands writes a number that is not negative with commas: 1,234,567.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
