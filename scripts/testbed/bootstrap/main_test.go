package bootstrap

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// bed is set by TestMain before any test runs and not changed afterwards.
var bed *testbed.Bed

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	if bed, err = testbed.Start(ctx, testbed.Options{Log: os.Stderr}); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, bed.Stop(context.WithoutCancel(ctx))) }()
	return m.Run(), nil
}

// fresh makes a name that no earlier run of a test on the same servers has used.
func fresh(name string) string { return name + "-" + strings.ToLower(rand.Text()[:6]) }

// world gives a test a bot with a repository.
func world(ctx context.Context, t *testing.T, bot string) (*testbed.User, testbed.Repo) {
	t.Helper()
	user, err := bed.Gitea.NewUser(ctx, fresh(bot))
	if err != nil {
		t.Fatal(err)
	}
	const pipeline = "kind: pipeline\ntype: exec\nname: default\nsteps:\n- name: hello\n  commands: [echo hello]\n"
	repo, err := user.NewRepo(ctx, testbed.RepoSpec{Name: "tests", Files: map[string]string{".drone.yml": pipeline}})
	if err != nil {
		t.Fatal(err)
	}
	return user, repo
}
