package bridge_test

import (
	"strings"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// TestByOurRunner goes the whole way with nothing in between made for tests: a fork's pull request, a comment, the
// bridge, Drone, cc-ci-runner, and the answer.
func TestByOurRunner(t *testing.T) {
	t.Parallel()
	program, err := the.bed.BuildProduct(t.Context(), "cc-ci-runner")
	if err != nil {
		t.Fatal(err)
	}
	b := newBridge(t, testbed.RepoSpec{Owner: "recipes", Name: "ours"}, map[string]string{"CI_BRANCH": "real"})
	runner, err := the.bed.StartRunner(b.ctx, testbed.RunnerOptions{Program: program, Name: "ours",
		Env: map[string]string{"DRONE_RUNNER_LABELS": "bed:real"}})
	b.check(err)
	defer func() { b.check(runner.Stop(b.ctx)) }()

	fork, err := the.fred.Fork(b.ctx, b.repo)
	b.check(err)
	good, sha := b.pullFrom(fork, "work")
	b.comment(the.wim, good, "!testme")
	b.reply(good, "**success**")
	b.until("the fork's head is green in the base repository", func() bool { return b.status(sha) == "success" })

	bad, sha := b.pullFrom(fork, "bad")
	b.comment(the.wim, bad, "!testme "+sha[:12])
	reply := b.reply(bad, "**failure**")
	if !strings.Contains(reply.Body, "in step `test/check`") {
		t.Errorf("reply: %s", reply.Body)
	}
	b.until("the fork's head is red in the base repository", func() bool { return b.status(sha) == "failure" })
	b.until("the runner has left nothing", func() bool {
		left, err := runner.Leftovers()
		return err == nil && len(left) == 0
	})
}
