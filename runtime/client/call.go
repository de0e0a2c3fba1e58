package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// Answers are bounded, so that nothing that answers in the server's place can fill the runner's memory. Details carry
// the whole configuration and every secret.
const (
	maxAnswer  = 4 << 20
	maxDetails = 64 << 20
)

// call is one request to the server, and what is known about its attempts so far. It belongs to one goroutine.
type call struct {
	// op names it in errors and logs; path is below /rpc/v2, and its parameters are escaped.
	op     string
	method string
	path   string

	// body is sent as it is; stream, where set, makes the body anew for each attempt instead.
	body   []byte
	stream func() io.Reader

	// decode takes the answer's body. It must change nothing unless it returns nil.
	decode func([]byte) error

	// empty is what 204 means: an answer for the long polls, a fault everywhere else.
	empty bool

	// versioned says that the call can lose a lock; from any other call a 409 is a fault like a 500.
	versioned bool

	// optional says that the server may not know this call at all, so that a 404 is an answer.
	optional bool

	// limit bounds one attempt, patience all that are answered with a fault (0: no bound; see Timing.Patience), max the
	// bytes of an answer.
	limit    time.Duration
	patience time.Duration
	max      int64

	// lost counts the attempts that the server may have applied although no usable answer came back.
	lost int
}

// jsonCall is a call with v as its body (nil for none) whose answer is decoded by decode (nil for no matter).
func (c *Client) jsonCall(method, path string, v any, decode func([]byte) error) (*call, error) {
	cl := &call{method: method, path: path, decode: decode, limit: c.timing.Call, max: maxAnswer}
	if v == nil {
		return cl, nil
	}
	body, err := json.Marshal(v)
	cl.body = body
	return cl, err
}

// into decodes an answer into a fresh value, which is handed to take when it is whole.
func into[T any](take func(*T) error) func([]byte) error {
	return func(data []byte) error {
		v := new(T)
		if err := json.Unmarshal(data, v); err != nil {
			// Not wrapped: the JSON error quotes what was read, which may be anything.
			return errors.New("not the expected JSON")
		}
		return take(v)
	}
}

// once makes one attempt. It returns the answer's status (200 or 204), or the fault.
func (c *Client) once(ctx context.Context, cl *call) (int, *Error) {
	attempt, cancel := context.WithTimeoutCause(ctx, cl.limit, ErrTimeout)
	defer cancel()
	// What never left this host (no connection, a refused handshake) was not applied. The trace errs on the safe side:
	// headers that wait in a buffer count as sent.
	var sent atomic.Bool
	attempt = httptrace.WithClientTrace(attempt, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})

	status, fault := c.exchange(attempt, cl)
	if fault != nil {
		fault.Op = cl.op
		fault.lost = fault.lost && sent.Load()
		if fault.lost {
			cl.lost++
		}
		if fault.Status == 0 && ctx.Err() == nil && context.Cause(attempt) == ErrTimeout {
			fault.Err = fmt.Errorf("%w (%s)", ErrTimeout, cl.limit)
		}
		if ctx.Err() != nil {
			return 0, fault // the end of the context says nothing about the server
		}
	}
	c.observe(fault)
	return status, fault
}

// exchange sends the request and reads the whole answer.
func (c *Client) exchange(ctx context.Context, cl *call) (int, *Error) {
	req, err := c.request(ctx, cl)
	if err != nil {
		return 0, &Error{Err: err, kind: answered}
	}
	// Go's transport sends a POST or PUT a second time by itself only where the server cannot have begun with it.
	res, err := c.http.Do(req)
	if err != nil {
		c.dump.exchange(cl, req, nil, nil)
		return 0, c.networkFault(err)
	}
	// Read to its end whatever the status, or the connection could not be used again.
	body, err := io.ReadAll(io.LimitReader(res.Body, cl.max+1))
	err = errors.Join(err, res.Body.Close())
	c.dump.exchange(cl, req, res, body)

	switch {
	case res.StatusCode != http.StatusOK && res.StatusCode != http.StatusNoContent:
		return 0, c.statusFault(cl, res, body)
	case err != nil:
		return 0, c.networkFault(fmt.Errorf("read the answer: %w", err))
	case int64(len(body)) > cl.max:
		return 0, &Error{Status: res.StatusCode, Err: fmt.Errorf("the answer is larger than %d bytes", cl.max), kind: standing, lost: true}
	case res.StatusCode == http.StatusNoContent && !cl.empty:
		// The server writes 204 for a context of its own that ended: whatever was asked for may have happened.
		return 0, &Error{Status: res.StatusCode, Err: errors.New("the server gave up on the call"), kind: passing, lost: true}
	case res.StatusCode == http.StatusOK && cl.decode != nil:
		if err := cl.decode(body); err != nil {
			return 0, &Error{Status: res.StatusCode, Err: fmt.Errorf("%w (%v)", ErrNotDrone, err), kind: standing, lost: true}
		}
	}
	return res.StatusCode, nil
}

// request builds the HTTP request of one attempt.
func (c *Client) request(ctx context.Context, cl *call) (*http.Request, error) {
	var body io.Reader
	switch {
	case cl.stream != nil:
		body = cl.stream()
	case cl.body != nil:
		body = bytes.NewReader(cl.body)
	}
	req, err := http.NewRequestWithContext(ctx, cl.method, c.base+cl.path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Drone-Token", c.secret)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}
