package bridge_test

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/drone"
)

// TestEveryEnding shows how each end of a run reads.
func TestEveryEnding(t *testing.T) {
	cases := []struct{ begin, end, text, state, reaction string }{
		{"pending", "failure", "**failure** after 3m12s in step `test/run`", "failure", "-1"},
		{"pending", "killed", "**killed**", "error", "-1"},
		{"pending", "declined", "The CI server ended the build as `declined`.", "error", "-1"},
		{"error", "", "The CI server says `yaml: line 3: _did_ not find @expected`.", "error", "-1"},
		{"null", "", "no pipeline for builds of event `custom`", "error", "-1"},
	}
	for _, c := range cases {
		t.Run(c.begin+c.end, func(t *testing.T) {
			b := newBed(t, nil)
			b.drone.Begin(c.begin)
			comment := b.say("wim", 1, "!testme", 202)
			if c.end != "" {
				b.built(1)
				b.drone.Set(1, c.end)
			}
			b.reply(1, c.text)
			b.reacted(comment, c.reaction)
			b.idle()
			statuses := b.gitea.Statuses(bridgetest.SHA("1"))
			if last := statuses[len(statuses)-1]; last.State != c.state {
				t.Errorf("status %v, want %s", last, c.state)
			}
		})
	}
}

// TestDroneRefuses shows that answers which will not change are reported.
func TestDroneRefuses(t *testing.T) {
	for code, text := range map[int]string{401: "refuses the bridge's token", 404: "does not know the CI repository",
		500: "is the pipeline file missing", 422: "refuses the build with status 422"} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			b := newBed(t, nil)
			b.drone.Script(func(r *http.Request) bridgetest.Fault {
				if r.Method == "POST" {
					return bridgetest.Fault{Status: code, Message: http.StatusText(code)}
				}
				return bridgetest.Fault{}
			})
			b.say("wim", 1, "!testme", 202)
			b.reply(1, text)
			b.idle()
			b.built(0)
		})
	}
}

// TestForgeIsAwayForDrone answers 404 as Drone does when it cannot reach the forge, or reaches a gateway before it: that
// passes, and a build was not made.
func TestForgeIsAwayForDrone(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.Settle = time.Hour })
	says := []string{`Get "http://forge/api/v1": dial tcp: connect: connection refused`, "Not Found", "", "Bad Gateway", "Not Found"}
	b.drone.Script(func(r *http.Request) bridgetest.Fault {
		if r.Method == "POST" && len(says) > 0 {
			message := says[0]
			says = says[1:]
			return bridgetest.Fault{Status: 404, Message: message}
		}
		return bridgetest.Fault{}
	})
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.drone.Set(1, "success")
	b.reply(1, "**success**")
}

// TestServersComeBack shows that gateways' errors and broken connections are waited out.
func TestServersComeBack(t *testing.T) {
	b := newBed(t, nil)
	left := 30
	flaky := func(*http.Request) bridgetest.Fault {
		left--
		switch {
		case left < 0:
			return bridgetest.Fault{}
		case left%2 == 0:
			return bridgetest.Fault{Status: 502}
		}
		return bridgetest.Fault{Drop: true}
	}
	b.drone.Script(flaky)
	b.gitea.Script(func(r *http.Request) bridgetest.Fault {
		if strings.HasSuffix(r.URL.Path, "/permission") && left > 25 {
			left--
			return bridgetest.Fault{Status: 500}
		}
		return bridgetest.Fault{}
	})
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.drone.Set(1, "success")
	b.reply(1, "**success**")
}

// TestLateReply lets Gitea make the reply of a lost call after the bridge has looked for it in vain and made another:
// at the end there is one.
func TestLateReply(t *testing.T) {
	b := newBed(t, nil)
	lost, late := false, false
	b.gitea.Script(func(r *http.Request) bridgetest.Fault {
		switch made := r.Method == "POST" && strings.HasSuffix(r.URL.Path, "/issues/1/comments"); {
		case made && !lost:
			lost = true
			return bridgetest.Fault{Drop: true}
		case made && !late:
			late = true
			b.gitea.Comment("bot", 1, "queued\n\n<!-- cc-ci:7-1 -->")
		}
		return bridgetest.Fault{}
	})
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	if n := len(b.gitea.Replies(1)); n != 2 {
		t.Fatalf("%d replies before the end, want the late one too", n)
	}
	b.drone.Set(1, "success")
	b.reply(1, "**success**")
}

