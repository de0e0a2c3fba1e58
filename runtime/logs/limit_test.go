package logs

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/drone/drone-go/drone"
)

var noticePattern = regexp.MustCompile(`^… (\d+\.\d [KM]iB) in ([\d,]+) lines cut; DRONE_RUNNER_LOG_LIMIT=\d+ sets how much is kept\n$`)

// checkCut checks that lines are the first and the last of total, in order, with one notice between them whose number
// is that of the first line that is missing. It returns what the notice says.
func checkCut(t testing.TB, lines []*drone.Line, total int) []string {
	t.Helper()
	var said []string
	next := 0
	for _, line := range lines {
		if match := noticePattern.FindStringSubmatch(line.Message); match != nil {
			said = append(said, match[1], match[2])
			if line.Number != next {
				t.Fatalf("the notice has number %d, want %d", line.Number, next)
			}
			next = -1
			continue
		}
		if next >= 0 && line.Number != next {
			t.Fatalf("line %d follows %d without a notice", line.Number, next-1)
		}
		if first, _, _ := strings.Cut(line.Message, " "); first != fmt.Sprint(line.Number) {
			t.Fatalf("line %d is %q", line.Number, line.Message)
		}
		next = line.Number + 1
	}
	if next != total {
		t.Fatalf("the last line is %d of %d", next-1, total)
	}
	return said
}

// cost is what lines count against the limit.
func cost(lines []*drone.Line) int {
	n := 0
	for _, line := range lines {
		n += len(line.Message) + lineCost
	}
	return n
}

// TestLimitKeepsHeadAndTail at sizes around the limit: nothing is cut that fits, and what is cut is said.
func TestLimitKeepsHeadAndTail(t *testing.T) {
	t.Parallel()
	const length, limit = 100, 256 << 10
	perLine := length + lineCost
	for _, lines := range []int{0, 1, limit/perLine/4 - 1, limit / perLine / 4, limit/perLine - 1, limit/perLine + 1, 3 * limit / perLine, 40 * limit / perLine} {
		k := &keeper{}
		l := open(t, Config{Sink: k, Limit: limit})
		for i := range lines {
			write(t, l, fmt.Sprintf("%-99d\n", i))
		}
		closeLog(t, l)
		said := checkCut(t, k.lines, lines)
		if fits := lines < limit/perLine; fits != (said == nil) {
			t.Errorf("%d lines: notice %v", lines, said)
		}
		if got := cost(k.lines); got > limit+300 || said != nil && got < limit-3*perLine {
			t.Errorf("%d lines: %d bytes kept of a limit of %d", lines, got, limit)
		}
		if said != nil {
			cut := lines - (len(k.lines) - 1)
			if want := []string{bytesText(int64(cut * length)), thousands(cut)}; fmt.Sprint(said) != fmt.Sprint(want) {
				t.Errorf("%d lines: the notice says %v, want %v", lines, said, want)
			}
		}
	}
}

// TestOneByteLinesStayBounded: 5.2 million one-byte lines fitted into the old limit and cost 240 MiB.
func TestOneByteLinesStayBounded(t *testing.T) {
	t.Parallel()
	k := &keeper{}
	l := open(t, Config{Sink: k})
	block := strings.Repeat("x\n", 100_000)
	for range 52 {
		write(t, l, block)
	}
	closeLog(t, l)
	if got := cost(k.lines); got > DefaultLimit+1000 || got < DefaultLimit*9/10 {
		t.Errorf("%d bytes kept in %d lines", got, len(k.lines))
	}
	if last := k.lines[len(k.lines)-1].Number; last != 5_200_000-1 {
		t.Errorf("the last line is %d", last)
	}
}

// TestWriteLargerThanLimit in one call, which used to panic.
func TestWriteLargerThanLimit(t *testing.T) {
	t.Parallel()
	k := &keeper{}
	l := open(t, Config{Sink: k})
	var all strings.Builder
	lines := 0
	for ; all.Len() < 2*DefaultLimit; lines++ {
		fmt.Fprintf(&all, "%d of many\n", lines)
	}
	write(t, l, all.String())
	closeLog(t, l)
	if checkCut(t, k.lines, lines) == nil {
		t.Error("nothing was cut")
	}
}

// TestLiveStreamGoesOnAfterLimit: the live stream used to stop for good there.
func TestLiveStreamGoesOnAfterLimit(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	l := open(t, Config{Sink: s, Limit: MinLimit})
	line := strings.Repeat("x", 99) + "\n"
	for range 100 {
		write(t, l, strings.Repeat(line, 100))
	}
	write(t, l, "the end\n")
	s.await(t, "last line", func() bool {
		last := s.batches
		return len(last) > 0 && last[len(last)-1][len(last[len(last)-1])-1].Message == "the end\n"
	})
	for _, batch := range s.batches {
		if len(batch) > maxLiveLines+1 || len(text(batch)) > maxLiveBytes+200 {
			t.Errorf("a batch of %d lines, %d bytes", len(batch), len(text(batch)))
		}
	}
	if shown := s.live(); len(shown) > 10_000 {
		t.Errorf("%d lines shown", len(shown))
	}
	closeLog(t, l)
}

