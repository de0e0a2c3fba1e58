package runtimetest

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/drone/drone-go/drone"
)

// Request is one call that the server got, also one that a fault kept from being applied.
type Request struct {
	Time   time.Time
	Call   Call
	Method string
	Path   string

	// Body is what was sent, its first 64 KiB.
	Body []byte

	// Status is what it was answered with: 0 for nothing (yet, or because of a fault).
	Status int

	// Fault is the name of the fault that it got.
	Fault string
}

// Stage decodes the body of a report of a stage.
func (r Request) Stage() drone.Stage {
	var stage drone.Stage
	_ = json.Unmarshal(r.Body, &stage) // a body that is no stage is a zero stage, which no test takes for one
	return stage
}

// Step decodes the body of a report of a step.
func (r Request) Step() drone.Step {
	var step drone.Step
	_ = json.Unmarshal(r.Body, &step) // as above
	return step
}

// maxRecorded is how much of a body is kept.
const maxRecorded = 64 << 10

// begin records a request and returns where.
func (s *Server) begin(r Request) int {
	r.Body = r.Body[:min(len(r.Body), maxRecorded):min(len(r.Body), maxRecorded)]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past = append(s.past, r)
	s.touch()
	return len(s.past) - 1
}

// finish records how a request was answered.
func (s *Server) finish(record, status int, fault string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past[record].Status, s.past[record].Fault = status, fault
	s.touch()
}

// Requests returns the requests so far in the order of their arrival: all, or those of these calls.
func (s *Server) Requests(calls ...Call) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Request
	for _, r := range s.past {
		if len(calls) == 0 || slices.Contains(calls, r.Call) {
			out = append(out, r)
		}
	}
	return out
}

// WaitRequests waits until there were n requests of the call.
func (s *Server) WaitRequests(call Call, n int) []Request {
	s.tb.Helper()
	s.Wait(string(call), func() bool { return len(s.Requests(call)) >= n })
	return s.Requests(call)
}

// RequestRate is the highest number of requests per second that any stretch of this length has seen, counting these
// calls or all. It is for tests of storms: a runner that does not pause after a fault makes thousands a second.
func (s *Server) RequestRate(window time.Duration, calls ...Call) float64 {
	past := s.Requests(calls...)
	most, from := 0, 0
	for to := range past {
		for past[to].Time.Sub(past[from].Time) >= window {
			from++
		}
		most = max(most, to-from+1)
	}
	return float64(most) / window.Seconds()
}
