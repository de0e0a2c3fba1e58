package client

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// networkFault is an exchange that ended without a whole answer.
func (c *Client) networkFault(err error) *Error {
	// The wrapper repeats the URL, which the operation's name already stands for. A time-out arrives here as the
	// context's error; once, which knows the limit, puts ErrTimeout in its place.
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	fault := &Error{Err: err, kind: passing, lost: true}
	var cert *tls.CertificateVerificationError
	// net/http has no types for some of these: its words are all there is to go by.
	switch text := err.Error(); {
	case errors.Is(err, errProxy):
		fault.kind = standing
	case errors.As(err, &cert):
		fault.kind = standing
		fault.Err = errors.New("the server's certificate is not trusted: add its authority to this host, " +
			"or set DRONE_RPC_SKIP_VERIFY=true (" + c.clean(text) + ")")
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		fault.kind = standing
		fault.Err = errors.New("the server speaks http, not https: set DRONE_RPC_PROTO=http")
	}
	return fault
}

// statusFault is an answer other than 200 and 204. Drone itself gives 401, 403 (it has no secret of its own), 404 for a
// path that it does not know, 409 and 500 (operator/manager/rpc2 of Drone); everything else is from what stands before
// it, or is no Drone.
func (c *Client) statusFault(cl *call, res *http.Response, body []byte) *Error {
	fault := &Error{Status: res.StatusCode, kind: passing}
	text := c.clean(string(body))
	switch code := res.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		fault.kind, fault.Err = standing, ErrUnauthorized
	case code == http.StatusNotFound:
		fault.kind, fault.Err = standing, ErrNoEndpoint
		if cl.optional {
			fault.kind = answered
		}
	case code >= 300 && code < 400:
		fault.kind, fault.Err = standing, redirectError(res)
	case code == http.StatusConflict && cl.versioned:
		fault.kind, fault.Err = answered, ErrOptimisticLock
	case code == http.StatusConflict || code == http.StatusRequestTimeout ||
		code == http.StatusTooEarly || code == http.StatusTooManyRequests:
		fault.Err = textError(text)
	case code >= 500:
		fault.kind, fault.Err = serverFault(text)
		// A gateway's answer says nothing about what the server behind it did.
		fault.lost = code == http.StatusBadGateway || code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout
	case code == http.StatusBadRequest && strings.Contains(text, "HTTP request to an HTTPS server"):
		fault.kind, fault.Err = standing, errors.New("the server speaks https, not http: set DRONE_RPC_PROTO=https")
	case code >= 400:
		fault.kind, fault.Err = answered, textError(text)
	default:
		fault.kind, fault.Err = standing, ErrNotDrone
	}
	return fault
}

// serverFault reads the text of a 500, which is how Drone reports everything but a lost lock, and that too where it
// is one of several errors.
func serverFault(text string) (kind, error) {
	low := strings.ToLower(text)
	switch {
	case strings.Contains(low, "optimistic lock error"):
		return answered, ErrOptimisticLock
	case strings.Contains(low, "sql: no rows in result set"):
		return answered, ErrGone
	case strings.Contains(low, "stream: not found"):
		return answered, ErrNoStream
	case strings.Contains(low, "unique constraint"), strings.Contains(low, "duplicate entry"):
		return answered, ErrDuplicate
	}
	return passing, textError(text)
}

// textError is a server's own words.
func textError(text string) error {
	if text == "" {
		return errors.New("the server gave no reason")
	}
	return errors.New(text)
}

// redirectError names the setting that makes the redirect go away, and no more of the target than its address.
func redirectError(res *http.Response) error {
	target, err := res.Location()
	if err != nil || target.Host == "" {
		return &redirect{"the server redirects to nowhere: is DRONE_RPC_HOST the Drone server?"}
	}
	from := res.Request.URL
	if target.Scheme != from.Scheme && target.Hostname() == from.Hostname() {
		return &redirect{"the server redirects to " + target.Scheme + ": set DRONE_RPC_PROTO=" + target.Scheme}
	}
	if target.Host != from.Host {
		return &redirect{"the server redirects to " + target.Scheme + "://" + target.Host +
			": set DRONE_RPC_PROTO and DRONE_RPC_HOST to where the Drone server is"}
	}
	return &redirect{"the server redirects to another path: is DRONE_RPC_HOST the Drone server?"}
}

// redirect is an ErrRedirected that says what to do.
type redirect struct{ text string }

func (r *redirect) Error() string { return r.text }
func (r *redirect) Unwrap() error { return ErrRedirected }

// clean makes a server's text fit for an error: one line, bounded, without the secret.
func (c *Client) clean(text string) string {
	text = c.hide.Replace(text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "…"
	}
	return text
}
