package logs

import (
	"bytes"
	"io"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// masked streams text through a masker in chunks of the given sizes, over and over.
func masked(t testing.TB, m *Masker, text string, chunks ...int) string {
	t.Helper()
	var out bytes.Buffer
	w := m.Writer(&out)
	for i := 0; len(text) > 0; i++ {
		n := len(text)
		if len(chunks) > 0 {
			n = min(n, chunks[i%len(chunks)])
		}
		if _, err := io.WriteString(w, text[:n]); err != nil {
			t.Fatal(err)
		}
		text = text[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// oracle masks in the slowest and simplest way: it looks for every needle at every position of the normalised text,
// marks the bytes of the original that each covers, and replaces each marked run.
func oracle(text string, needles []string) string {
	var seen []byte // normalised
	var at []int    // where each of its bytes lies in text
	colours := regexp.MustCompile(colour).FindAllStringIndex(text, -1)
	for i := 0; i < len(text); i++ {
		if len(colours) > 0 && colours[0][0] == i {
			i = colours[0][1] - 1
			colours = colours[1:]
			continue
		}
		b := text[i]
		if strings.IndexByte("\t\n\v\f\r ", b) >= 0 {
			b = ' '
			if len(seen) > 0 && seen[len(seen)-1] == ' ' {
				continue
			}
		}
		seen, at = append(seen, b), append(at, i)
	}
	secret := make([]bool, len(text)+1)
	for start := range seen {
		for _, needle := range needles {
			if !bytes.HasPrefix(seen[start:], []byte(needle)) {
				continue
			}
			whole := true
			for i := start + 1; i < start+len(needle); i++ {
				whole = whole && at[i]-at[i-1] <= maxGap+1
			}
			for i := at[start]; whole && i <= at[start+len(needle)-1]; i++ {
				secret[i] = true
			}
		}
	}
	var out strings.Builder
	for i := range len(text) {
		if !secret[i] {
			out.WriteByte(text[i])
		} else if i == 0 || !secret[i-1] {
			out.WriteString(mask)
		}
	}
	return out.String()
}

// needlesOf are all needles that a masker of values looks for.
func needlesOf(values []string) []string {
	var needles []string
	for _, value := range values {
		if plain := plainForms(value); len(plain) > 0 {
			needles = append(append(needles, plain...), encodedForms(value)...)
		}
	}
	return needles
}

// TestAutomatonAgreesWithOracle tries tiny alphabets, where needles overlap, nest and repeat in every way.
func TestAutomatonAgreesWithOracle(t *testing.T) {
	t.Parallel()
	for seed := range full(t, 30000) {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		alphabet := [][]string{
			{"a", "b"}, {"a", "b", "c", " ", "\n"}, {"a", "b", " ", "\x1b[m", "\x1b[1;31m", "\x1b", "[", "m"},
			{"a", "b", strings.Repeat(" ", 40), "\x1b[K"},
		}[r.IntN(4)]
		word := func(n int) string {
			var s strings.Builder
			for range n {
				s.WriteString(alphabet[r.IntN(len(alphabet))])
			}
			return s.String()
		}
		var needles []string
		for range 1 + r.IntN(5) {
			if needle := normalise(word(2 + r.IntN(7))); needle != "" && !slices.Contains(needles, needle) {
				needles = append(needles, needle)
			}
		}
		text := word(r.IntN(120))
		m := &Masker{auto: newAutomaton(needles)}
		want := oracle(text, needles)
		for _, chunks := range [][]int{nil, {1}, {1 + r.IntN(9), 1 + r.IntN(9), 1 + r.IntN(9)}} {
			if got := masked(t, m, text, chunks...); got != want {
				t.Fatalf("seed %d, needles %q, text %q, chunks %v:\n got %q\nwant %q", seed, needles, text, chunks, got, want)
			}
		}
	}
}
