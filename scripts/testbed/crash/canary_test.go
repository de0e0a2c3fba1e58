package crash

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// secretValue is the build's secret.
const secretValue = "canary-of-the-build-4f1d"

// spy looks at all that a step can see, and writes it below the directory that it is given.
const spy = `
mkdir -p "$1"
env > "$1/env"
pid=$$
while [ "$pid" -gt 1 ]; do
	cat /proc/$pid/environ > "$1/environ-of-ancestor-$pid" 2>> "$1/refused" || true
	pid=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$pid/status)
done
for dir in /proc/[0-9]*; do
	cat $dir/cmdline $dir/environ >> "$1/processes" 2>> "$1/refused" || true
done
find / -xdev -name '.netrc*' -readable -exec cat {} + > "$1/netrc" 2>> "$1/refused" || true
grep -ras canary- "$HOME" . > "$1/files" || true
`

const spied = `
steps:
- name: without
  commands:
  - sh spy.sh HALL/without/$DRONE_BUILD_NUMBER
- name: with
  environment:
    TOKEN: {from_secret: token}
  commands:
  - sh spy.sh HALL/with/$DRONE_BUILD_NUMBER
  - printf %s "$TOKEN" > HALL/received
  - echo "token $TOKEN"
  - printf %s "$TOKEN" | base64
  - env
- name: gate
  commands:
  - touch HALL/waiting
  - until [ -e HALL/gate ]; do sleep 0.1; done
`

// canary is something that nobody may see.
type canary struct{ name, value string }

// TestCanaries looks for the RPC secret, the clone's credentials, a build's secret and the dashboard's password in
// everything that the runner writes, serves and shows to a step, with all its dumps on, also after a crash.
func TestCanaries(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("steps run as users of their own only where the runner is root")
	}
	repo, err := the.user.NewRepo(t.Context(), testbed.RepoSpec{
		Name: "canary", Private: true, Files: map[string]string{"spy.sh": spy},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := the.bed.Drone.Activate(t.Context(), the.user, repo, testbed.Settings{}); err != nil {
		t.Fatal(err)
	}
	if err := the.bed.Drone.AddSecret(t.Context(), repo, testbed.Secret{Name: "token", Value: secretValue}); err != nil {
		t.Fatal(err)
	}
	const password = "canary-of-the-dashboard-77b0"
	l := newLane(t, laneSpec{name: "canary", steps: spied, repo: repo, settings: map[string]string{
		"DRONE_RUNNER_USER": "20000-20019", "DRONE_RUNNER_ROOT": openDir(t), "DRONE_RUNNER_GRACE": "1s",
		"DRONE_UI_USERNAME": "admin", "DRONE_UI_PASSWORD": password,
		"DRONE_TRACE": "true", "DRONE_RPC_DUMP_HTTP": "true", "DRONE_RPC_DUMP_HTTP_BODY": "true",
	}})
	h := &hunt{lane: l, canaries: []canary{
		{"RPC secret", the.bed.Drone.RPCSecret}, {"build's secret", secretValue}, {"dashboard's password", password},
	}}
	first := h.crashAtTheGate()
	h.files("the killed runner left")
	l.ok(l.runner.Start(l.ctx))
	l.settled(time.Minute, first.Number)
	l.ok(os.WriteFile(filepath.Join(l.hall, "gate"), nil, 0o644))
	second := l.build(nil)
	l.settled(time.Minute, second.Number)
	if build := l.look(second.Number); build.Status != drone.StatusPassing {
		t.Errorf("the build is %s", testbed.Describe(build))
	}
	h.files("the runner wrote")
	h.logs(first.Number)
	h.logs(second.Number)
	for _, path := range []string{"/metrics", "/", fmt.Sprintf("/view?id=%d", second.ID), "/logs", "/readyz"} {
		h.search(path, h.get(path, password))
	}
	h.steps(first.Number)
	h.steps(second.Number)
}

// hunt looks for canaries.
type hunt struct {
	*lane
	canaries []canary
}

// crashAtTheGate starts a build, kills the runner while the last step runs, and learns the clone's credentials from
// what the server sent.
func (h *hunt) crashAtTheGate() *drone.Build {
	h.t.Helper()
	build := h.build(nil)
	deadline := time.Now().Add(time.Minute)
	for {
		if _, err := os.Stat(filepath.Join(h.hall, "waiting")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("the last step does not run: build %d is %s", build.Number, testbed.Describe(h.look(build.Number)))
		}
		time.Sleep(50 * time.Millisecond)
	}
	h.ok(h.runner.Signal(syscall.SIGKILL))
	if _, err := h.runner.Exited(h.ctx); err != nil {
		h.t.Logf("the killed runner: %v", err)
	}
	received, err := os.ReadFile(filepath.Join(h.hall, "received"))
	if err != nil || string(received) != secretValue {
		h.t.Errorf("the step received %q for its secret, %v", received, err)
	}
	var detail struct{ Netrc *drone.Netrc }
	h.wire.mu.Lock()
	defer h.wire.mu.Unlock()
	if len(h.wire.details) == 0 || json.Unmarshal(h.wire.details[0], &detail) != nil || detail.Netrc == nil {
		h.t.Fatal("the server sent no credentials for the clone")
	}
	// Of login and password one is the token; the other is a word that everybody knows.
	for _, word := range []string{detail.Netrc.Login, detail.Netrc.Password} {
		if len(word) > 20 {
			h.canaries = append(h.canaries, canary{"clone's token", word})
		}
	}
	if len(h.canaries) != 4 {
		h.t.Fatal("the clone's credentials hold no token")
	}
	return build
}

// search reports each canary that is in the data, as it is or in base64. Some of them may be there.
func (h *hunt) search(where string, data []byte, allowed ...string) {
	h.t.Helper()
	for _, c := range h.canaries {
		encoded := strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(c.value)), "=")
		// The last character of an encoding depends on what follows.
		for _, form := range []string{c.value, encoded[:len(encoded)-1]} {
			if at := strings.Index(string(data), form); at >= 0 && !strings.Contains(strings.Join(allowed, ","), c.name) {
				h.t.Errorf("%s: the %s can be seen after %q", where, c.name, data[max(0, at-80):at])
			}
		}
	}
}

