package logs

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"math/rand/v2"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// randomSecret is a value of 3 to 60 characters of one of several kinds, some with several lines.
func randomSecret(r *rand.Rand) string {
	alphabets := []string{
		"abcdefghijklmnopqrstuvwxyz0123456789",
		"ABCDEFabcdef0123456789+/=-_",
		`ab'"\$ &<>%!/?#;:@~^(){}[]|` + "`\n",
		"äöüß€😀xyz\n",
		"01", "a\n\t",
	}
	alphabet := []rune(alphabets[r.IntN(len(alphabets))])
	var secret strings.Builder
	for range 3 + r.IntN(58) {
		secret.WriteRune(alphabet[r.IntN(len(alphabet))])
	}
	return strings.TrimSpace(secret.String())
}

// encoders are the forms in which a secret must not survive, written as the tools write them.
func encoders() map[string]func(string) string {
	quoted := func(s string) string {
		text, err := json.Marshal(s)
		if err != nil {
			return ""
		}
		return string(text[1 : len(text)-1])
	}
	return map[string]func(string) string{
		"plain":    func(s string) string { return s },
		"one line": func(s string) string { return strings.Join(strings.Fields(s), " ") },
		"CRLF":     func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
		"colour":   func(s string) string { return s[:1] + "\x1b[01;31m\x1b[K" + s[1:] },
		"hex":      func(s string) string { return hex.EncodeToString([]byte(s)) },
		"HEX":      func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
		"path":     url.PathEscape,
		"query":    url.QueryEscape,
		"JSON":     quoted,
		"HTML":     html.EscapeString,
		"single":   func(s string) string { return strings.ReplaceAll(s, "'", `'\''`) },
	}
}

// TestNoFormSurvives is the oracle of the whole masker: random secrets in every encoding, between bytes that must
// come through unchanged, in random chunks.
func TestNoFormSurvives(t *testing.T) {
	t.Parallel()
	encode := encoders()
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range encode {
			if !yield(name) {
				return
			}
		}
	})
	for seed := range full(t, 5000) {
		r := rand.New(rand.NewPCG(uint64(seed), 2))
		var secrets []string
		for range 1 + r.IntN(3) {
			if secret := randomSecret(r); len([]rune(secret)) >= minValue {
				secrets = append(secrets, secret)
			}
		}
		var text, want strings.Builder
		for _, secret := range secrets {
			if len([]rune(normalise(secret))) < minValue {
				continue // a few characters apart by blanks: too short to mask
			}
			for _, name := range names {
				text.WriteString("«" + encode[name](secret) + "»\n")
				want.WriteString("«" + mask + "»\n")
			}
		}
		m := NewMasker(secrets)
		got := masked(t, m, text.String(), 1+r.IntN(50), 1+r.IntN(5))
		if got != want.String() {
			t.Fatalf("seed %d, secrets %q:\n got %q\nwant %q\ntext %q", seed, secrets, got, want.String(), text.String())
		}
		if slow := oracle(text.String(), needlesOf(secrets)); got != slow {
			t.Fatalf("seed %d, secrets %q: stream and oracle differ:\n got %q\nwant %q", seed, secrets, got, slow)
		}
	}
}

// TestBase64WithinLongerText: wherever the secret lies in what was encoded, less than one character of it shows.
func TestBase64WithinLongerText(t *testing.T) {
	t.Parallel()
	for seed := range full(t, 10000) {
		r := rand.New(rand.NewPCG(uint64(seed), 3))
		letters := make([]byte, 3+r.IntN(29)) // with many that become + and /
		for i := range letters {
			letters[i] = "abcXYZ019?>~o{}"[r.IntN(15)]
		}
		secret := string(letters)
		before, after := strings.Repeat("\x01", r.IntN(7)), strings.Repeat("\x02", r.IntN(7))
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding} {
			text := enc.EncodeToString([]byte(before + secret + after))
			got := masked(t, NewMasker([]string{secret}), text, 1+r.IntN(9))
			left, right, found := strings.Cut(got, mask)
			if !found || !strings.HasPrefix(text, left) || !strings.HasSuffix(text, right) {
				t.Fatalf("seed %d, %q in %q: got %q", seed, secret, text, got)
			}
			if shown := 6*len(left) - 8*len(before); shown >= 6 {
				t.Fatalf("seed %d, %q in %q: %d bits show at the start of %q", seed, secret, text, shown, got)
			}
			padding := 6*len(strings.TrimRight(text, "=")) - 8*len(before+secret+after)
			if shown := 6*len(strings.TrimRight(right, "=")) - padding - 8*len(after); shown >= 6 {
				t.Fatalf("seed %d, %q in %q: %d bits show at the end of %q", seed, secret, text, shown, got)
			}
		}
	}
}

