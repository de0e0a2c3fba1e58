// Package safehttp makes HTTP clients that talk to one server only: no redirects, no proxy from the environment,
// bounded time, bounded answers, and errors that carry the address, the status and the server's message but never a
// header.
//
// It is the daemon's one way out: the clients of packages gitea and drone are libraries' own, on top of a client from
// New, and judge errors by Status, Definite and Unsent, through whatever the libraries have wrapped them in.
package safehttp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// MaxAnswer is the most of one answer that is read; a longer one fails the call.
const MaxAnswer = 16 << 20

// StatusError is an answer with a status outside 200 to 299.
type StatusError struct {
	Code    int
	Message string // what the server says, shortened; for operators, never for comments
	Foreign bool   // the answer is not the server's own
}

// Error tells the status and the server's message.
func (e *StatusError) Error() string {
	switch {
	case e.Foreign:
		return fmt.Sprintf("HTTP status %d, but not from the server's API", e.Code)
	case e.Message == "":
		return fmt.Sprintf("HTTP status %d", e.Code)
	}
	return fmt.Sprintf("HTTP status %d: %s", e.Code, e.Message)
}

// Status returns the HTTP status in err, or 0 when the server gave no answer. That a proxy gave one for it does not
// count.
func Status(err error) int {
	var status *StatusError
	if errors.As(err, &status) && !status.Foreign {
		return status.Code
	}
	return 0
}

// Foreign reports whether something else than the server answered: a proxy, or what is at a wrong address.
func Foreign(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Foreign
}

// Definite reports whether err is the server's last word: asking again would be answered the same.
func Definite(err error) bool {
	// 5xx is left out: servers and the proxies before them answer so when they are restarted. So is 401: a token that
	// has run out is replaced by a person, and until then nothing may count as done.
	switch code := Status(err); code {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	default:
		return code >= 300 && code < 500
	}
}

// Unsent reports whether the call failed because there was no connection: the server knows nothing of it. A call that
// waited in vain for a free connection was not sent either, but cannot be told from one that was.
func Unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// New returns a client for the server at origin whose requests carry the given Authorization header. The timeout is
// for a whole call, with its wait for a connection and the reading of the answer. At most 16 calls are under way at a
// time; more wait. The client may be used from several goroutines.
func New(origin *url.URL, authorization string, timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &transport{
			origin: origin, authorization: authorization,
			next: &http.Transport{
				Proxy:               nil, // a proxy variable must not redirect tokens
				DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
				MaxConnsPerHost:     16,
				MaxIdleConnsPerHost: 16,
				IdleConnTimeout:     30 * time.Second,
				TLSHandshakeTimeout: 5 * time.Second,
			},
		},
	}
}

// transport is where every request of a client passes.
type transport struct {
	origin        *url.URL
	authorization string
	next          http.RoundTripper
}

// RoundTrip refuses other origins and turns every status outside 2xx into a StatusError.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != t.origin.Scheme || req.URL.Host != t.origin.Host {
		return nil, fmt.Errorf("request to %s refused: this client speaks to %s only", req.URL.Host, t.origin.Host)
	}
	// The header is set here, after the origin was checked, and on a copy: the caller's request never holds the token,
	// so no error or log of it can.
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", t.authorization)
	req.Header.Set("User-Agent", "cc-ci-bridge")
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	// Redirects too: http.Client only follows what it sees, and a moved server is for a person to configure.
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, statusError(resp)
	}
	resp.Body = &limited{body: resp.Body, left: MaxAnswer}
	return resp, nil
}

// statusError reads the start of the answer for its message and closes it.
func statusError(resp *http.Response) error {
	status := &StatusError{Code: resp.StatusCode}
	text, readErr := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	var answer struct{ Message string }
	if readErr == nil && json.Unmarshal(text, &answer) == nil {
		status.Message = oneLine(answer.Message)
	} else if resp.StatusCode == http.StatusNotFound && len(text) > 0 {
		// Traefik says "404 page not found" of a service that has no running task, so while it is started again.
		// Gitea and Drone answer in JSON, or, where Gitea's only answer is yes or no, with nothing.
		status.Foreign = true
	}
	if err := resp.Body.Close(); err != nil {
		return errors.Join(status, err)
	}
	return status
}

// oneLine keeps at most 200 printable bytes, so that an answer cannot forge log lines.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "..."
	}
	return s
}

// limited is an answer's body that fails instead of filling the memory.
type limited struct {
	body io.ReadCloser
	left int64
}

// Read fails once the answer is longer than MaxAnswer.
func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, fmt.Errorf("answer is longer than %d bytes", MaxAnswer)
	}
	if int64(len(p)) > l.left {
		p = p[:l.left]
	}
	n, err := l.body.Read(p)
	l.left -= int64(n)
	return n, err
}

// Close closes the answer's body.
func (l *limited) Close() error { return l.body.Close() }
