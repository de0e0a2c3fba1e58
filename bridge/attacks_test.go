package bridge_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
)

// The twelve attacks of the threat model in docs/bridge.md, one test each. Those that need a connection or a real
// server have a second half in cmd/cc-ci-bridge and in the end-to-end tests.

// quiet checks that an attack has moved nothing: no build, no reply, no reaction to comment 1.
func (b *bed) quiet() {
	b.Helper()
	b.idle()
	b.built(0)
	if replies, reactions := b.gitea.Replies(1), b.gitea.Reactions(1); len(replies)+len(reactions) > 0 {
		b.Errorf("the attack was answered: %+v %v", replies, reactions)
	}
}

// change edits a hook's body.
func change(t *testing.T, body []byte, edit func(map[string]any)) []byte {
	t.Helper()
	var m map[string]any
	check(t, json.Unmarshal(body, &m))
	edit(m)
	out, err := json.Marshal(m)
	check(t, err)
	return out
}

func TestAttack01SpoofedHook(t *testing.T) {
	b := newBed(t, nil)
	_, body := b.gitea.Comment("wim", 1, "!testme")
	good := gitea.Sign([]byte(bridgetest.Secret), body)
	form := []byte("payload=" + url.QueryEscape(string(body)))
	cases := []struct {
		name, signature, media, event string
		body                          []byte
		want                          int
	}{
		{"no signature", "", "application/json", "issue_comment", body, 401},
		{"signed with nothing", gitea.Sign(nil, body), "application/json", "issue_comment", body, 401},
		{"signed with another secret", gitea.Sign([]byte("other"), body), "application/json", "issue_comment", body, 401},
		{"prefixed", "sha256=" + good, "application/json", "issue_comment", body, 401},
		{"cut", good[:62], "application/json", "issue_comment", body, 401},
		{"long", good + "00", "application/json", "issue_comment", body, 401},
		{"no hex", strings.Repeat("z", 64), "application/json", "issue_comment", body, 401},
		{"another body", good, "application/json", "issue_comment", append(body, ' '), 401},
		{"form", good, "application/x-www-form-urlencoded", "issue_comment", form, 415},
		{"form called JSON", good, "application/json", "issue_comment", form, 401},
		{"no type", good, "", "issue_comment", body, 415},
		{"another event", good, "application/json", "push", body, 200},
		{"signed rubbish", gitea.Sign([]byte(bridgetest.Secret), []byte("{")), "application/json", "issue_comment", []byte("{"), 400},
	}
	for _, c := range cases {
		header := http.Header{"X-Gitea-Signature": {c.signature}, "Content-Type": {c.media}, "X-Gitea-Event": {c.event}}
		if got, err := bridgetest.Post(b.hook, c.body, header); got != c.want || err != nil {
			t.Errorf("%s: answered %d, want %d (%v)", c.name, got, c.want, err)
		}
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		req, err := http.NewRequest(method, b.hook, nil)
		check(t, err)
		resp, err := http.DefaultClient.Do(req)
		check(t, err)
		check(t, resp.Body.Close())
		if resp.StatusCode != 405 {
			t.Errorf("%s answered %d, want 405", method, resp.StatusCode)
		}
	}
	b.quiet()
}

func TestAttack02Replay(t *testing.T) {
	b := newBed(t, nil)
	comment, body := b.gitea.Comment("wim", 1, "!testme")
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			if code, err := bridgetest.Send(b.hook, body); err != nil || (code != 202 && code != 200) {
				t.Errorf("answered %d: %v", code, err)
			}
		})
	}
	wait.Wait()
	b.built(1)
	b.drone.Set(1, "success")
	b.reacted(comment, "rocket")
	b.idle()
	b.send(body, 200) // after its end
	b.stop()
	b.cfg.Keep = time.Nanosecond
	b.start() // forgets finished requests, but not that they were seen
	b.until("the journal is pruned", func() bool {
		b.send(body, 200)
		return strings.Count(strings.Join(b.gitea.Asked(), "\n"), "GET /api/v1/orgs/org/repos") >= 2
	})
	b.built(1)

	edited, body := b.gitea.Comment("wim", 2, "!testme")
	b.gitea.Edit(edited, "never mind")
	b.send(body, 202) // the signature fits, the comment no longer says so
	b.idle()
	b.built(1)
	old, _ := b.gitea.Comment("wim", 2, "!testme")
	b.gitea.Date(old, time.Now().Add(-2*time.Hour))
	b.send(b.gitea.Body(old), 200)
	b.built(1)
}

