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

// TestHardCases are the cases in which other runners leak, blank out too much, or reorder.
func TestHardCases(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("1", maxSequence-len("\x1b[m"))
	json := "{\n  \"user\": \"deploy\",\n  \"key\": \"s3cr3t-value\"\n}"
	for name, c := range map[string]struct {
		secrets []string
		writes  []string
		want    string
	}{
		"split over writes":       {[]string{"supersecret"}, []string{"supe", "rsec", "ret"}, "******"},
		"prefix of another":       {[]string{"pass1", "pass1234"}, []string{"pass1234 pass12 pass1"}, "****** ******2 ******"},
		"prefix, longer first":    {[]string{"pass1234", "pass1"}, []string{"pass1234 pass1"}, "****** ******"},
		"prefix, split":           {[]string{"abc", "abcdef"}, []string{"abc", "def", "abcde"}, "******de"},
		"suffix of another":       {[]string{"1234", "pass1234"}, []string{"pass1234 x1234"}, "****** x******"},
		"overlap":                 {[]string{"abcd1234", "1234wxyz"}, []string{"abcd1234wxyz"}, "******"},
		"overlap, split":          {[]string{"abcd1234", "1234wxyz"}, []string{"abcd12", "34wx", "yz"}, "******"},
		"overlaps itself":         {[]string{"00000001"}, []string{"k=0000000", "01"}, "k=0******"},
		"inner one pending":       {[]string{"abcdX", "1234wxyz"}, []string{"abcd1234wxyz"}, "abcd******"},
		"inner within outer":      {[]string{"bcd", "abcdef"}, []string{"abcde", "abcdef"}, "a******e******"},
		"same twice":              {[]string{"secret"}, []string{"secretsecret secret"}, "****** ******"},
		"lines on one line":       {[]string{"one two\nthree four"}, []string{"x one two three four y"}, "x ****** y"},
		"lines with CRLF":         {[]string{"ab\ncd\nef"}, []string{"ab\r\ncd\r\nef\r\n"}, "******\r\n"},
		"one line of several":     {[]string{"first-line\nsecond-line"}, []string{"second-line\nfirst\n"}, "******\nfirst\n"},
		"brace of a JSON secret":  {[]string{json}, []string{"func f() {\n}\n", `"key": "s3cr3t-value"`}, "func f() {\n}\n******"},
		"JSON secret whole":       {[]string{json}, []string{json}, "******"},
		"base64":                  {[]string{"hunter2hunter2"}, []string{"aHVudGVyMmh1bnRlcjI=\n"}, "******I=\n"},
		"URL":                     {[]string{"a/b c&d"}, []string{"x=a%2Fb+c%26d", " a%2Fb%20c&d", " a%2fb%20c%26d"}, "x=****** ****** ******"},
		"colour inside":           {[]string{"supersecret"}, []string{"su\x1b[1;31mper\x1b[", "0msecret"}, "******"},
		"longest colour":          {[]string{"super\x1b[" + longest + "msecret"}, []string{"super\x1b[" + longest + "msecret"}, "******"},
		"longer than any colour":  {[]string{"super\x1b[" + longest + "0msecret"}, []string{"super\x1b[" + longest + "0msecret"}, "******"},
		"colour around":           {[]string{"supersecret"}, []string{"\x1b[1msupersecret\x1b[m!"}, "\x1b[1m******\x1b[m!"},
		"blank run":               {[]string{"top secret"}, []string{"top  \t", "\n secret top secretly"}, "****** ******ly"},
		"begins and never ends":   {[]string{"supersecret"}, []string{"supersecre"}, "supersecre"},
		"blanks without end":      {[]string{"top secret"}, []string{"top" + strings.Repeat(" ", 200) + "secret"}, "top" + strings.Repeat(" ", 200) + "secret"},
		"longest gap":             {[]string{"top secret"}, []string{"top" + strings.Repeat(" ", maxGap+1) + "secret"}, "******"},
		"gap too long":            {[]string{"top secret"}, []string{"top" + strings.Repeat(" ", maxGap+2) + "secret"}, "top" + strings.Repeat(" ", maxGap+2) + "secret"},
		"bytes that are not text": {[]string{"\xff\xfe\x00key"}, []string{"\x00\xff\xfe\x00", "key\x80"}, "\x00******\x80"},
		"nothing to mask":         {nil, []string{"plain ", "text\n"}, "plain text\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := NewMasker(c.secrets)
			var out strings.Builder
			w := m.Writer(&out)
			write(t, w, c.writes...)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if out.String() != c.want {
				t.Errorf("got %q, want %q", out.String(), c.want)
			}
			if got := masked(t, m, strings.Join(c.writes, ""), 1); got != c.want {
				t.Errorf("byte by byte: got %q, want %q", got, c.want)
			}
		})
	}
}

