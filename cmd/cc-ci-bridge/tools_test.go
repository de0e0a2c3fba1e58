package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
)

// TestDoctor spoils one thing at a time and reads what doctor says about it.
func TestDoctor(t *testing.T) {
	d := newDaemon(t)
	out, code := d.tool("doctor")
	if code != 0 || strings.Contains(out, "FAIL") || strings.Count(out, "ok   ") != 5 {
		t.Errorf("doctor exits with %d:\n%s", code, out)
	}
	d.start()
	running, right := d.out, d.env
	hook := "HOOK_URL=" + d.hook + "/hook"
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	for _, c := range []struct {
		env, want string
		code      int
	}{
		{hook, "ok   the bridge answers at the hook's address", 0},
		{hook + " HOOK_SECRETS=" + strings.Repeat("other-canary", 3), "FAIL the bridge at the hook's address does not know the first of HOOK_SECRETS", 1},
		{"HOOK_URL=" + d.hook + "/", "with status 404 is not the bridge", 1},
		{"HOOK_URL=http://127.0.0.1:1/hook", "note nobody answers at the hook's address from here", 0},
		{"GITEA_TOKEN=wrong-canary", "FAIL Gitea refuses the bot's token", 1},
		{"GITEA_URL=" + other.URL, "FAIL what answers at GITEA_URL is not Gitea", 1},
		{"DRONE_URL=" + other.URL, "FAIL what answers at DRONE_URL is not Drone", 1},
		{"GITEA_URL=http://127.0.0.1:1", "FAIL Gitea does not answer", 1},
		{"DRONE_TOKEN=wrong-canary", "FAIL Drone refuses the bot's token", 1},
		{"DRONE_URL=http://127.0.0.1:1", "FAIL Drone: own account", 1},
		{"CI_REPO=ci/nothing", "does not see the CI repository", 1},
		{"ACCESS=list USERS=wim,nobody TEAMS=org/coders,org/nothing", "FAIL there is no account nobody", 1},
		{"ACCESS=list USERS=wim,nobody TEAMS=org/coders,org/nothing", "FAIL there is no team org/nothing", 1},
		{"ACCESS=list USERS=wim TEAMS=org/coders", "ok   members of org/coders may start runs", 0},
	} {
		d.env = right[:len(right):len(right)]
		for _, pair := range strings.Fields(c.env) {
			d.env = append(d.env, prefix+pair)
		}
		out, code := d.tool("doctor")
		if code != c.code || !strings.Contains(out, c.want) || strings.Contains(out, "canary") {
			t.Errorf("%s: doctor exits with %d:\n%s", c.env, code, out)
		}
	}
	d.env = right
	d.gitea.Script(func(r *http.Request) bridgetest.Fault {
		if strings.HasSuffix(r.URL.Path, "/orgs/org/teams") {
			return bridgetest.Fault{Status: 403, Message: "token does not have at least one of required scope(s)"}
		}
		return bridgetest.Fault{}
	})
	if out, code := d.tool("doctor"); code != 0 || !strings.Contains(out, "lacks the scope read:organization") {
		t.Errorf("doctor with a token for no organisation exits with %d:\n%s", code, out)
	}
	d.out = running
	d.stop()
}

func TestReplay(t *testing.T) {
	d := newDaemon(t)
	d.start()
	comment, body := d.gitea.Comment("wim", 1, "!testme")
	file := filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	running := d.out
	for _, want := range []string{"202 Accepted: \"accepted\"\n", "200 OK: \"seen before\"\n"} {
		if out, code := d.tool("replay", file, "--url", d.hook+"/hook"); code != 0 || out != want {
			t.Errorf("replay exits with %d: %s, want %s", code, out, want)
		}
	}
	if out, code := d.tool("replay", file, "--url", d.hook+"/nothing"); code != 1 || !strings.Contains(out, "404") {
		t.Errorf("replay to nowhere exits with %d: %s", code, out)
	}
	d.out = running
	d.until("the comment was seen", func() bool { return len(d.gitea.Reactions(comment)) > 0 })
	d.stop()
}
