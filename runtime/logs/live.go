package logs

import (
	"fmt"

	"github.com/drone/drone-go/drone"
)

// What may wait for the next live flush. The server itself keeps the last 5000 lines of a live log (livelog/stream.go
// of Drone); the bytes are what a Log may hold in memory for this.
const (
	maxLiveLines = 5000
	maxLiveBytes = 512 << 10
)

// live holds the newest lines until they are sent. Its owner's lock guards it. They lie in two halves: where the
// second is full, the first is forgotten, so that a step that writes faster than the server takes it costs no memory
// and no time.
type live struct {
	halves  [2]liveHalf
	dropped int // lines that were forgotten since the last take
}

// liveHalf is some lines, their texts one after the other: two allocations for all of them, where a string for each
// line would be thousands a second.
type liveHalf struct {
	text  []byte
	lines []liveLine
}

type liveLine struct {
	pos     int
	seconds int64
	end     int // of its text
}

// add takes a line. It copies the text into memory that is used again, so that a flood makes no garbage.
func (l *live) add(pos int, seconds int64, text []byte, ended bool) {
	half := &l.halves[1]
	if len(half.lines) >= maxLiveLines/2 || len(half.text)+len(text) >= maxLiveBytes/2 {
		l.dropped += len(l.halves[0].lines)
		l.halves[0], l.halves[1] = l.halves[1], l.halves[0]
		half.text, half.lines = half.text[:0], half.lines[:0]
	}
	half.text = append(half.text, text...)
	if ended {
		half.text = append(half.text, '\n')
	}
	half.lines = append(half.lines, liveLine{pos, seconds, len(half.text)})
}

func (l *live) empty() bool { return len(l.halves[0].lines) == 0 && len(l.halves[1].lines) == 0 }

// take returns the lines in the server's form and forgets them. Where some were forgotten before, a line with the
// number of the last of those says so.
func (l *live) take() []*drone.Line {
	lines := make([]*drone.Line, 0, 1+len(l.halves[0].lines)+len(l.halves[1].lines))
	for i := range l.halves {
		half := &l.halves[i]
		text, start := string(half.text), 0
		for _, line := range half.lines {
			lines = append(lines, &drone.Line{Number: line.pos, Message: text[start:line.end], Timestamp: line.seconds})
			start = line.end
		}
		half.text, half.lines = half.text[:0], half.lines[:0]
	}
	if l.dropped > 0 {
		notice := &drone.Line{
			Number:    lines[0].Number - 1,
			Message:   fmt.Sprintf("… %s lines are not shown live\n", thousands(l.dropped)),
			Timestamp: lines[0].Timestamp,
		}
		lines = append([]*drone.Line{notice}, lines...)
		l.dropped = 0
	}
	return lines
}