// TestLostReplies drops every kind of answer once and still sees one build and one reply.
func TestLostReplies(t *testing.T) {
	b := newBed(t, nil)
	drop := func() func(*http.Request) bridgetest.Fault {
		seen := map[string]bool{}
		return func(r *http.Request) bridgetest.Fault {
			if kind := r.Method + strings.Trim(r.URL.Path, "0123456789"); r.Method != "GET" && !seen[kind] {
				seen[kind] = true
				return bridgetest.Fault{Drop: true, After: true}
			}
			return bridgetest.Fault{}
		}
	}
	b.drone.Script(drop())
	b.gitea.Script(drop())
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.drone.Set(1, "success")
	b.reply(1, "**success**")
	b.idle()
	b.built(1)
}

// TestLateBuild lets Drone make the build after it has hung up, while the bridge is still looking for it.
func TestLateBuild(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.Settle = 20 * time.Second }) // looks ten times
	asked := func(method string) int {
		n := 0
		for _, line := range b.drone.Asked() {
			if strings.HasPrefix(line, method+" /api/repos/ci/tests/builds?") {
				n++
			}
		}
		return n
	}
	b.drone.Script(func(r *http.Request) bridgetest.Fault { return bridgetest.Fault{Drop: r.Method == http.MethodPost} })
	b.say("wim", 1, "!testme", 202)
	b.until("the bridge has looked in vain", func() bool { return asked("GET") > 0 })
	b.drone.Script(nil)
	late := drone.New(parse(t, b.drone.URL), b.drone.Token, "ci/tests", "main")
	build, err := late.Create(map[string]string{drone.ParamID: "7-1"})
	check(t, err)
	b.drone.Set(build.Number, "success")
	b.reply(1, "**success**")
	b.idle()
	if n := asked("POST"); n != 2 {
		t.Errorf("%d demands for a build, want the bridge's one and the test's", n)
	}
}

// TestLateTwin lets Drone make the build of a demand that was given up, after the build of the next one, and after its end.
func TestLateTwin(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.Twins = time.Hour })
	lost := false
	b.drone.Script(func(r *http.Request) bridgetest.Fault {
		if r.Method == http.MethodPost && !lost {
			lost = true
			return bridgetest.Fault{Drop: true}
		}
		return bridgetest.Fault{}
	})
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	late := drone.New(parse(t, b.drone.URL), b.drone.Token, "ci/tests", "main")
	twin, err := late.Create(b.drone.Builds()[0].Params)
	check(t, err)
	b.until("the twin is cancelled", func() bool { return b.drone.Builds()[twin.Number-1].Status == "killed" })
	b.drone.Set(1, "failure")
	b.reply(1, "**failure**")

	b.stop() // a restart does not end the watch
	b.start()
	later, err := late.Create(b.drone.Builds()[0].Params)
	check(t, err)
	b.until("the twin of an ended run is cancelled", func() bool { return b.drone.Builds()[later.Number-1].Status == "killed" })
	for _, want := range []string{`"rule":"twin, build 2"`, `"rule":"twin, build 3"`} {
		b.until("the audit log has "+want, func() bool { return strings.Contains(b.audit.String(), want) })
	}
	b.say("wim", 1, "!retest", 202) // the run counts as ended
	b.until("the retest runs", func() bool { return len(b.drone.Builds()) == 4 })
}

// TestTokenRunsOut lets the bot's token at Gitea end while a build runs: the result is told once there is another.
func TestTokenRunsOut(t *testing.T) {
	b := newBed(t, nil)
	comment := b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.gitea.Script(func(*http.Request) bridgetest.Fault { return bridgetest.Fault{Status: 401} })
	b.drone.Set(1, "success")
	b.until("the bridge was refused", func() bool { return strings.Count(b.log.String(), "HTTP status 401") > 2 })
	b.gitea.Script(nil)
	b.reacted(comment, "rocket")
	b.reply(1, "**success**")
}