// TestHoldsBackOnlyTheBeginningOfASecret: everything else is shown at once, also what turned out to be none, and a
// secret as soon as it is known to be one.
func TestHoldsBackOnlyTheBeginningOfASecret(t *testing.T) {
	t.Parallel()
	m := &Masker{auto: newAutomaton([]string{"supersecret", "superb", "abc abc"})}
	var out strings.Builder
	w := m.Writer(&out)
	for _, c := range []struct{ write, want string }{
		{"Password: ", "Password: "},
		{"x sup", "Password: x "},
		{"er", "Password: x "},
		{"man", "Password: x superman"},
		{" abc", "Password: x superman "},
		{"\n", "Password: x superman "},
		{"\n", "Password: x superman "},
		{"d", "Password: x superman abc\n\nd"},
		{"superb", "Password: x superman abc\n\nd******"},
		{"\x1b[1", "Password: x superman abc\n\nd******"},
		{"m", "Password: x superman abc\n\nd******\x1b[1m"},
	} {
		write(t, w, c.write)
		if out.String() != c.want {
			t.Fatalf("after %q: shown %q, want %q", c.write, out.String(), c.want)
		}
	}
}

// TestMemoryOfAWriterIsBounded: neither endless blanks nor an endless sequence after the beginning of a secret are held.
func TestMemoryOfAWriterIsBounded(t *testing.T) {
	t.Parallel()
	for name, flood := range map[string]string{"blanks": " ", "sequence": "\x1b[0", "colours": "\x1b[m", "found": "abc ", "begun": "a "} {
		w := NewMasker([]string{"abc", "a b c d e f g h i j"}).Writer(io.Discard)
		write(t, w, "a")
		block := strings.Repeat(flood, 4096)
		for range 300 {
			write(t, w, block)
		}
		if held := cap(w.buf) + 16*cap(w.skips) + 16*cap(w.found); held > 2<<20 {
			t.Errorf("%s: %d bytes are held", name, held)
		}
	}
}

// FuzzMasker compares the stream with the oracle for any two secrets, text and chunk size.
func FuzzMasker(f *testing.F) {
	f.Add("supersecret", "00000001", "x supersecret 000000001 ", uint8(3))
	f.Add("a b\nc d", "{\n}", "a  b c\x1b[31m d { }", uint8(1))
	f.Add("abc", "abcdef", "YWJj%61bc abcde", uint8(2))
	f.Fuzz(func(t *testing.T, first, second, text string, chunk uint8) {
		if len(first)+len(second) > 200 || len(text) > 2000 {
			return // the oracle is slow
		}
		values := []string{first, second}
		want := oracle(text, needlesOf(values))
		if got := masked(t, NewMasker(values), text, max(1, int(chunk))); got != want {
			t.Errorf("secrets %q, text %q, chunk %d:\n got %q\nwant %q", values, text, chunk, got, want)
		}
	})
}

// TestNothingToMask: without secrets every byte passes as it is.
func TestNothingToMask(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := NewMasker(nil).Writer(&out)
	text := "a \x1b[1m b\x1b[ \t\x00\xff\n"
	for i := range len(text) {
		if n, err := w.Write([]byte(text[i : i+1])); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := w.Close(); err != nil || out.String() != text {
		t.Errorf("%q became %q, %v", text, out.String(), err)
	}
}
