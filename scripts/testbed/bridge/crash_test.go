package bridge_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// TestKilled kills the bridge again and again while comments are on their way through real servers: one build and one
// answer for each, none lost.
func TestKilled(t *testing.T) {
	t.Parallel()
	kills, comments := 10, 20
	if os.Getenv("CC_CI_TEST_FULL") != "" {
		kills = 100
	}
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "killed"}, map[string]string{
		"CATCH_UP": "1s", "USER_BURST": "1000", "PULL_BURST": "1000", "REPO_BURST": "1000"})
	fork, err := the.fred.Fork(b.ctx, b.repo)
	b.check(err)
	var pulls []int64
	for i := range comments {
		pr, _ := b.pullFrom(fork, fmt.Sprintf("work-%d", i))
		pulls = append(pulls, pr)
	}
	the.hand.decide("killed", "success")
	written := make(chan error, 1)
	go func() {
		for _, pr := range pulls {
			if _, err := the.wim.Comment(b.ctx, b.repo, pr, "!testme"); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	random := rand.New(rand.NewPCG(1, 1))
	began := time.Now()
	for range kills {
		time.Sleep(time.Duration(random.IntN(600)) * time.Millisecond) // a random point is what is wanted
		b.kill()
		b.start()
	}
	b.check(<-written)
	t.Logf("killed %d times in %s while %d comments were on their way", kills, time.Since(began).Round(time.Second), comments)
	for _, pr := range pulls {
		b.reply(pr, "**success**")
		if n := len(b.builds(pr)); n != 1 {
			t.Errorf("pull request %d has %d builds, want 1", pr, n)
		}
	}
}

// trap stands before both servers, counts a bridge's calls and kills it at one of them.
type trap struct {
	mu     sync.Mutex
	calls  int
	at     int  // the call to kill it at; 0 is none
	after  bool // the server has done what the call asks for
	kill   func()
	hit    bool          // it has killed, or is about to
	sprung chan struct{} // closed when the bridge is dead
}

// before starts a front for one server.
func (p *trap) before(t *testing.T, target string) string {
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(to)
	forward.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.calls++
		now, after, sprung := p.calls == p.at, p.after, p.sprung
		p.hit = p.hit || now
		p.mu.Unlock()
		if !now {
			forward.ServeHTTP(w, r)
			return
		}
		if after {
			forward.ServeHTTP(httptest.NewRecorder(), r)
		}
		p.kill()
		close(sprung)
		panic(http.ErrAbortHandler) // nobody is there to be answered
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// set prepares the trap for the next comment and returns how many calls there were since the last.
func (p *trap) set(at int, after bool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.calls
	p.calls, p.at, p.after, p.hit, p.sprung = 0, at, after, false, make(chan struct{})
	return calls
}

// disarm returns whether the bridge was killed, once it is dead. The bridge calls also when no comment needs it, so a
// trap that was not met by the end of a run may still spring after it.
func (p *trap) disarm() bool {
	p.mu.Lock()
	p.at = 0
	hit, sprung := p.hit, p.sprung
	p.mu.Unlock()
	if hit {
		<-sprung
	}
	return hit
}

// TestKilledAtEveryCall kills the bridge before and after each call to the real servers that a comment needs, which leaves
// and enters every state of a request. A run that is not full takes every eighth point.
func TestKilledAtEveryCall(t *testing.T) {
	t.Parallel()
	every := 8
	if os.Getenv("CC_CI_TEST_FULL") != "" {
		every = 1
	}
	p := &trap{sprung: make(chan struct{})}
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "trapped"}, map[string]string{
		"GITEA_URL": p.before(t, the.bed.Gitea.URL()), "DRONE_URL": p.before(t, the.bed.Drone.URL()),
		"CATCH_UP": "1s", "USER_BURST": "1000", "REPO_BURST": "1000"})
	p.kill = b.kill
	fork, err := the.fred.Fork(b.ctx, b.repo)
	b.check(err)
	the.hand.decide("trapped", "success")
	point, kills, calls := 0, 0, 1
	for at := 0; at <= calls; at++ { // the first round only counts
		for _, after := range []bool{false, true} {
			if point++; at > 0 && point%every != 0 {
				continue
			}
			pr, _ := b.pullFrom(fork, fmt.Sprintf("at-%d-%t", at, after))
			p.set(at, after)
			b.comment(the.wim, pr, "!testme")
			b.until("the run is over, or the bridge is dead", func() bool {
				select {
				case <-p.sprung:
					return true
				default:
					replies := b.replies(pr)
					return len(replies) > 0 && strings.Contains(replies[0].Body, "**success**")
				}
			})
			if p.disarm() {
				kills++
				b.start()
			}
			b.reply(pr, "**success**")
			if n := len(b.builds(pr)); n != 1 {
				t.Errorf("killed at call %d (after: %t): %d builds, want 1", at, after, n)
			}
			if at == 0 {
				calls = p.set(0, false)
			}
		}
	}
	t.Logf("killed %d times at the %d calls of a comment", kills, calls)
	if kills == 0 {
		t.Error("the bridge was never killed")
	}
}

// shown is everything that the bridge has written for operators.
func (b *bridge) shown() string {
	b.Helper()
	var s strings.Builder
	for _, path := range []string{"log", "state/audit.jsonl"} {
		text, err := os.ReadFile(b.dir + "/" + path)
		b.check(err)
		s.Write(text)
	}
	s.WriteString(b.get(b.statusURL + "/metrics"))
	return s.String()
}
