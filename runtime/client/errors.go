package client

import (
	"errors"
	"fmt"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"
)

// The reasons for which a call ends in an error, for errors.Is.
var (
	// ErrOptimisticLock: the server's version of the stage or step is not the one that was sent. It is runner-go's
	// error of that name.
	ErrOptimisticLock = runner.ErrOptimisticLock

	// ErrTaken: the stage was accepted by another runner. It is an ErrOptimisticLock too.
	ErrTaken = fmt.Errorf("another runner has taken the stage: %w", runner.ErrOptimisticLock)

	// ErrCancelled: the server has ended the stage. It is an ErrOptimisticLock too.
	ErrCancelled = fmt.Errorf("the server has cancelled the stage: %w", runner.ErrOptimisticLock)

	// ErrUnauthorized: the server refuses the secret.
	ErrUnauthorized = errors.New("the Drone server refuses the runner's secret: " +
		"DRONE_RPC_SECRET must be the same on both")

	// ErrNoEndpoint: nothing answers at this path (404); cards are unknown to Drone 2.0.4 and older.
	ErrNoEndpoint = errors.New("no such endpoint: is DRONE_RPC_HOST the Drone server, and is that server up?")

	// ErrRedirected: the address is not the server's final one.
	ErrRedirected = errors.New("redirected")

	// ErrNotDrone: something answers, but not as Drone does.
	ErrNotDrone = errors.New("the answer is not Drone's: is DRONE_RPC_HOST the Drone server?")

	// ErrGone: the build, stage or step has been deleted on the server.
	ErrGone = errors.New("deleted on the server")

	// ErrNoStream: the step has no live log on the server; it has ended, or the server was restarted.
	ErrNoStream = errors.New("no live log for this step")

	// ErrDuplicate: the server already has it.
	ErrDuplicate = errors.New("the server already has it")

	// ErrTimeout: the server did not answer within the limit of this attempt.
	ErrTimeout = errors.New("no answer in time")

	// errProxy: the address of the proxy is no URL.
	errProxy = errors.New("the proxy's address is not a URL: correct http_proxy or https_proxy " +
		"(in a password, % is written %25)")
)

// Error is a call that the server did not answer as it should.
type Error struct {
	// Op is what was asked for, such as `accept stage 12`.
	Op string

	// Status is the answer's HTTP status; 0 if there was no answer.
	Status int

	// Err is what went wrong: one of the errors above, the network's error, or the answer's text.
	Err error

	kind kind

	// lost says that the server may have applied the call although no usable answer came back.
	lost bool
}

// Error names the call, the status and the reason in one line.
func (e *Error) Error() string {
	if e.Status == 0 {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("%s: %v (HTTP %d)", e.Op, e.Err, e.Status)
}

// Unwrap gives the reason and, where there was an answer, its status.
func (e *Error) Unwrap() []error {
	if e.Status == 0 {
		return []error{e.Err}
	}
	return []error{e.Err, status(e.Status)}
}

// status is the HTTP status of a fault that was answered. Callers find it as `interface{ StatusCode() int }` with
// errors.As; an error without one had no answer.
type status int

// Error names the status.
func (s status) Error() string { return fmt.Sprintf("HTTP %d", int(s)) }

// StatusCode is the status.
func (s status) StatusCode() int { return int(s) }

// LockError is a stage's report that the server refused because its version of the stage has moved on. It is an
// ErrOptimisticLock, and an ErrCancelled where the server has ended the stage.
type LockError struct {
	Op string

	// Server is the stage as the server has it, with the version that a report of `killed` must carry. It is nil
	// where the server could not be asked.
	Server *drone.Stage
}

// Error says what the server thinks of the stage.
func (e *LockError) Error() string {
	if e.Server == nil {
		return fmt.Sprintf("%s: %v", e.Op, ErrOptimisticLock)
	}
	return fmt.Sprintf("%s: %v: the server has it as %s, version %d",
		e.Op, e.Unwrap(), e.Server.Status, e.Server.Version)
}

// Unwrap gives ErrCancelled or ErrOptimisticLock.
func (e *LockError) Unwrap() error {
	if e.Server != nil && ended(e.Server.Status) {
		return ErrCancelled
	}
	return ErrOptimisticLock
}

// ended tells final statuses from those of a stage that still runs or waits.
func ended(status string) bool {
	switch status {
	case drone.StatusPending, drone.StatusRunning, drone.StatusBlocked, drone.StatusWaiting:
		return false
	}
	return true
}

// kind decides what is done about a fault.
type kind int

const (
	// passing faults go away by themselves: the network, a server that restarts, a 500.
	passing kind = iota

	// standing faults need a person: a wrong secret or address. They are asked again, slowly.
	standing

	// answered faults mean something: the caller decides.
	answered
)