// TestRealToolsDoNotShowSecrets asks the tools themselves how they encode and quote.
func TestRealToolsDoNotShowSecrets(t *testing.T) {
	t.Parallel()
	secrets := map[string]string{
		"quotes":   `it's "a" $ecret`,
		"lines":    "first line\nsecond 'line'\nthird\tline",
		"symbols":  "p&ss;w<o>r|d!(x){y}[z]*?#~%^,",
		"trailing": "with-newline\n",
		"long":     strings.Repeat("0123456789abcdefghij", 8),
		"utf8":     "pässwörter",
	}
	for name, secret := range secrets {
		for tool, command := range map[string][]string{
			"printf %q": {"bash", "-c", `printf '%q\n' "$1"`, "-"},
			"@Q":        {"bash", "-c", `echo "${1@Q}"`, "-"},
			"bash -x":   {"bash", "-xc", `true "$1"`, "-"},
			"sh -x":     {"sh", "-xc", `true "$1"`, "-"},
			"base64":    {"bash", "-c", `printf %s "$1" | base64`, "-"},
			"echo":      {"bash", "-c", `echo $1 | base64 -w0`, "-"},
		} {
			if tool == "echo" && name == "lines" {
				continue // that encodes another text: the lines joined with blanks
			}
			out, err := exec.Command(command[0], append(command[1:], secret)...).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v: %s", tool, err, out)
			}
			got := NewMasker([]string{secret}).Mask(string(out))
			rest := strings.NewReplacer(mask, "", "true", "", "+", "").Replace(got)
			// What quotes a secret and what pads it may stay.
			if rest = strings.Trim(rest, " \n'\"$=Kg"); len(rest) > 2 {
				t.Errorf("%s of %s: %q became %q", tool, name, out, got)
			}
		}
	}
}

// TestTooShortValues are said, not masked: they would blank out ordinary words.
func TestTooShortValues(t *testing.T) {
	t.Parallel()
	m := NewMasker([]string{"", "on", "yes", "  x  ", "\n", "été", "éé"})
	if got, want := m.Unmasked(), []int{0, 1, 3, 4, 6}; !slices.Equal(got, want) {
		t.Errorf("unmasked %v, want %v", got, want)
	}
	if got := m.Mask("on yes x été éé"); got != "on ****** x ****** éé" {
		t.Errorf("got %q", got)
	}
	if got := m.PartlyMasked(); len(got) != 0 {
		t.Errorf("partly masked %v", got)
	}
}

// TestHugeValuesStayBounded: what does not fit is said, and the values themselves come before their encodings.
func TestHugeValuesStayBounded(t *testing.T) {
	t.Parallel()
	huge := make([]byte, maxNeedles+1)
	large := make([]byte, maxNeedles/4)
	r := rand.New(rand.NewPCG(9, 9))
	for i := range huge {
		huge[i] = 'a' + byte(r.IntN(26))
	}
	for i := range large {
		large[i] = 'a' + byte(r.IntN(26))
	}
	m := NewMasker([]string{string(huge), string(large), "hunter2"})
	if len(m.auto.nodes) > maxNeedles+1 {
		t.Errorf("%d states", len(m.auto.nodes))
	}
	if got := m.Unmasked(); !slices.Equal(got, []int{0}) {
		t.Errorf("unmasked %v", got)
	}
	if got := m.PartlyMasked(); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("partly masked %v", got)
	}
	text := string(large) + " hunter2 " + hex.EncodeToString([]byte("hunter2"))
	if got := m.Mask(text); got != mask+" "+mask+" "+mask {
		t.Errorf("got %.80q", got)
	}
}
