package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// maxDump bounds how much of one body is dumped.
const maxDump = 64 << 10

// redacted stands for what a dump must not show.
const redacted = "[redacted]"

// dumper writes exchanges for a person who looks for a fault. A nil dumper writes nothing. What is secret is left out
// by the names of fields and headers first; the runner's own secret also wherever else it turns up.
type dumper struct {
	mu     sync.Mutex // one exchange after the other; many calls are under way at once
	out    io.Writer
	bodies bool
	hide   *strings.Replacer
}

// hiding replaces the secret as it is, and as a server or a gateway writes it into JSON, a page or an address.
func hiding(secret string) *strings.Replacer {
	inJSON := func(html bool) string {
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(html)
		_ = enc.Encode(secret) // a string always encodes
		quoted := strings.TrimSpace(b.String())
		return quoted[1 : len(quoted)-1]
	}
	var pairs []string
	for _, form := range []string{
		secret, inJSON(true), inJSON(false), html.EscapeString(secret), url.QueryEscape(secret), url.PathEscape(secret),
	} {
		pairs = append(pairs, form, redacted)
	}
	return strings.NewReplacer(pairs...)
}

// newDumper returns nil where nothing is to be dumped.
func newDumper(cfg Config, hide *strings.Replacer) *dumper {
	if cfg.Dump == nil || !cfg.DumpHTTP && !cfg.DumpBody {
		return nil
	}
	return &dumper{out: cfg.Dump, bodies: cfg.DumpBody, hide: hide}
}

// exchange writes one request and its answer (nil for none) as one piece.
func (d *dumper) exchange(cl *call, req *http.Request, res *http.Response, answer []byte) {
	if d == nil {
		return
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "> %s %s\n", req.Method, req.URL.RequestURI())
	writeHeader(&b, "> ", req.Header)
	if d.bodies && cl.stream == nil {
		d.writeBody(&b, "> ", cl.body)
	} else if d.bodies {
		b.WriteString("> (a log)\n")
	}
	if res == nil {
		b.WriteString("< no answer\n")
	} else {
		fmt.Fprintf(&b, "< %s\n", res.Status)
		writeHeader(&b, "< ", res.Header)
		if d.bodies {
			d.writeBody(&b, "< ", answer)
		}
	}
	b.WriteByte('\n')
	text := d.hide.Replace(b.String())
	d.mu.Lock()
	defer d.mu.Unlock()
	// A dump that cannot be written has nowhere to say so, and the exchange itself is unharmed.
	_, _ = io.WriteString(d.out, text)
}

// writeHeader writes the headers without credentials.
func writeHeader(b *bytes.Buffer, prefix string, header http.Header) {
	for _, name := range slices.Sorted(maps.Keys(header)) {
		value := strings.Join(header[name], ", ")
		switch name {
		case "X-Drone-Token", "Authorization", "Cookie", "Set-Cookie", "Location":
			value = redacted
		}
		fmt.Fprintf(b, "%s%s: %s\n", prefix, name, value)
	}
}

// writeBody writes a body without secrets. What is not JSON (an error's text, a page) is cut short.
func (d *dumper) writeBody(b *bytes.Buffer, prefix string, body []byte) {
	if len(body) == 0 {
		return
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		text := d.hide.Replace(string(body))
		fmt.Fprintf(b, "%s%.300q\n", prefix, text)
		return
	}
	clean, err := json.Marshal(d.redact("", v))
	if err != nil {
		fmt.Fprintf(b, "%s(%v)\n", prefix, err)
		return
	}
	if len(clean) > maxDump {
		clean = append(clean[:maxDump:maxDump], "…"...)
	}
	fmt.Fprintf(b, "%s%s\n", prefix, clean)
}

// redact replaces what is secret in a decoded body: the values of secrets, the netrc, the key that encrypts and
// signs configurations, the configuration itself, which may hold any of them, and the runner's own secret anywhere.
func (d *dumper) redact(key string, v any) any {
	switch strings.ToLower(key) {
	case "secret", "secrets", "netrc", "signer", "token", "password", "config", "data", "params":
		if v == nil || v == "" {
			return v
		}
		return redacted
	}
	switch v := v.(type) {
	case string: // here, since its JSON form may differ from it
		return d.hide.Replace(v)
	case map[string]any:
		for k, inner := range v {
			v[k] = d.redact(k, inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = d.redact("", inner)
		}
	}
	return v
}