// files searches all that the runner has on disk: its log, its state, and what is left of builds.
func (h *hunt) files(what string) {
	h.t.Helper()
	count := 0
	for _, dir := range []string{filepath.Dir(h.runner.State), h.runner.Root} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			count++
			data, err := os.ReadFile(path)
			h.search(what+" "+path, data)
			return err
		})
		h.ok(err)
	}
	if count < 3 {
		h.t.Errorf("%s %d files, want more to search", what, count)
	}
}

// logs searches the logs of all steps of a build on the server.
func (h *hunt) logs(number int64) {
	h.t.Helper()
	for _, step := range h.look(number).Stages[0].Steps {
		if step.Status == drone.StatusSkipped {
			continue
		}
		ref := testbed.StepRef{Build: int(number), Stage: 1, Step: step.Number}
		text, err := the.bed.Drone.Log(h.ctx, h.repo, ref)
		h.ok(err)
		h.search(fmt.Sprintf("the log of step %s of build %d", step.Name, number), []byte(text))
		if step.Name == "with" && (!strings.Contains(text, "token ***") || !strings.Contains(text, "TOKEN=***")) {
			h.t.Errorf("the secret is not masked, but missing in %q", text)
		}
	}
}

// get reads a page of the runner's endpoint.
func (h *hunt) get(path, password string) []byte {
	h.t.Helper()
	request, err := http.NewRequestWithContext(h.ctx, http.MethodGet, h.runner.URL+path, nil)
	h.ok(err)
	request.SetBasicAuth("admin", password)
	response, err := http.DefaultClient.Do(request)
	h.ok(err)
	data, err := io.ReadAll(response.Body)
	h.ok(err)
	h.ok(response.Body.Close())
	if response.StatusCode != http.StatusOK || len(data) == 0 {
		h.t.Errorf("GET %s: %s with %d bytes", path, response.Status, len(data))
	}
	return data
}

// steps searches what the steps of a build could see. The one that has the secret may see it in its own environment.
func (h *hunt) steps(number int64) {
	h.t.Helper()
	for _, step := range []string{"without", "with"} {
		dir := filepath.Join(h.hall, step, fmt.Sprint(number))
		entries, err := os.ReadDir(dir)
		h.ok(err)
		for _, entry := range entries {
			data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			h.ok(err)
			where := fmt.Sprintf("what step %s saw, %s", step, entry.Name())
			if step == "with" && (strings.HasPrefix(entry.Name(), "env") || entry.Name() == "processes") {
				h.search(where, data, "build's secret")
				continue
			}
			h.search(where, data)
		}
		refused, err := os.ReadFile(filepath.Join(dir, "refused"))
		if err != nil || !strings.Contains(string(refused), "/environ: Permission denied") {
			h.t.Errorf("step %s was not kept from other processes' environments: %q, %v", step, refused, err)
		}
	}
}
