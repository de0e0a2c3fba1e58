package bridge_test

import (
	"slices"
	"strings"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/bridgetest"
)

// TestCommentBecomesBuildAndAnswer walks the whole path once and looks at everything that people and Drone see.
func TestCommentBecomesBuildAndAnswer(t *testing.T) {
	b := newBed(t, nil)
	comment := b.say("wim", 1, "!testme", 202)
	b.reply(1, "queued")
	b.built(1)

	build := b.drone.Builds()[0]
	want := map[string]string{"RECIPE": "app", "REF": bridgetest.SHA("1"), "PR": "1",
		"SRC": b.gitea.URL + "/org/app.git", "TESTME_ID": "7-1"}
	for key, value := range want {
		if build.Params[key] != value {
			t.Errorf("parameter %s is %q, want %q", key, build.Params[key], value)
		}
	}
	if len(build.Params) != len(want) || build.Target != "main" {
		t.Errorf("parameters %v on branch %q, want only %v on main", build.Params, build.Target, want)
	}

	b.drone.Set(1, "running")
	b.reply(1, "running, see [build 1]("+b.drone.URL+"/ci/tests/1)")
	b.drone.Set(1, "success")
	reply := b.reply(1, "**success** after 3m12s")
	b.reacted(comment, "rocket")
	b.idle()
	if !strings.HasSuffix(reply.Body, "<!-- cc-ci:7-1 -->") {
		t.Errorf("reply does not end with its marker: %q", reply.Body)
	}
	if got := b.gitea.Reactions(comment); !slices.Equal(got, []string{"eyes", "rocket"}) {
		t.Errorf("reactions %v", got)
	}
	statuses := b.gitea.Statuses(bridgetest.SHA("1"))
	last := statuses[len(statuses)-1]
	if statuses[0].State != "pending" || last.State != "success" || last.Context != "cc-ci/app" || last.TargetURL != b.drone.URL+"/ci/tests/1" {
		t.Errorf("statuses %v", statuses)
	}
	for _, decision := range []string{"authorised", "triggered", "ended"} {
		if strings.Count(b.audit.String(), `"decision":"`+decision+`"`) != 1 {
			t.Errorf("audit log lacks one line %q:\n%s", decision, b.audit)
		}
	}
}
