package testbed_test

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

const pipeline = `kind: pipeline
type: exec
name: default
steps:
- name: hello
  commands: [echo hello]
`

// TestSmoke walks the way that every end-to-end test takes: servers, user, repository, push, webhook, pending build.
func TestSmoke(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	bed, err := testbed.Start(ctx, testbed.Options{Dir: t.TempDir(), Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	alice, err := bed.Gitea.NewUser(ctx, "alice")
	if err != nil {
		t.Fatal(err)
	}
	repo, err := alice.NewRepo(ctx, testbed.RepoSpec{Name: "hello", Files: map[string]string{".drone.yml": pipeline}})
	if err != nil {
		t.Fatal(err)
	}
	if err := bed.Drone.Activate(ctx, alice, repo, testbed.Settings{Timeout: 5}); err != nil {
		t.Fatal(err)
	}
	sha, err := alice.Push(ctx, repo, testbed.Commit{Message: "a change", Files: map[string]string{"dir/a.txt": "a"}})
	if err != nil {
		t.Fatal(err)
	}
	build, err := bed.Drone.WaitFor(ctx, repo, testbed.Of(sha))
	if err != nil {
		t.Fatal(err)
	}
	if build.Event != "push" || build.Status != "pending" {
		t.Fatalf("%s build is %s, want a pending push", build.Event, build.Status)
	}
	t.Run("restart", func(t *testing.T) { restart(ctx, t, bed, repo, build.Number) })
	t.Run("proxy", func(t *testing.T) { proxy(ctx, t, bed, repo) })
}

// restart shows that both servers come back at the same address with their data.
func restart(ctx context.Context, t *testing.T, bed *testbed.Bed, repo testbed.Repo, number int64) {
	for _, server := range []*testbed.Server{bed.Drone.Server, bed.Gitea.Server} {
		before := server.PID()
		if err := server.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		if server.PID() == before || server.PID() == 0 {
			t.Fatalf("process %d after a restart, %d before", server.PID(), before)
		}
	}
	if err := bed.Drone.Cancel(ctx, repo, number); err != nil {
		t.Fatal(err)
	}
	build, err := bed.Drone.WaitBuild(ctx, repo, number, testbed.Done)
	if err != nil {
		t.Fatal(err)
	}
	if build.Status != "killed" {
		t.Fatalf("a cancelled build is %s", testbed.Describe(build))
	}
}

// proxy shows that a lost reply is lost to the client only.
func proxy(ctx context.Context, t *testing.T, bed *testbed.Bed, repo testbed.Repo) {
	between, err := testbed.StartProxy(bed.Drone.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := between.Stop(); err != nil {
			t.Error(err)
		}
	}()
	through := drone.NewClient(between.URL(), bed.Drone.HTTPClient(ctx, bed.Drone.AdminToken))
	for action, made := range map[testbed.Action]int{testbed.Pass: 1, testbed.DropReply: 1, testbed.Refuse: 0} {
		before, err := bed.Drone.Admin(ctx).BuildList(repo.Owner, repo.Name, drone.ListOptions{Page: 1, Size: 100})
		if err != nil {
			t.Fatal(err)
		}
		between.Rule(func(*http.Request) testbed.Action { return action })
		_, err = through.BuildCreate(repo.Owner, repo.Name, "", "main", map[string]string{"A": "b"})
		if (err == nil) != (action == testbed.Pass) {
			t.Errorf("action %d: error %v", action, err)
		}
		after, err := bed.Drone.Admin(ctx).BuildList(repo.Owner, repo.Name, drone.ListOptions{Page: 1, Size: 100})
		if err != nil {
			t.Fatal(err)
		}
		if len(after)-len(before) != made {
			t.Errorf("action %d: %d builds were made, want %d", action, len(after)-len(before), made)
		}
	}
	if got := strings.Join(between.Requests(), ","); strings.Count(got, "POST /api/repos/alice/hello/builds") != 3 {
		t.Errorf("the proxy saw %s", got)
	}
}
