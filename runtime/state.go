package runtime

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

// maxErrorText is where the server cuts an error's text, in bytes (operator/manager/setup.go, teardown.go and
// updater.go of Drone). It would cut a character in two, so that is done here.
const maxErrorText = 500

// exitSkipRest is the exit code by which a step skips all that would come after it, and succeeds. The number is
// runner-go's.
const exitSkipRest = 78

// exitNotRun is the exit code of a step that could not be run at all, the same as with runner-go.
const exitNotRun = 255

// outcome is how a step ended, in the server's words.
type outcome struct {
	status string
	code   int

	// text is the step's error; empty for a step that only failed, since the code and the log say why. withLog masks
	// it.
	text string
}

// The methods of entry below are called with the record's lock held (from what record.read, note, keep and change are
// given), or while nobody else knows the record.

// step finds a step by name. An unknown name gives nil.
func (e *entry) step(name string) *stepEntry {
	for _, s := range e.Steps {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// failing tells whether a step has failed that nobody asked to ignore. It looks at the steps, not at the stage's
// status, which stays `running` until the end.
func (e *entry) failing() bool {
	for _, s := range e.Steps {
		if !s.ErrIgnore && failed(s.Status) {
			return true
		}
	}
	return false
}

// begin marks a step as started. It returns false for a step that is unknown or has started before.
func (e *entry) begin(name string) bool {
	s := e.step(name)
	if s == nil || s.Status != drone.StatusPending {
		return false
	}
	s.Status, s.Started = drone.StatusRunning, time.Now().Unix()
	return true
}

// end marks a step as ended, once: what came first stays.
func (e *entry) end(name string, o outcome) {
	s := e.step(name)
	if s == nil || final(s.Status) {
		return
	}
	now := time.Now().Unix()
	if s.Started == 0 {
		s.Started = now // the server shows a step without a start as pending
	}
	// A clock that was set back meanwhile must not make the step end before it began.
	s.Status, s.ExitCode, s.Error, s.Stopped = o.status, o.code, clip(o.text), max(now, s.Started)
	if s.ErrIgnore && s.Status == drone.StatusError {
		// The environment of later steps counts an ignored `error` as a failing stage, but never an ignored failure.
		s.Status = drone.StatusFailing
	}
}

// hurt tells whether a step did not come to its own end, or was never reached: what a stop of the runner has done to
// the stage.
func (e *entry) hurt() bool {
	for _, s := range e.Steps {
		if !final(s.Status) || s.Error == engine.ErrStopped.Error() {
			return true
		}
	}
	return false
}

// skipPending marks what has not started as skipped.
func (e *entry) skipPending() {
	for _, s := range e.Steps {
		if s.Status == drone.StatusPending {
			e.end(s.Name, outcome{status: drone.StatusSkipped})
		}
	}
}

// conclude gives the stage its result. Its exit code is that of the first step that failed. A cancelled stage is
// `killed` whatever its steps came to, because the server must be sent nothing else.
func (e *entry) conclude(status, text string) {
	st := e.Stage
	st.Status, st.Error = status, clip(text)
	st.Stopped = max(time.Now().Unix(), st.Started) // see end
	if st.Started == 0 {
		st.Started = st.Stopped
	}
	for _, s := range e.Steps {
		if st.ExitCode == 0 && !s.ErrIgnore && failed(s.Status) {
			st.ExitCode = s.ExitCode
		}
	}
	if e.Cancelled {
		st.Status = drone.StatusKilled
	}
}

// result is the status that the steps alone come to: one that could not be run weighs more than one that failed.
func (e *entry) result() string {
	status := drone.StatusPassing
	for _, s := range e.Steps {
		switch {
		case s.ErrIgnore:
		case s.Status == drone.StatusError:
			return drone.StatusError
		case failed(s.Status):
			status = drone.StatusFailing
		}
	}
	return status
}

// snapshot is a copy of the stage with its steps, as environments and the dashboard see it. Labels and dependencies are
// shared with the entry; nobody changes them.
func (e *entry) snapshot() *drone.Stage {
	st := *e.Stage
	st.Steps = make([]*drone.Step, len(e.Steps))
	for i, s := range e.Steps {
		c := s.Step
		st.Steps[i] = &c
	}
	return &st
}

func failed(status string) bool {
	return status == drone.StatusFailing || status == drone.StatusError || status == drone.StatusKilled
}

// final tells whether the server takes the status as an end.
func final(status string) bool {
	switch status {
	case drone.StatusPending, drone.StatusRunning, drone.StatusWaiting, drone.StatusBlocked, "":
		return false
	}
	return true
}

// clip cuts a text to what the server keeps, between two characters.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= maxErrorText {
		return s
	}
	const mark = " ..."
	n := maxErrorText - len(mark)
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}

// outcomeOf says how a step ended from what the engine measured. An error means that the step's commands could not be
// run to an end. Whether the stage's time or a cancel was the reason is for build.judge, which knows the context.
func outcomeOf(st *engine.State, err error) outcome {
	o := outcome{status: drone.StatusPassing}
	if st == nil {
		o.status, o.code = drone.StatusError, exitNotRun
		if err == nil {
			o.text = "the step ended without a result"
		}
	} else {
		o.code = st.ExitCode
		switch st.Reason {
		case engine.TimedOut, engine.Stopped:
			o.status = drone.StatusError
		case engine.Cancelled:
			o.status = drone.StatusKilled
		case engine.OutOfMemory, engine.DiskFull:
			o.status, o.text = drone.StatusFailing, string(st.Reason)
		default:
			if o.code != 0 && o.code != exitSkipRest {
				o.status = drone.StatusFailing
			}
		}
	}
	if err != nil {
		o.text = err.Error()
		if o.status == drone.StatusPassing {
			o.status = drone.StatusError
		}
	}
	return o
}

// timeoutText is the sentence for a limit in time that was reached.
func timeoutText(what string, limit time.Duration) string {
	return fmt.Sprintf("timeout: the %s ran longer than %s", what, limit)
}