func TestAttack03NotACollaborator(t *testing.T) {
	b := newBed(t, nil)
	for _, login := range []string{"stan", "rita"} {
		b.reacted(b.say(login, 2, "!testme", 202), "confused")
	}
	comment, body := b.gitea.Comment("stan", 1, "!testme")
	wim := map[string]any{"id": 102, "login": "wim"}
	b.send(change(t, body, func(m map[string]any) { m["sender"] = wim }), 200) // edited by a writer
	b.send(change(t, body, func(m map[string]any) { m["comment"].(map[string]any)["original_author"] = "wim" }), 200)
	b.say("bot", 2, "!testme", 200) // whatever makes the bot write a command: it never answers itself
	for _, action := range []string{"edited", "deleted", "reviewed", ""} {
		b.send(change(t, body, func(m map[string]any) { m["action"] = action }), 200)
	}
	b.send(change(t, body, func(m map[string]any) { m["is_pull"] = false }), 200)
	// A signed body that claims another author than the comment has: the comment is read again.
	b.send(change(t, body, func(m map[string]any) {
		m["sender"] = wim
		m["comment"].(map[string]any)["user"] = wim
		m["repository"].(map[string]any)["permissions"] = map[string]bool{"push": true}
	}), 202)
	b.until("the comment was judged", func() bool { return strings.Contains(b.audit.String(), "author is another") })
	b.idle()
	b.built(0)
	if replies := b.gitea.Replies(1); len(replies) > 0 {
		t.Errorf("comment %d was answered: %+v", comment, replies)
	}
}

func TestAttack04AnotherRepository(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.Repos = []string{"org/app", "friends"} })
	_, body := b.gitea.Comment("wim", 1, "!testme")
	rename := func(full string, id int) []byte {
		return change(t, body, func(m map[string]any) {
			m["repository"].(map[string]any)["full_name"] = full
			m["repository"].(map[string]any)["id"] = id
		})
	}
	for _, full := range []string{"evil/app", "org/app2", "org", "org/app/x", "/app", "friends2/app", ""} {
		b.send(rename(full, 99), 200)
	}
	// A listed name with another id: the pull request is for a repository that is not the one which signed.
	b.send(rename("org/app", 99), 200)
	// The same without a base to compare: the pull request read by API is of another repository.
	b.send(change(t, rename("org/app", 99), func(m map[string]any) { delete(m, "pull_request") }), 202)
	b.idle()
	b.built(0)
	if n := strings.Count(b.audit.String(), `"rule":"pull request is for another repository"`); n != 2 {
		t.Errorf("%d decisions about the other repository, want 2", n)
	}
	if n := strings.Count(b.audit.String(), `"rule":"repository is not on the list"`); n != 3 {
		t.Errorf("%d decisions about repositories that are not on the list, want 3", n)
	}
}

func TestAttack05HeadMoved(t *testing.T) {
	b := newBed(t, nil)
	_, body := b.gitea.Comment("wim", 1, "!testme")
	b.gitea.Push(1, bridgetest.SHA("e"), "stan", time.Now().Add(time.Minute))
	b.send(body, 202)
	b.built(1)
	if got := b.drone.Builds()[0].Params["REF"]; got != bridgetest.SHA("1") {
		t.Errorf("built %s, which nobody has looked at", got)
	}
	b.reply(1, "The branch moved to `eeeeeeeeee`")
	if got := b.gitea.Statuses(bridgetest.SHA("e")); len(got) > 0 {
		t.Errorf("the unseen commit has the statuses %v", got)
	}
}

