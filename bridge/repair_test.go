package bridge_test

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
)

// TestNamedCommitIsNotSuperseded names a commit that is not the head: reading the pull request again must not take that
// for a push, and a push that does come ends the run like any other.
func TestNamedCommitIsNotSuperseded(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.CatchUp = 5 * time.Millisecond })
	b.gitea.Push(1, bridgetest.SHA("b"), "wim", time.Now())
	b.say("wim", 1, "!testme 1111111", 202)
	b.built(1)
	looks := func() int {
		return strings.Count(strings.Join(b.gitea.Asked(), "\n")+"\n", "/repos/org/app/pulls/1\n")
	}
	before := looks()
	b.until("the pull request was read again", func() bool { return looks() > before+2 })
	b.drone.Set(1, "running")
	if text := b.reply(1, "running").Body; strings.Contains(text, "moved") {
		t.Errorf("who named the commit is told of the head: %s", text)
	}
	b.gitea.Push(1, bridgetest.SHA("c"), "wim", time.Now())
	b.reply(1, "Superseded by a push of `cccccccccc`.")
}

// TestBuildThatCannotBeWrittenDown lets the audit log fail after Drone has made the build: it is not made again.
func TestBuildThatCannotBeWrittenDown(t *testing.T) {
	b := newBed(t, nil)
	left := 5
	b.audit.fail = func(line []byte) error {
		if left == 0 || !bytes.Contains(line, []byte(`"triggered"`)) {
			return nil
		}
		left--
		return errors.New("no space left on device")
	}
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.drone.Set(1, "success")
	b.reply(1, "**success**")
	b.idle()
	b.built(1)
}

// TestBuildIsMissedNowAndThen answers 404 once in a while: only several in a row mean that the build is gone.
func TestBuildIsMissedNowAndThen(t *testing.T) {
	b := newBed(t, nil)
	asked := 0
	b.drone.Script(func(r *http.Request) bridgetest.Fault {
		if asked++; r.Method == http.MethodGet && asked%2 == 0 {
			return bridgetest.Fault{Status: 404}
		}
		return bridgetest.Fault{}
	})
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.until("some looks failed", func() bool { return strings.Count(b.log.String(), "HTTP status 404") > 6 })
	b.drone.Set(1, "success")
	b.reply(1, "**success**")
}
