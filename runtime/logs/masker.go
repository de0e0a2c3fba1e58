package logs

import (
	"cmp"
	"io"
	"slices"
	"strings"
)

// mask stands for a secret, whatever its length, which would help whoever guesses. It is that of runner-go, so that
// people know it.
const mask = "******"

// maxNeedles bounds the bytes of all needles together, and so the memory of a Masker, to some 10 MiB: about 20 bytes
// a state, of which there is at most one for each byte. All forms of a key file of ten KiB make a quarter of a
// MiB.
const maxNeedles = 1 << 19

// Masker knows every form of a build's secrets and replaces them in any text. It is immutable: one serves all the
// steps of a stage.
type Masker struct {
	auto     *automaton
	unmasked []int
	partly   []int
}

// form is one needle and the index of the value that it stands for.
type form struct {
	text  string
	value int
	plain bool // the value itself or a line of it, not an encoding
}

// NewMasker makes the masker of values: a build's secrets and the netrc password. Of each it knows the whole, the
// lines, and their usual encodings.
func NewMasker(values []string) *Masker {
	m := &Masker{}
	var forms []form
	for i, value := range values {
		plain := plainForms(value)
		if len(plain) == 0 {
			m.unmasked = append(m.unmasked, i)
			continue
		}
		for _, text := range plain {
			forms = append(forms, form{text, i, true})
		}
		for _, text := range encodedForms(value) {
			forms = append(forms, form{text, i, false})
		}
	}
	m.auto = newAutomaton(m.fitting(forms))
	return m
}

// fitting returns the needles within the bound, without duplicates: the values and their lines before the encodings,
// short ones before long ones.
func (m *Masker) fitting(forms []form) []string {
	slices.SortStableFunc(forms, func(a, b form) int {
		switch {
		case a.plain == b.plain:
			return cmp.Compare(len(a.text), len(b.text)) // so that one huge value does not crowd out the others
		case a.plain:
			return -1
		default:
			return 1
		}
	})
	seen := map[string]bool{}
	var needles []string
	size := 0
	for _, f := range forms {
		if seen[f.text] {
			continue
		}
		if size+len(f.text) > maxNeedles {
			if f.plain && !slices.Contains(m.unmasked, f.value) {
				m.unmasked = append(m.unmasked, f.value)
			} else if !f.plain && !slices.Contains(m.partly, f.value) {
				m.partly = append(m.partly, f.value)
			}
			continue
		}
		seen[f.text] = true
		size += len(f.text)
		needles = append(needles, f.text)
	}
	slices.Sort(m.unmasked)
	slices.Sort(m.partly)
	return needles
}

// Unmasked are the indexes of the values that are shown as they are: shorter than three characters, or so long
// that no masker could hold them. It is for the caller, who knows the names, to say so once.
func (m *Masker) Unmasked() []int { return slices.Clone(m.unmasked) }

// PartlyMasked are the indexes of values so long that only they and their lines are masked, not all encodings.
func (m *Masker) PartlyMasked() []int { return slices.Clone(m.partly) }

// Mask replaces what is secret in a text that is complete.
func (m *Masker) Mask(text string) string {
	var out strings.Builder
	w := m.Writer(&out)
	if _, err := io.WriteString(w, text); err != nil {
		return mask // a Builder does not fail
	}
	if err := w.Close(); err != nil {
		return mask
	}
	return out.String()
}

// Writer returns a stream that masks what is written to it and hands the rest to out, unchanged and in order.
func (m *Masker) Writer(out io.Writer) *Writer {
	return &Writer{auto: m.auto, out: out, maskEnd: -1, skips: []skip{{}}}
}