func TestAttack06ParameterInjection(t *testing.T) {
	b := newBed(t, nil)
	_, body := b.gitea.Comment("wim", 1, "!testme")
	evil := change(t, body, func(m map[string]any) {
		head := m["pull_request"].(map[string]any)["head"].(map[string]any)
		head["sha"], head["ref"] = "main;touch${IFS}/tmp/x", "feat;id"
	})
	b.send(evil, 202)
	b.built(1) // of the commit that the API tells
	for _, command := range []string{"!testme $(id)", "!testme app;id", "!testme ../../x", "!testme app&branch=x", "!testme PATH=/tmp", "!testme `id`"} {
		b.reacted(b.say("wim", 2, command, 202), "confused")
	}
	b.alive(1)
	b.built(1)
	for _, asked := range b.drone.Asked() {
		_, query, _ := strings.Cut(asked, "?")
		values, err := url.ParseQuery(query)
		check(t, err)
		for key, value := range values {
			allowed := strings.Contains(" branch RECIPE REF PR SRC TESTME_ID page per_page ", " "+key+" ")
			if !allowed || len(value) != 1 || strings.ContainsAny(value[0], ";$`&| (){}<>'\"") {
				t.Errorf("Drone was asked with %s=%q", key, value)
			}
		}
		if branch := values.Get("branch"); branch != "" && branch != "main" {
			t.Errorf("built branch %q", branch)
		}
	}
}

func TestAttack07ForeignCloneURL(t *testing.T) {
	var mu sync.Mutex
	leaked := ""
	evil := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		leaked += r.URL.String() + r.Header.Get("Authorization")
	}))
	defer evil.Close()
	b := newBed(t, nil)
	b.gitea.Redirect(evil.URL)
	_, body := b.gitea.Comment("wim", 1, "!testme")
	b.send(change(t, body, func(m map[string]any) {
		head := m["pull_request"].(map[string]any)["head"].(map[string]any)
		head["repo"] = map[string]any{"clone_url": evil.URL + "/x.git"}
		m["repository"].(map[string]any)["clone_url"] = evil.URL + "/y.git"
	}), 202)
	b.built(1)
	if got := b.drone.Builds()[0].Params["SRC"]; got != b.gitea.URL+"/org/app.git" {
		t.Errorf("SRC is %s", got)
	}
	b.say("wim", 2, "!testme", 202)
	b.until("the redirect was met", func() bool { return strings.Contains(b.log.String(), "HTTP status 302") })
	mu.Lock()
	defer mu.Unlock()
	if leaked != "" {
		t.Errorf("the foreign server was asked: %s", leaked)
	}
}

func TestAttack08MarkdownInjection(t *testing.T) {
	b := newBed(t, nil)
	b.gitea.Add("x](http://evil.example)", "write") // no forge allows this name; the bridge does not rely on it
	// Anyone can write the bot's marker: only the account tells whose comment it is.
	forged, _ := b.gitea.Comment("stan", 2, "mine\n\n<!-- cc-ci:notice:7-2 -->")
	for _, command := range []string{"!testme @everyone", "!testme ![](http://evil.example/p.png)", "!testme <img/src=http://evil.example>"} {
		b.reacted(b.say("wim", 2, command, 202), "confused")
	}
	if note := string(b.gitea.Body(forged)); !strings.Contains(note, "mine") || len(b.gitea.Replies(2)) != 1 {
		t.Errorf("the notice went into a stranger's comment: %s", note)
	}
	b.drone.Begin("error") // the server's message holds a backtick and a mention
	b.say("wim", 1, "!testme", 202)
	b.reply(1, "The CI server says `yaml: line 3: _did_ not find @expected`.")
	for pr := int64(1); pr <= 2; pr++ {
		for _, reply := range b.gitea.Replies(pr) {
			if strings.Contains(reply.Body, "evil.example") || strings.Contains(reply.Body, "@everyone") {
				t.Errorf("a comment's text was repeated: %s", reply.Body)
			}
		}
	}
}

