package runtimetest

import (
	"fmt"
	"net/http"
	"slices"
	"time"
)

// Call names a call of the runner API. PUT of a stage or a step counts as two calls, by the status that is reported.
type Call string

// The calls.
const (
	Ping         Call = "ping"
	RequestStage Call = "request"
	Accept       Call = "accept"
	Detail       Call = "detail"
	StageRunning Call = "stage running"
	StageFinal   Call = "stage final"
	StepRunning  Call = "step running"
	StepFinal    Call = "step final"
	Watch        Call = "watch"
	Batch        Call = "batch"
	Upload       Call = "upload"
	Card         Call = "card"
)

// Calls returns every call, in the order in which a build makes them.
func Calls() []Call {
	return []Call{Ping, RequestStage, Accept, Detail, Watch, StageRunning, StepRunning, Batch, Upload, Card, StepFinal, StageFinal}
}

// Fault is what a call gets instead of, or on top of, its answer. It is a value without state and may be scripted
// many times.
type Fault struct {
	// Name says which fault it is, for the names of subtests.
	Name string

	mode   mode
	status int
	body   string
	header http.Header
	delay  time.Duration
}

// mode is how a fault goes about it.
type mode int

const (
	instead   mode = iota // answer with status and body; the call is not applied
	hang                  // not applied and never answered
	reset                 // not applied, connection reset
	lostReply             // applied, connection cut before the answer
	stall                 // applied and never answered
	truncate              // applied, the answer cut in its middle
	slow                  // applied and answered, later
)

// Status answers with an HTTP status, and does not apply the call.
func Status(code int) Fault {
	return Fault{Name: fmt.Sprint(code), status: code, body: http.StatusText(code)}
}

// StatusText answers with an HTTP status and this text, and does not apply the call.
func StatusText(code int, text string) Fault {
	return Fault{Name: fmt.Sprintf("%d %s", code, text), status: code, body: text}
}

// Empty answers 204 at once.
func Empty() Fault { return Fault{Name: "204", status: http.StatusNoContent} }

// Redirect answers with a redirect.
func Redirect(location string) Fault {
	return Fault{Name: "redirect", status: http.StatusFound, header: http.Header{"Location": {location}}}
}

// HTML answers 200 with a page, as what is not a Drone server does.
func HTML() Fault {
	return Fault{Name: "html", status: http.StatusOK, body: "<!doctype html><title>Welcome</title>",
		header: http.Header{"Content-Type": {"text/html"}}}
}

// Hang neither applies nor answers the call, until the client gives up or the test ends.
func Hang() Fault { return Fault{Name: "hang", mode: hang} }

// Reset does not apply the call and resets the connection.
func Reset() Fault { return Fault{Name: "reset", mode: reset} }

// LostReply applies the call and cuts the connection before the answer.
func LostReply() Fault { return Fault{Name: "lost reply", mode: lostReply} }

// Stall applies the call and never answers.
func Stall() Fault { return Fault{Name: "stall", mode: stall} }

// Truncate applies the call and cuts its answer in the middle.
func Truncate() Fault { return Fault{Name: "truncated reply", mode: truncate} }

// Slow applies the call and answers it, after a while.
func Slow(d time.Duration) Fault { return Fault{Name: "slow", mode: slow, delay: d} }

// Faults returns the faults that every call must survive.
func Faults() []Fault {
	faults := []Fault{Empty(), Redirect("https://drone.example.com/"), HTML(), Hang(), Reset(), LostReply(), Stall(), Truncate()}
	for _, code := range []int{401, 403, 404, 409, 500, 501, 502, 503} {
		faults = append(faults, Status(code))
	}
	return faults
}

// script is a fault that waits for its calls.
type script struct {
	call  Call
	fault Fault
	nth   []int // empty: every one
	seen  int
}

// Script makes calls of this kind fail: the nth ones (1 is the next one), or every one where no nth is given. Of
// several scripts for a call the one made first that is due is followed.
func (s *Server) Script(call Call, fault Fault, nth ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts = append(s.scripts, &script{call: call, fault: fault, nth: nth})
}

// Down makes every call fail as if the server were away, until Heal. Connections are still taken, and reset: the port
// stays the server's.
func (s *Server) Down() {
	for _, call := range Calls() {
		s.Script(call, Reset())
	}
	s.http.CloseClientConnections()
}

// Heal forgets every script.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts = nil
}

// due counts the call and returns its fault, nil for none. Every script for the call counts it, also one that is not
// followed.
func (s *Server) due(call Call) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var due *Fault
	for _, sc := range s.scripts {
		if sc.call != call {
			continue
		}
		sc.seen++
		if due == nil && (len(sc.nth) == 0 || slices.Contains(sc.nth, sc.seen)) {
			due = &sc.fault
		}
	}
	return due
}