// TestNobodyThere starts Drone after the command: what never reached it is asked for again without a search.
func TestNobodyThere(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.Settle = time.Hour })
	b.stop()
	there := b.drone.URL
	b.drone.URL = "http://127.0.0.1:1"
	b.start()
	b.say("wim", 1, "!testme", 202)
	b.until("the bridge has tried", func() bool { return strings.Count(b.log.String(), "connection refused") > 1 })
	b.stop()
	b.drone.URL = there
	if b.cfg.Settle = 50 * time.Millisecond; len(b.drone.Builds()) != 0 { // after a restart it cannot know and looks
		t.Fatal("a build from nowhere")
	}
	b.start()
	b.built(1)
}

// TestGivesUp shows that an author is told when a server stays away, and that a build it has made is found when it is
// back.
func TestGivesUp(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.GiveUp = 300 * time.Millisecond })
	b.drone.Script(func(r *http.Request) bridgetest.Fault {
		return bridgetest.Fault{Drop: true, After: r.Method == http.MethodPost} // it made the build and is gone
	})
	b.say("wim", 1, "!testme", 202)
	b.reply(1, "The servers did not answer for too long")
	b.built(1)
	b.stop() // a restart does not end the watch
	b.drone.Script(nil)
	b.start()
	b.until("the build that nobody follows is cancelled", func() bool { return b.drone.Builds()[0].Status == "killed" })
	b.idle()
	if got := b.gitea.Statuses(bridgetest.SHA("1")); len(got) == 0 || got[len(got)-1].State != "error" {
		t.Errorf("statuses %v, want an error at last", got)
	}
}

// TestGivesUpOnBothServers lets Gitea be away too, so that nobody can be told: the build is found all the same.
func TestGivesUpOnBothServers(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.GiveUp = 200 * time.Millisecond })
	b.drone.Script(func(r *http.Request) bridgetest.Fault {
		return bridgetest.Fault{Drop: true, After: r.Method == http.MethodPost}
	})
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.gitea.Script(func(*http.Request) bridgetest.Fault { return bridgetest.Fault{Drop: true} })
	b.until("the run is given up and looked for", func() bool { return strings.Contains(b.log.String(), "could not be looked at") })
	b.drone.Script(nil)
	b.until("the build that nobody follows is cancelled", func() bool { return b.drone.Builds()[0].Status == "killed" })
	b.idle()
}

// TestGivesUpBeforeTheRun shows that a command which never became a run leaves no status.
func TestGivesUpBeforeTheRun(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.GiveUp = 200 * time.Millisecond })
	b.gitea.Script(func(r *http.Request) bridgetest.Fault {
		if strings.HasSuffix(r.URL.Path, "/permission") {
			return bridgetest.Fault{Status: 502}
		}
		return bridgetest.Fault{}
	})
	b.reacted(b.say("wim", 1, "!testme", 202), "confused")
	b.reply(1, "The servers did not answer for too long")
	b.idle()
	if got := b.gitea.Statuses(bridgetest.SHA("1")); len(got) != 0 {
		t.Errorf("statuses %v of no run", got)
	}
}

// TestDeadline ends a build that never ends.
func TestDeadline(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.Deadline = 200 * time.Millisecond })
	b.say("wim", 1, "!testme", 202)
	b.reply(1, "did not end within 200ms and was cancelled")
	b.idle()
	if got := b.drone.Builds()[0].Status; got != "killed" {
		t.Errorf("build is %s", got)
	}
}

// TestBuildVanishes ends a run whose build the server has forgotten.
func TestBuildVanishes(t *testing.T) {
	b := newBed(t, nil)
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.drone.Script(func(*http.Request) bridgetest.Fault { return bridgetest.Fault{Status: 404} })
	b.reply(1, "no longer knows the build")
}

