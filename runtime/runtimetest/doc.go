// Package runtimetest is a Drone server for tests: a real HTTP server on the loopback that speaks the runner API
// (/rpc/v2) with the real server's semantics and with faults where a test asks for them. It is imported by tests only.
//
//	srv := runtimetest.NewServer(t, runtimetest.Poll(time.Second))
//	srv.Script(runtimetest.Accept, runtimetest.LostReply(), 1) // the first accept is applied, its answer is cut off
//	job := srv.Enqueue(runtimetest.Job{Config: yaml})
//	... run what is tested against srv.Proto, srv.Host and srv.Secret ...
//	stage := srv.WaitStage(job.Stage, func(s drone.Stage) bool { return s.Status == drone.StatusPassing })
//
// What is like the real server (1.10 and 2.0.4):
//
//   - Every stage and step has a version; an update under another version is 409, or 500 with `Optimistic Lock Error`
//     in its text for a step that ends.
//   - PUT of a stage that is pending or running updates the stage, then inserts every step it carries. The two are not
//     one transaction, and a number that is taken is 500. The ids are told in that answer and never again.
//   - A stage is offered until it has a machine, to one waiting runner at each wake-up (a new stage, a new poll).
//   - A cancel ends the build, tells only the watches that are open, moves every version, and frees its limit at once.
//   - Live log lines are taken between a step's running and its end, and are 500 `stream: not found` at other times.
//     A log is stored once; a second upload is 500.
//   - Long polls and watches end with 204 after 30 seconds (see Poll).
//   - Cards are 404 unless the server was made with Cards.
//
// What is not: there is no forge, the order among waiting runners is that of arrival, and nothing is ever reaped. No
// database means none of its errors. Where the real server's source is named, it is that of Drone 1.10.1.
//
// Everything happens under one lock, so a test sees the state before a call or after it, nothing in between. A Server
// may be used from any goroutine, but the helpers that fail the test belong into the test's own.
//
// server.go has the server and its routes, http.go the way of a request through the faults of fault.go to its handler,
// queue.go and report.go the handlers, state.go what they change and what a test asks for it.
package runtimetest
