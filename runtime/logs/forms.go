package logs

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

// What is too short to mask would blank out ordinary words: "on" as a whole value, "}" as a line of a JSON secret.
const (
	minValue = 3
	minLine  = 6
)

const escape = 0x1b

// colour is what tools put inside a word that they highlight (grep, ls, diff): set graphics, erase line.
const colour = `\x1b\[[0-9;:]{0,30}[mK]`

// normalise brings a needle into the form that the scan sees: no colour, white space as single blanks, none at the
// ends. So a key of several lines is found where a shell has printed it on one (echo $KEY), and the other way round.
func normalise(s string) string {
	s = regexp.MustCompile(colour).ReplaceAllString(s, "")
	fields := strings.FieldsFunc(s, func(r rune) bool { return r < utf8.RuneSelf && strings.ContainsRune("\t\n\v\f\r ", r) })
	return strings.Join(fields, " ")
}

// plainForms are the value itself and, where it has several lines, each line: tools such as grep and head show single
// ones.
func plainForms(value string) []string {
	whole := normalise(value)
	if utf8.RuneCountInString(whole) < minValue {
		return nil
	}
	forms := []string{whole}
	for line := range strings.Lines(strings.TrimSpace(value)) {
		if line = normalise(line); utf8.RuneCountInString(line) >= minLine {
			forms = append(forms, line)
		}
	}
	return forms
}

// encodedForms are what common tools make of the value: base64 (also inside longer text, also folded), hex, URL,
// JSON, HTML and what shells print when they quote.
func encodedForms(value string) []string {
	value = strings.TrimSpace(value) // or a final newline would have to be part of what is shown
	var forms []string
	for _, form := range [][]string{base64Forms(value), hexForms(value), urlForms(value), quotedForms(value)} {
		for _, f := range form {
			if f = normalise(f); utf8.RuneCountInString(f) >= minValue {
				forms = append(forms, f)
			}
		}
	}
	return forms
}

// base64Forms are the characters that depend on the value alone, wherever it begins within a group of three bytes.
func base64Forms(value string) []string {
	var forms []string
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			text := enc.EncodeToString([]byte(strings.Repeat("\x00", shift) + value))
			first := (8*shift + 5) / 6           // characters before it also hold bits of what precedes the value
			last := 8 * (shift + len(value)) / 6 // and from here on of what follows it
			if first < last {
				forms = append(forms, text[first:last])
			}
			if shift == 0 && last > 0 {
				forms = append(forms, folded(text[:last], 76)...) // base64(1), MIME
				forms = append(forms, folded(text[:last], 64)...) // openssl, PEM
			}
		}
	}
	return forms
}

// hexForms are the digits in either case, also as dumps break them. Those that put blanks between the digits (od,
// hexdump) are not covered.
func hexForms(value string) []string {
	text := hex.EncodeToString([]byte(value))
	forms := []string{text, strings.ToUpper(text)}
	return append(forms, folded(text, 60)...) // xxd -p
}

// folded are the lines of a text that a tool breaks at a width: nothing where it fits into one. The whole does
// not match then, since the scan sees each line break as a blank. A last line that is short would mask ordinary
// words.
func folded(text string, width int) []string {
	if len(text) <= width {
		return nil
	}
	var lines []string
	for ; len(text) > width; text = text[width:] {
		lines = append(lines, text[:width])
	}
	if len(text) >= minLine {
		lines = append(lines, text)
	}
	return lines
}

// urlForms are the value in a path, in a query, and as JavaScript and Python write it, with either case of digits.
func urlForms(value string) []string {
	query := url.QueryEscape(value)
	percent := strings.ReplaceAll(query, "+", "%20")
	forms := []string{
		url.PathEscape(value),
		query,
		percent,
		strings.ReplaceAll(percent, "%2F", "/"),
		strings.NewReplacer("%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*").Replace(percent),
	}
	lower := regexp.MustCompile(`%[0-9A-F]{2}`)
	for _, form := range forms {
		forms = append(forms, lower.ReplaceAllStringFunc(form, strings.ToLower))
	}
	return forms
}

// quotedForms are what HTML, shells and JSON make of characters that mean something to them. Quotes around the whole
// are left out: they are not secret, and the form is then found within longer text too.
func quotedForms(value string) []string {
	forms := []string{
		html.EscapeString(value),
		strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&apos;").Replace(value),
		// Within single quotes: bash and POSIX tools, then dash.
		strings.ReplaceAll(value, `'`, `'\''`),
		strings.ReplaceAll(value, `'`, `'"'"'`),
		// Within double quotes, within $'…' and, as printf %q writes it, without quotes.
		strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(value),
		strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\t", `\t`, "\r", `\r`).Replace(value),
		regexp.MustCompile("[ \t'\"\\\\|&;()<>!{}*\\[\\]?^$`,]").ReplaceAllString(value, `\$0`),
	}
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	for _, escapeHTML := range []bool{true, false} {
		text.Reset()
		encoder.SetEscapeHTML(escapeHTML)
		if err := encoder.Encode(value); err != nil {
			continue // a string always has a JSON form
		}
		forms = append(forms, strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(text.String()), `"`), `"`))
	}
	return forms
}