// TestGiteaRefusesReplies shows that a locked conversation does not keep a run from its end.
func TestGiteaRefusesReplies(t *testing.T) {
	b := newBed(t, nil)
	b.gitea.Script(func(r *http.Request) bridgetest.Fault {
		if r.Method != "GET" {
			return bridgetest.Fault{Status: 403}
		}
		return bridgetest.Fault{}
	})
	b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.drone.Set(1, "success")
	b.idle()
	if strings.Count(b.audit.String(), `"rule":"finished"`) != 1 {
		t.Errorf("audit: %s", b.audit)
	}
}

// TestHelp answers a question, and everything that is not understood in one notice.
func TestHelp(t *testing.T) {
	b := newBed(t, nil)
	b.reacted(b.say("wim", 1, "!testme ?", 202), "+1")
	b.reply(1, "`!cancel` ends every run")
	b.reacted(b.say("wim", 2, "!testme nonsense", 202), "confused")
	b.reacted(b.say("wim", 2, "!testme more nonsense", 202), "confused")
	b.reply(2, "This repository's recipes: `app`")
	b.idle()
	b.built(0)
}

// TestArgumentsThatMeanNothing gives commands more than they take: nothing is cancelled or run for a wrong guess.
func TestArgumentsThatMeanNothing(t *testing.T) {
	b := newBed(t, nil)
	run := b.say("wim", 1, "!testme", 202)
	b.built(1)
	for _, command := range []string{"!cancel app", "!retest other", "!retest app 1111111"} {
		b.reacted(b.say("wim", 1, command, 202), "confused")
	}
	if text := b.gitea.Replies(1)[1].Body; !strings.Contains(text, "not understood") {
		t.Errorf("notice: %s", text)
	}
	if n := strings.Count(b.audit.String(), `"rule":"unknown arguments"`); n != 3 {
		t.Errorf("%d commands were not understood, want 3", n)
	}
	b.drone.Set(1, "success")
	b.reacted(run, "rocket")
}

// TestHelpIsTheManuals compares the commands that the help names with those that docs/bridge.md does.
func TestHelpIsTheManuals(t *testing.T) {
	b := newBed(t, nil)
	b.say("wim", 1, "!testme ?", 202)
	help := b.reply(1, "!testme").Body
	manual, err := os.ReadFile("../docs/bridge.md")
	check(t, err)
	commands := regexp.MustCompile("(?m)^\\| (`![^`]+`) \\|").FindAllStringSubmatch(string(manual), -1)
	if len(commands) < 6 || len(commands) != strings.Count(help, "\n- `!") {
		t.Errorf("the manual has %d commands: %q\n%s", len(commands), commands, help)
	}
	for _, c := range commands {
		if !strings.Contains(help, "\n- "+c[1]) {
			t.Errorf("the help lacks %s:\n%s", c[1], help)
		}
	}
}

// TestRecipes picks among several recipes.
func TestRecipes(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.Recipes = map[string][]string{"Org/App": {"web", "shop"}} })
	b.reacted(b.say("wim", 1, "!testme", 202), "confused") // which one?
	b.say("wim", 1, "!testme shop", 202)
	b.built(1)
	b.say("wim", 1, "!testme web "+bridgetest.SHA("1")[:9], 202)
	b.built(2)
	for i, recipe := range []string{"shop", "web"} {
		if got := b.drone.Builds()[i].Params["RECIPE"]; got != recipe {
			t.Errorf("build %d is for %s, want %s", i+1, got, recipe)
		}
	}
}

// TestRetest runs again what failed last, and only that.
func TestRetest(t *testing.T) {
	b := newBed(t, nil)
	b.reacted(b.say("wim", 1, "!retest", 202), "confused")
	first := b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.drone.Set(1, "failure")
	b.reacted(first, "-1")
	b.idle()
	b.gitea.Push(1, bridgetest.SHA("b"), "wim", time.Now())
	second := b.say("wim", 1, "!retest", 202)
	b.built(2)
	if got := b.drone.Builds()[1].Params["REF"]; got != bridgetest.SHA("b") {
		t.Errorf("retest ran %s, want the present head", got)
	}
	b.drone.Set(2, "success")
	b.reacted(second, "rocket")
	b.idle()
	b.reacted(b.say("wim", 1, "!retest", 202), "confused")
	b.built(2)
}
