package runtimetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// errNotFound is answered with 404.
var errNotFound = errors.New("404 page not found")

// handlerFunc is a call's work: what to answer, or the error.
type handlerFunc func(r *http.Request, body []byte) (any, error)

// answer is a call's answer before it is written.
type answer struct {
	status int
	body   []byte
}

// always is for paths that are one call.
func always(call Call) func(*http.Request, []byte) Call {
	return func(*http.Request, []byte) Call { return call }
}

// byStatus tells reports of a beginning from those of an end. The real server does the same by the body's status
// (HandleUpdateStage and HandleUpdateStep in operator/manager/rpc2/handler.go). A body that says nothing counts as a
// beginning.
func byStatus(before, after Call) func(*http.Request, []byte) Call {
	return func(_ *http.Request, body []byte) Call {
		var sent struct{ Status string }
		if json.Unmarshal(body, &sent) == nil && done(sent.Status) && sent.Status != "" {
			return after
		}
		return before
	}
}

// pathID is the id in the path; what is no number is 0, as for the real server.
func pathID(r *http.Request) int64 {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return 0
	}
	return id
}

// intercept reads a request whole, records it, and answers it in the way that the script asks for. The secret is
// looked at before the script, as the real server's middleware is before its handlers: a runner with a wrong one uses
// up no fault.
func (s *Server) intercept(which func(*http.Request, []byte) Call, serve handlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			body = nil // the client gave up in the middle
		}
		call := which(r, body)
		record := s.begin(Request{Time: start, Call: call, Method: r.Method, Path: r.URL.RequestURI(), Body: body})
		switch {
		case err != nil:
			s.finish(record, 0, "")
			return
		case r.Header.Get("X-Drone-Token") != s.Secret:
			s.finish(record, http.StatusUnauthorized, "")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fault := s.due(call)
		if fault == nil {
			got := run(serve, r, body)
			s.finish(record, got.status, "")
			got.write(w)
			return
		}
		s.finish(record, fault.status, fault.Name)
		s.fail(w, r, fault, func() answer { return run(serve, r, body) })
	})
}

// run does the call's work and maps its error to a status as writeError in operator/manager/rpc2/handler.go does:
// 204, 409, and 500 for all else.
func run(serve handlerFunc, r *http.Request, body []byte) answer {
	v, err := serve(r, body)
	switch {
	case errors.Is(err, errNotFound):
		return answer{http.StatusNotFound, []byte(err.Error())}
	case errors.Is(err, context.DeadlineExceeded):
		return answer{status: http.StatusNoContent}
	case err == errLock: //nolint:errorlint // the real server does not look into lists of errors either
		return answer{http.StatusConflict, []byte(err.Error())}
	case err != nil:
		return answer{http.StatusInternalServerError, []byte(err.Error())}
	case v == nil:
		return answer{status: http.StatusOK}
	}
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		return answer{http.StatusInternalServerError, []byte(err.Error())}
	}
	return answer{http.StatusOK, b.Bytes()}
}

// write sends the answer. A client that has gone does not matter.
func (a answer) write(w http.ResponseWriter) {
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

// fail answers as the fault says. What hangs ends with the client, with the server, or after a minute, so that no
// test waits for ever.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, fault *Fault, apply func() answer) {
	switch fault.mode {
	case instead:
		for name, values := range fault.header {
			w.Header()[name] = values
		}
		answer{fault.status, []byte(fault.body)}.write(w)
	case slow:
		s.sleep(r.Context(), fault.delay)
		apply().write(w)
	case stall:
		apply()
		s.sleep(r.Context(), deadline)
	case hang:
		s.sleep(r.Context(), deadline)
	case reset:
		cut(w, nil)
	case lostReply:
		apply()
		cut(w, nil)
	case truncate:
		got := apply()
		cut(w, &got)
	}
}

// cut ends the connection: at once, or after half of an answer.
func cut(w http.ResponseWriter, half *answer) {
	conn, out, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the server's own way to cut a connection that cannot be taken over
	}
	// The length promises one byte more than there is in all, so the client sees an end that came too early. Without
	// lingering, a close is a reset to the other side and not an orderly end (see SO_LINGER in socket(7)).
	//
	// Writes and closes may fail because the client has gone, which is as good as what they are for.
	if half != nil {
		_, _ = fmt.Fprintf(out, "HTTP/1.1 %d Cut\r\nContent-Length: %d\r\n\r\n%s",
			half.status, len(half.body)+1, half.body[:len(half.body)/2])
		_ = out.Flush()
	} else if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// sleep waits for d, or until the client has gone or the server closes.
func (s *Server) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-s.quit:
	}
}
