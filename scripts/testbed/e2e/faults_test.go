package e2e

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// faults lets a Proxy lose the first reply to each of the calls that change something on the server.
type faults struct {
	mu    sync.Mutex
	calls map[string]*regexp.Regexp
}

func newFaults() *faults {
	return &faults{calls: map[string]*regexp.Regexp{
		"accept":      regexp.MustCompile(`^POST /rpc/v2/stage/\d+$`),
		"stage":       regexp.MustCompile(`^PUT /rpc/v2/stage/\d+$`),
		"step":        regexp.MustCompile(`^PUT /rpc/v2/step/\d+$`),
		"upload logs": regexp.MustCompile(`^POST /rpc/v2/step/\d+/logs/upload$`),
	}}
}

func (f *faults) rule(request *http.Request) testbed.Action {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, call := range f.calls {
		if call.MatchString(request.Method + " " + request.URL.Path) {
			delete(f.calls, name)
			return testbed.DropReply
		}
	}
	return testbed.Pass
}

// unused lists the calls that nobody made.
func (f *faults) unused() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name := range f.calls {
		names = append(names, name)
	}
	return names
}

// timeIn finds the line of `date +%s.%N` in a log.
func timeIn(t *testing.T, log string) time.Time {
	t.Helper()
	for _, line := range strings.Split(log, "\n") {
		whole, fraction, ok := strings.Cut(line, ".")
		seconds, err := strconv.ParseInt(whole, 10, 64)
		nanos, err2 := strconv.ParseInt(fraction, 10, 64)
		if ok && err == nil && err2 == nil {
			return time.Unix(seconds, nanos)
		}
	}
	t.Fatalf("no time in %q", log)
	return time.Time{}
}