func TestAttack09Flood(t *testing.T) {
	b := newBed(t, func(c *bridge.Config) { c.UserBurst = 2 })
	_, body := b.gitea.Comment("wim", 1, "!testme")
	long := change(t, body, func(m map[string]any) { m["padding"] = strings.Repeat("x", bridge.MaxHook) })
	b.send(long, 413)
	req, err := http.NewRequest("POST", b.hook, struct{ *bytes.Reader }{bytes.NewReader(long)}) // of unknown length
	check(t, err)
	req.Header = http.Header{"Content-Type": {"application/json"}, "X-Gitea-Signature": {gitea.Sign([]byte(bridgetest.Secret), long)}}
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	check(t, resp.Body.Close())
	if resp.StatusCode != 413 {
		t.Errorf("a body of unknown length was answered %d, want 413", resp.StatusCode)
	}
	b.quiet()
	b.until("missed comments were read", func() bool {
		return strings.Contains(strings.Join(b.gitea.Asked(), "\n"), "/issues/comments?")
	})
	before := len(b.gitea.Asked())
	for range 200 { // a signature that does not fit costs no call and no disk
		if code, err := bridgetest.Post(b.hook, body, http.Header{"Content-Type": {"application/json"}}); code != 401 || err != nil {
			t.Fatalf("answered %d: %v", code, err)
		}
	}
	if got := len(b.gitea.Asked()); got != before {
		t.Errorf("Gitea was asked %d times", got-before)
	}
	for range 30 {
		b.say("stan", 2, "!testme", 202)
	}
	b.idle()
	if replies := b.gitea.Replies(2); len(replies) != 1 {
		t.Errorf("%d replies to a stranger's flood, want 1", len(replies))
	}
	b.say("wim", 1, "!testme", 202) // others are not held up
	b.built(1)
}

func TestAttack10TokenLeak(t *testing.T) {
	b := newBed(t, nil)
	b.drone.Begin("error")
	b.say("wim", 1, "!testme", 202)
	b.idle()
	b.drone.Begin("pending")
	b.gitea.Script(func(r *http.Request) bridgetest.Fault {
		if strings.Contains(r.URL.Path, "statuses") {
			return bridgetest.Fault{Status: 500}
		}
		return bridgetest.Fault{Drop: r.Method == "PATCH" && len(b.drone.Builds()) < 2}
	})
	b.drone.Script(func(r *http.Request) bridgetest.Fault { return bridgetest.Fault{Drop: r.Method == "GET", After: true} })
	b.say("wim", 2, "!testme", 202)
	b.built(2)
	b.drone.Script(nil)
	b.drone.Set(2, "success")
	b.idle()
	code, err := bridgetest.Post(b.hook, []byte(`{"signed":"badly"}`), http.Header{"Content-Type": {"application/json"}})
	if code != 401 || err != nil {
		t.Fatalf("answered %d: %v", code, err)
	}
	seen := b.log.String() + b.audit.String() + b.scrape() + strings.Join(b.gitea.Asked(), "\n") + strings.Join(b.drone.Asked(), "\n")
	for pr := int64(1); pr <= 2; pr++ {
		seen += fmt.Sprint(b.gitea.Replies(pr), b.gitea.Statuses(bridgetest.SHA(fmt.Sprint(pr))))
	}
	for _, build := range b.drone.Builds() {
		seen += fmt.Sprint(build.Params)
	}
	if strings.Contains(seen, "canary") {
		t.Errorf("a secret was shown:\n%s", seen)
	}
	if !strings.Contains(seen, "a step failed") || !strings.Contains(seen, "cc_ci_bridge_hooks_total") {
		t.Error("the test has seen neither a logged error nor the metrics")
	}
}

func TestAttack11TrustDoesNotStick(t *testing.T) {
	b := newBed(t, nil)
	comment := b.say("wim", 1, "!testme", 202)
	b.built(1)
	b.drone.Set(1, "success")
	b.reacted(comment, "rocket")
	b.gitea.Push(1, bridgetest.SHA("e"), "stan", time.Now().Add(time.Minute))
	b.send(b.gitea.PullBody("synchronized", 1, "stan"), 202)
	b.send(b.gitea.PullBody("opened", 1, "stan"), 200)
	b.reacted(b.say("stan", 1, "!retest", 202), "confused")
	b.reacted(b.say("stan", 1, "!testme eeeeeee", 202), "confused")
	b.idle()
	b.built(1)
	if got := len(b.drone.Builds()[0].Params); got != 5 {
		t.Errorf("the build got %d parameters, want the five that are documented", got)
	}
}

func TestAttack12PathTraversal(t *testing.T) {
	for _, name := range []string{"..", "../app", "a/b", "a..b", ".hidden", "-rf", "App", "", "a\x00b", "a b", "é"} {
		if bridge.ValidRecipe(name) {
			t.Errorf("recipe %q is accepted", name)
		}
	}
	b := newBed(t, func(c *bridge.Config) { c.Recipes = map[string][]string{"org/app": {"../../etc", "app"}} })
	b.reacted(b.say("wim", 1, "!testme ../../etc", 202), "confused") // even though it is configured
	b.idle()
	b.built(0)
}
