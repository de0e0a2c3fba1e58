package logs

import (
	"io"
	"slices"
	"sort"
)

const (
	// maxScan is how much is scanned and handed on at once, so that a large write needs no buffer of its size.
	maxScan = 32 << 10

	// maxGap is how many bytes of white space and colour may lie between two bytes of a secret. Without a bound,
	// the beginning of a secret followed by blanks without end would be held back without end.
	maxGap = 64

	// maxSequence is the length of the longest colour sequence: ESC, [, 30 characters and the letter. The pattern in
	// forms.go says the same for needles: what one takes out and the other does not, would never match.
	maxSequence = 33
)

// Writer masks a stream. A secret is found however the writes cut it, because the end of what was written is held
// back for as long as it is the beginning of a secret: never more than the secret is long, and for ordinary text
// nothing. What is held could still become a secret, so no time-out shows it; the next byte or Close does.
//
// A Writer is not safe for concurrent use.
type Writer struct {
	auto  *automaton
	out   io.Writer
	state int32 // of the automaton, after what it was shown of buf

	// Positions count the bytes of the stream. buf holds those from base on that are not handed on yet.
	buf  []byte
	base int64

	sequence int    // length of the colour sequence that has begun at the end of buf
	gapEnd   int64  // position after the last byte that was skipped, or the blank that began a run
	gap      int    // how many bytes were skipped before it
	blank    bool   // whether the gap follows a blank
	skips    []skip // where bytes were skipped, oldest first
	found    []span // secrets in buf, in order, apart from each other
	maskEnd  int64  // where the last secret that was handed on ends

	text []byte // reused for what is handed on
}

// span is a secret, from its first byte to the one after its last.
type span struct{ start, end int64 }

// skip says that before the byte number seen (not counting skipped ones) total bytes were skipped.
type skip struct{ seen, total int64 }

// Write masks p. It returns the error of the writer behind it, if any.
func (w *Writer) Write(p []byte) (int, error) {
	if len(w.auto.nodes) == 1 { // nothing but the root: there is nothing to look for
		return w.out.Write(p)
	}
	for n := 0; n < len(p); {
		chunk := p[n:min(n+maxScan, len(p))]
		from := len(w.buf)
		w.buf = append(w.buf, chunk...)
		w.scan(from)
		if err := w.handOn(w.held()); err != nil {
			return n, err
		}
		n += len(chunk)
	}
	return len(p), nil
}

// Close hands on what is held back: the stream ends, so it cannot become a secret any more. It does not close the
// writer behind it.
func (w *Writer) Close() error {
	w.literal(len(w.buf))
	end := w.base + int64(len(w.buf))
	w.state = 0
	return w.handOn(end)
}

// scan runs the automaton over buf from an index on.
func (w *Writer) scan(from int) {
	a, s, skipped := w.auto, w.state, w.skipped() // in registers: this loop sees every byte of every log
	for i := from; i < len(w.buf); i++ {
		class := a.class[w.buf[i]]
		if class <= classEscape || w.sequence > 0 {
			w.state = s
			w.special(i)
			s, skipped = w.state, w.skipped()
			continue
		}
		for { // automaton.step, which is too large to be inlined
			n := &a.nodes[s]
			if n.row >= 0 {
				s = a.rows[n.row+int32(class)]
				break
			}
			if n.label == class {
				s++
				break
			}
			s = n.fail
		}
		if match := a.nodes[s].match; match > 0 {
			w.add(i, skipped, match)
		}
	}
	w.state = s
}

// special takes the bytes that are not simply compared: white space, and those of a colour sequence. White space in a
// needle is one blank, so the first of a run is compared and the others are skipped; a sequence is skipped whole, but
// only when its last byte has shown that it is one.
func (w *Writer) special(i int) {
	b, at := w.buf[i], w.base+int64(i)
	if w.sequence > 0 {
		switch {
		case w.sequence == 1 && b == '[',
			w.sequence > 1 && w.sequence < maxSequence-1 && (b >= '0' && b <= '9' || b == ';' || b == ':'):
			w.sequence++
			return
		case w.sequence > 1 && (b == 'm' || b == 'K'):
			w.skip(at-int64(w.sequence), w.sequence+1)
			w.sequence = 0
			return
		}
		w.literal(i) // and this byte may begin something itself
	}
	switch class := w.auto.class[b]; {
	case class == classEscape:
		w.sequence = 1
	case class == classSpace && at == w.gapEnd && w.blank:
		w.skip(at, 1)
	default:
		w.advance(i)
		if class == classSpace {
			w.gapEnd, w.gap, w.blank = at+1, 0, true
		}
	}
}