// TestLiveSaysWhatItLeavesOut, with a number that no other line has.
func TestLiveSaysWhatItLeavesOut(t *testing.T) {
	t.Parallel()
	var l live
	for i := range 3*maxLiveLines + 7 {
		l.add(i, 0, []byte("x"), true)
	}
	lines := l.take()
	if want := fmt.Sprintf("… %s lines are not shown live\n", thousands(lines[1].Number)); lines[0].Message != want {
		t.Errorf("got %q, want %q", lines[0].Message, want)
	}
	for i, line := range lines[1:] {
		if line.Number != lines[0].Number+1+i {
			t.Fatalf("line %d has number %d", i, line.Number)
		}
	}
	if last := lines[len(lines)-1].Number; last != 3*maxLiveLines+6 || !l.empty() {
		t.Errorf("the last line is %d, empty %v", last, l.empty())
	}
}

// TestLiveIsBoundedInBytes too, for few long lines.
func TestLiveIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	var l live
	long := []byte(strings.Repeat("x", maxLine))
	for i := range 200 {
		l.add(i, 0, long, true)
	}
	lines := l.take()
	if got := len(text(lines)); got > maxLiveBytes+2*maxLine || got < maxLiveBytes/3 {
		t.Errorf("%d bytes wait", got)
	}
	if last := lines[len(lines)-1].Number; last != 199 {
		t.Errorf("the last line is %d", last)
	}
}

// TestMultiLineWriteAddsNoEmptyLine and none is lost either.
func TestMultiLineWriteAddsNoEmptyLine(t *testing.T) {
	t.Parallel()
	k := &keeper{}
	l := open(t, Config{Sink: k})
	write(t, l, "a\nb\n", "c\n\nd\n", "e")
	closeLog(t, l)
	if len(k.lines) != 6 || text(k.lines) != "a\nb\nc\n\nd\ne" {
		t.Errorf("%d lines: %q", len(k.lines), text(k.lines))
	}
}

// TestLongLinesAreCutBetweenCharacters and read together as they were written.
func TestLongLinesAreCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		strings.Repeat("x", maxLine), strings.Repeat("x", maxLine+1), strings.Repeat("€", maxLine), "x" + strings.Repeat("😀", maxLine),
	} {
		for _, chunk := range []int{1, 1000, 100_000} {
			k := &keeper{}
			l := open(t, Config{Sink: k})
			for rest := line + "\n"; len(rest) > 0; rest = rest[min(chunk, len(rest)):] {
				write(t, l, rest[:min(chunk, len(rest))])
			}
			closeLog(t, l)
			if text(k.lines) != line+"\n" {
				t.Errorf("%d bytes, chunks of %d: the text changed", len(line), chunk)
			}
			if want := (len(line) + maxLine - 1) / maxLine; len(k.lines) < want || len(k.lines) > want+1 {
				t.Errorf("%d bytes, chunks of %d: %d lines", len(line), chunk, len(k.lines))
			}
			for _, l := range k.lines {
				if !utf8.ValidString(l.Message) || len(l.Message) > maxLine+1 {
					t.Errorf("a piece of %d bytes, valid %v", len(l.Message), utf8.ValidString(l.Message))
				}
			}
		}
	}
}

// TestOddBytes: what JSON cannot carry is replaced, what a terminal understands stays.
func TestOddBytes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a\r\nb\r\r\n":              "a\nb\n",
		"10%\r20%\r100%\n":          "10%\r20%\r100%\n",
		"caf\xe9 \xff\xfe ok\n":     "caf\uFFFD \uFFFD ok\n",
		"\x00\x01\x1b[1m\a\n":       "\x00\x01\x1b[1m\a\n",
		"\xf0\x9f":                  "\uFFFD",
		"\u2028 <b> & \"quoted\"\n": "\u2028 <b> & \"quoted\"\n",
	} {
		s := newServer(t)
		l := open(t, Config{Sink: s})
		write(t, l, in)
		closeLog(t, l)
		if got := text(s.stored(7)); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// TestUnterminatedEscapeIsText: after the beginning of a card's escape sequence all output used to vanish into memory.
func TestUnterminatedEscapeIsText(t *testing.T) {
	t.Parallel()
	k := &keeper{}
	l := open(t, Config{Sink: k})
	write(t, l, "before\n\x1b]1338;", "{\"schema\":\"x\"}\n", "after\n", "\x1b]1338;abc\x1b]0m\n")
	closeLog(t, l)
	if got, want := text(k.lines), "before\n\x1b]1338;{\"schema\":\"x\"}\nafter\n\x1b]1338;abc\x1b]0m\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestTwoWriters at once: no race, no line mixed with another, each writer's lines in order, all numbered.
func TestTwoWriters(t *testing.T) {
	t.Parallel()
	const lines = 2000
	k := &keeper{}
	l := open(t, Config{Sink: k})
	var writers sync.WaitGroup
	for _, name := range []string{"out", "err"} {
		writers.Go(func() {
			for i := range lines {
				write(t, l, fmt.Sprintf("%s %d\n", name, i))
				if i%100 == 0 {
					l.Note("note %s", name)
				}
			}
		})
	}
	writers.Wait()
	closeLog(t, l)
	next := map[string]int{}
	for i, line := range k.lines {
		var name string
		var n int
		if line.Number != i {
			t.Fatalf("line %d has number %d", i, line.Number)
		}
		if strings.HasPrefix(line.Message, "note ") {
			continue
		}
		if _, err := fmt.Sscanf(line.Message, "%s %d\n", &name, &n); err != nil || n != next[name] {
			t.Fatalf("line %d is %q, want number %d (%v)", i, line.Message, next[name], err)
		}
		next[name]++
	}
	if next["out"] != lines || next["err"] != lines {
		t.Errorf("lines %v", next)
	}
}
