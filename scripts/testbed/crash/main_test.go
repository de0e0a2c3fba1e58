// Package crash takes a runner apart while it works for a real Drone server: it kills the runner, cancels builds and
// cuts connections at random moments, and then looks for what is left on the host and on the server. The moments come
// from a fixed seed; CC_CI_CRASH_SEED sets another one. CC_CI_TEST_FULL=1 runs the full counts.
package crash

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// world is what every test shares: the servers, the runner's program, and a user with one active repository. Each
// runner has a branch of it, whose pipeline only that runner takes.
type world struct {
	ctx     context.Context // ends when the tests are interrupted
	bed     *testbed.Bed
	program string
	user    *testbed.User
	repo    testbed.Repo
	seed    uint64
}

// the is set by TestMain before any test runs and not changed afterwards.
var the *world

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests wait most of the time, so many more than there are processors may run at once.
	err := flag.Set("test.parallel", "64")
	code := 1
	if err == nil {
		code, err = run(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	w := &world{ctx: ctx, seed: 20261123}
	if text := os.Getenv("CC_CI_CRASH_SEED"); text != "" {
		if w.seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			return 1, fmt.Errorf("CC_CI_CRASH_SEED: %w", err)
		}
	}
	w.bed, err = testbed.Start(ctx, testbed.Options{Log: os.Stderr, Dir: os.Getenv("CC_CI_CRASH_DIR")})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, w.bed.Stop(context.Background())) }()
	if w.program, err = w.bed.BuildProduct(ctx, "cc-ci-runner"); err != nil {
		return 1, err
	}
	if w.user, err = w.bed.Gitea.NewUser(ctx, "crash"); err != nil {
		return 1, err
	}
	w.repo, err = w.user.NewRepo(ctx, testbed.RepoSpec{Name: "crash", Files: map[string]string{"README.md": "# Crash\n"}})
	if err != nil {
		return 1, err
	}
	if err := w.bed.Drone.Activate(ctx, w.user, w.repo, testbed.Settings{}); err != nil {
		return 1, err
	}
	the = w
	return m.Run(), nil
}

// full says whether repeated tests run at their full count.
func full() bool { return os.Getenv("CC_CI_TEST_FULL") == "1" }
