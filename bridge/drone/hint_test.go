package drone_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/drone"
)

const secret = "drone-webhook-secret-0123456789abcdef"

func TestVerifyHint(t *testing.T) {
	now := time.Now()
	cases := []struct {
		name string
		edit func(h http.Header, body *[]byte, secret *string)
		want string // part of the error; empty means valid
	}{
		{"right", func(http.Header, *[]byte, *string) {}, ""},
		{"no secret configured", func(_ http.Header, _ *[]byte, s *string) { *s = "" }, "no webhook secret"},
		{"another secret", func(_ http.Header, _ *[]byte, s *string) { *s = "other" }, "does not fit"},
		{"another body under a captured signature", func(_ http.Header, b *[]byte, _ *string) { *b = []byte("{}") }, "digest is not"},
		{"another body and its digest", func(h http.Header, b *[]byte, _ *string) {
			other, body := bridgetest.Hint("x", "9-9", now)
			*b = body
			h.Set("Digest", other.Get("Digest"))
		}, "does not fit"},
		{"no digest", func(h http.Header, _ *[]byte, _ *string) { h.Del("Digest") }, "digest is not"},
		{"no date", func(h http.Header, _ *[]byte, _ *string) { h.Del("Date") }, "Date"},
		{"no signature", func(h http.Header, _ *[]byte, _ *string) { h.Del("Signature") }, "Signature"},
		{"only the date is signed", func(h http.Header, _ *[]byte, _ *string) { replace(h, `headers="date digest"`, `headers="date"`) }, "must cover"},
		{"a weaker algorithm", func(h http.Header, _ *[]byte, _ *string) { replace(h, "hmac-sha256", "hmac-sha1") }, "must be hmac-sha256"},
		{"old", func(h http.Header, b *[]byte, _ *string) { take(h, b, now.Add(-time.Hour)) }, "date is 1h0m0s off"},
		{"from the future", func(h http.Header, b *[]byte, _ *string) { take(h, b, now.Add(time.Hour)) }, "date is -1h0m0s off"},
	}
	for _, c := range cases {
		header, body := bridgetest.Hint(secret, "7-1", now)
		key := secret
		c.edit(header, &body, &key)
		err := drone.Verify(key, header, body, now.Truncate(time.Second))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// take replaces a hook by one of another time.
func take(h http.Header, body *[]byte, at time.Time) {
	other, b := bridgetest.Hint(secret, "7-1", at)
	for name := range other {
		h.Set(name, other.Get(name))
	}
	*body = b
}

func replace(h http.Header, old, new string) {
	h.Set("Signature", strings.Replace(h.Get("Signature"), old, new, 1))
}

func TestHint(t *testing.T) {
	_, body := bridgetest.Hint(secret, "7-1", time.Now())
	for text, want := range map[string]string{string(body): "7-1", `{"build":null}`: "", `{}`: ""} {
		if got, err := drone.Hint([]byte(text)); got != want || err != nil {
			t.Errorf("Hint(%s) = %q, want %q (%v)", text, got, want, err)
		}
	}
	if _, err := drone.Hint([]byte("{")); err == nil {
		t.Error("rubbish was accepted")
	}
}