// literal compares the bytes of a sequence before index end that turned out to be none.
func (w *Writer) literal(end int) {
	for i := end - w.sequence; i < end; i++ {
		w.advance(i)
	}
	w.sequence = 0
}

// advance compares one byte.
func (w *Writer) advance(i int) {
	w.state = w.auto.step(w.state, w.auto.class[w.buf[i]])
	if match := w.auto.nodes[w.state].match; match > 0 {
		w.add(i, w.skipped(), match)
	}
}

// skip passes over n bytes that begin at a position. The automaton counts only the bytes that it was shown; where a
// match lies in the stream follows from the list of skips.
func (w *Writer) skip(at int64, n int) {
	if at != w.gapEnd {
		w.gap, w.blank = 0, false
	}
	w.gapEnd = at + int64(n)
	if w.gap += n; w.gap > maxGap {
		w.state = 0 // nothing that began before the gap goes on behind it
	}
	last := &w.skips[len(w.skips)-1]
	total := last.total + int64(n)
	if seen := at - last.total; w.state != 0 && seen != last.seen {
		w.skips = append(w.skips, skip{seen, total})
	} else if w.state != 0 {
		last.total = total
	} else {
		w.skips = append(w.skips[:0], skip{seen, total})
	}
}

// skipped is how many bytes were skipped so far.
func (w *Writer) skipped() int64 { return w.skips[len(w.skips)-1].total }

// position is where in the stream the byte number seen lies.
func (w *Writer) position(seen int64) int64 {
	i := sort.Search(len(w.skips), func(i int) bool { return w.skips[i].seen > seen })
	return seen + w.skips[max(i-1, 0)].total
}

// add notes a secret of so many compared bytes that ends at an index, and merges it with those it touches: found stays
// in order and without overlaps, whatever the needles have in common.
func (w *Writer) add(i int, skipped int64, length int32) {
	end := w.base + int64(i) + 1
	found := span{w.position(end - skipped - int64(length)), end}
	for n := len(w.found); n > 0 && w.found[n-1].end >= found.start; n-- {
		found.start = min(found.start, w.found[n-1].start)
		w.found = w.found[:n-1]
	}
	w.found = append(w.found, found)
}

// held is the position from which on the stream may be the beginning of a secret. It also forgets the skips that lie
// before that, so that their list does not grow with the stream.
func (w *Writer) held() int64 {
	end := w.base + int64(len(w.buf)-w.sequence)
	depth := int64(w.auto.depth[w.state])
	if depth == 0 { // the usual case: all skips lie behind
		w.skips = append(w.skips[:0], w.skips[len(w.skips)-1])
		return end
	}
	seen := end - w.skipped() - depth
	if i := sort.Search(len(w.skips), func(i int) bool { return w.skips[i].seen > seen }); i > 1 {
		w.skips = slices.Delete(w.skips, 0, i-1)
	}
	return w.position(seen)
}

// handOn writes everything up to a position, with each secret in it replaced. A secret that began before the
// position is replaced even where it reaches further.
func (w *Writer) handOn(end int64) error {
	w.text = w.text[:0]
	start, n := w.base, 0
	for ; n < len(w.found) && w.found[n].start <= end; n++ {
		secret := w.found[n]
		if secret.start > w.maskEnd {
			w.text = append(w.text, w.buf[w.base-start:secret.start-start]...)
			w.text = append(w.text, mask...)
		}
		w.base, w.maskEnd = secret.end, secret.end
	}
	w.found = slices.Delete(w.found, 0, n) // once for all: one by one would be quadratic
	if w.base < end {
		w.text = append(w.text, w.buf[w.base-start:end-start]...)
		w.base = end
	}
	w.buf = w.buf[:copy(w.buf, w.buf[w.base-start:])]
	if len(w.text) == 0 {
		return nil
	}
	_, err := w.out.Write(w.text)
	return err
}
