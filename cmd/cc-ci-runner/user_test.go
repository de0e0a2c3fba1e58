//go:build linux

package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// What nobody may see: the runner's secret, the clone's credentials, and the secret of a build outside of its steps.
const (
	rpcCanary   = "canary-rpc-e7731b0c"
	cloneCanary = "canary-clone-91c4e05f"
	tokenCanary = "canary-token-5d20aa37"
)

// spy tries to see and to touch what belongs to the runner. It writes to a file, which nothing is masked in.
const spy = `exec >"$1" 2>&1
[ "$(id -u) $(id -G)" = "$4 $4" ] && echo as the user of the build, with no other group
env
pid=$$
while [ "$pid" -gt 1 ]; do
	cat /proc/$pid/environ && [ $pid = "$2" ] && echo read the environment of the runner
	pid=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$pid/status)
done
cat /proc/[0-9]*/environ /proc/$2/mem
kill -0 $2 && echo can signal the runner
ls "$3" && echo can see the state of the runner
find "$HOME" "$PWD" -name '.netrc*' -exec cat {} +
grep -r canary- .git
for procs in $(find /sys/fs/cgroup -name cgroup.procs); do
	sh -c 'echo $$ >"$1"' sh $procs && echo moved to $procs
done 2>>refused
grep -q 'ead-only file system' refused && echo cgroups are read-only
true
`

// stubborn leaves processes of many kinds behind, all of which it waits for: the last one ignores SIGTERM.
const stubborn = `id -u >%[1]s/uid; nohup sleep 1000 >/dev/null 2>&1 & (env -i setsid sh -c 'sleep 1001 & exit' &); ` +
	`setsid sleep 1002 & setsid sh -c 'trap "" TERM; echo >%[1]s/deaf; while true; do sleep 1; done' & ` +
	`while [ ! -e %[1]s/deaf ]; do sleep 0.05; done; rm %[1]s/deaf; `

// startAsUser starts a daemon with one uid for its builds, so that each build proves that the one before has given it
// back; n tells tests apart. The runner's secret is in its environment, as with a service's EnvironmentFile.
func startAsUser(t *testing.T, n int, vars map[string]string) (s *running, hall string, uid int) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only a runner that is root can run steps as another user")
	}
	uid = 20_000_000 + 10*os.Getpid() + n // nobody's
	hall = sharedDir(t)
	if err := errors.Join(os.Chmod(hall, 0o777), os.Mkdir(hall+"/builds", 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(fmt.Sprint("/run/cc-ci-uids/", uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	server := runtimetest.NewServer(t, runtimetest.Secret(rpcCanary))
	all := map[string]string{
		"DRONE_RUNNER_USER": fmt.Sprintf("%d-%d", uid, uid), "DRONE_RUNNER_ROOT": hall + "/builds", "DRONE_RUNNER_CAPACITY": "1",
		"DRONE_RPC_SECRET": "another, which the environment's wins over",
	}
	for name, value := range vars {
		all[name] = value
	}
	s = startDaemon(t, server, all, "DRONE_RPC_SECRET="+rpcCanary)
	s.root = hall + "/builds"
	return s, hall, uid
}

// privateRepository is served to whoever knows the password. It counts those requests.
type privateRepository struct {
	url, commit string
	guests      atomic.Int64
}

func newPrivateRepository(t *testing.T, files map[string]string) *privateRepository {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := &privateRepository{}
	for _, args := range []string{"init -q -b main", "add .", "-c user.name=a -c user.email=a@example.com commit -q -m one", "update-server-info", "rev-parse HEAD"} {
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, strings.Fields(args)...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", args, err, out)
		}
		r.commit = strings.TrimSpace(string(out)) // the last call's
	}
	show := http.FileServer(http.Dir(dir + "/.git"))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if _, password, _ := request.BasicAuth(); password != cloneCanary {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.guests.Add(1)
		show.ServeHTTP(w, request)
	}))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

// hides checks that none of the canaries but the allowed one is in the text, as it is or in base64.
func hides(t *testing.T, where, text, allowed string) {
	t.Helper()
	for _, canary := range []string{rpcCanary, cloneCanary, tokenCanary} {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(canary))
		if canary != allowed && (strings.Contains(text, canary) || strings.Contains(text, encoded[:len(encoded)-1])) {
			t.Errorf("%s: %s can be seen", where, canary)
		}
	}
}

// A step that runs as a user of its own sees none of the runner's secrets, and the build's own show up neither in a
// log nor in a file that is left.
func TestStepsOfAnotherUserSeeNoSecrets(t *testing.T) {
	t.Parallel()
	s, hall, uid := startAsUser(t, 1, map[string]string{"DRONE_TRACE": "true", "DRONE_RPC_DUMP_HTTP": "true", "DRONE_RPC_DUMP_HTTP_BODY": "true"})
	repo := newPrivateRepository(t, map[string]string{"spy.sh": spy})
	look := func(name string) string {
		return fmt.Sprintf("sh spy.sh %s/%s %d %s %d", hall, name, s.cmd.Process.Pid, s.state, uid)
	}
	job := s.server.Enqueue(runtimetest.Job{
		Config: "kind: pipeline\ntype: exec\nname: default\nsteps:\n- name: without\n  commands: ['" + look("without") + "']\n" +
			"- name: with\n  environment: {TOKEN: {from_secret: token}}\n" +
			"  commands: ['echo \"token $TOKEN\"', 'printf %s \"$TOKEN\" | base64', env, '" + look("with") + "']\n",
		Repo:    drone.Repo{HTTPURL: repo.url},
		Build:   drone.Build{Ref: "refs/heads/main", Target: "main", After: repo.commit},
		Secrets: []*drone.Secret{{Name: "token", Data: tokenCanary}},
		Netrc:   &drone.Netrc{Machine: "127.0.0.1", Login: "somebody", Password: cloneCanary},
	})
	if stage := s.server.WaitStage(job.Stage, isOver); stage.Status != drone.StatusPassing || repo.guests.Load() == 0 {
		t.Fatalf("the stage ended with %s, the clone was let in %d times: %s\n%s", stage.Status, repo.guests.Load(), stage.Error, s.stored(job, "clone"))
	}
	for step, allowed := range map[string]string{"without": "", "with": tokenCanary} {
		text, err := os.ReadFile(filepath.Join(hall, step))
		if err != nil {
			t.Fatal(err)
		}
		seen := string(text)
		hides(t, "what step "+step+" saw", seen, allowed)
		for want, expected := range map[string]bool{
			"as the user of the build": true, "/environ: Permission denied": true, "cgroups are read-only": true, "CC_CI_BUILD=": true,
			"read the environment of the runner": false, "can signal": false, "can see": false, "moved to": false,
		} {
			if strings.Contains(seen, want) != expected {
				t.Errorf("step %s: %q is there: %t, in\n%.4000s", step, want, !expected, seen)
			}
		}
	}
	for _, step := range []string{"clone", "without", "with", "teardown"} {
		hides(t, "the log of step "+step, s.stored(job, step), "")
	}
	if log := s.stored(job, "with"); !strings.Contains(log, "token ***") {
		t.Errorf("the secret is not masked, but missing in %q", log)
	}
	hides(t, "the daemon's log", s.text(), "")
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.cmd.Process.Pid))
	if err != nil || !strings.Contains(string(environ), "DRONE_RPC_SECRET=***") {
		t.Errorf("the daemon's environment is %q, %v", environ, err)
	}
	hides(t, "the daemon's environment", string(environ), "")
	s.hidesInFiles(hall + "/builds")
	s.hidesInFiles(s.state)
}

// hidesInFiles searches what the daemon has left below a directory.
func (s *running) hidesInFiles(dir string) {
	s.t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		hides(s.t, path, string(text), "")
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
}

// processesOf counts the processes of a user.
func processesOf(t *testing.T, uid int) (count int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(text), fmt.Sprintf("\nUid:\t%d\t", uid)) && !strings.Contains(string(text), "\nState:\tZ") {
			count++
		}
	}
	return count
}

// Whatever ends a build, nothing of its user's runs on, and the next build can have the user.
func TestBuildsOfAnotherUserEndWhole(t *testing.T) {
	t.Parallel()
	s, hall, uid := startAsUser(t, 2, nil)
	leave := fmt.Sprintf(stubborn, hall)
	begin := func() runtimetest.Enqueued {
		job := s.server.Enqueue(runtimetest.Job{Config: yaml(leave + `echo be""gun; sleep 1000`)})
		s.until("the step runs", s.begun(job, "begun"))
		if n := processesOf(t, uid); n < 5 {
			t.Errorf("%d processes of uid %d, want more to end", n, uid)
		}
		return job
	}
	ends := func(job runtimetest.Enqueued, status, text string) {
		t.Helper()
		if stage := s.server.WaitStage(job.Stage, isOver); stage.Status != status || !strings.Contains(stage.Error, text) {
			t.Errorf("the stage ended with %s: %q, want %s: %q", stage.Status, stage.Error, status, text)
		}
		s.until("no process of the build is left", func() bool { return processesOf(t, uid) == 0 })
		s.until("no directory of the build is left", func() bool {
			left, err := filepath.Glob(s.root + "/*")
			return err == nil && len(left) == 0
		})
	}

	// Its own end, with answers that are lost on the way.
	s.server.Script(runtimetest.Accept, runtimetest.LostReply(), 1)
	s.server.Script(runtimetest.StageFinal, runtimetest.LostReply(), 1)
	job := s.server.Enqueue(runtimetest.Job{Config: yaml(leave + "echo done")})
	ends(job, drone.StatusPassing, "")
	if log := s.stored(job, "only"); strings.Count(log, "still running: ") < 4 {
		t.Errorf("the step's log does not name what it left: %q", log)
	}

	job = begin()
	s.server.Cancel(job.Build)
	ends(job, drone.StatusKilled, "")

	job = begin()
	s.signal(syscall.SIGKILL)
	<-s.done
	s = startDaemon(t, s.server, map[string]string{
		"DRONE_RUNNER_USER": fmt.Sprintf("%d-%d", uid, uid), "DRONE_RUNNER_ROOT": s.root, "DRONE_RUNNER_STATE": s.state,
		"DRONE_HTTP_BIND": s.bind, "DRONE_RUNNER_CAPACITY": "1",
	})
	s.root = hall + "/builds"
	ends(job, drone.StatusError, "the runner restarted while this stage ran")

	ends(s.server.Enqueue(runtimetest.Job{Config: yaml("test $(id -u) = " + fmt.Sprint(uid))}), drone.StatusPassing, "")
}

// Doctor makes the builds' directory one that DRONE_RUNNER_USER can enter; a closed one above it is named, also at start.
func TestClosedRootIsNamed(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only a runner that is root can run steps as another user")
	}
	open := sharedDir(t)
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	settings := "DRONE_RPC_HOST=127.0.0.1:1\nDRONE_RPC_SECRET=x\nDRONE_RUNNER_STATE=" + t.TempDir() + "\nDRONE_RUNNER_USER=nobody\nDRONE_RUNNER_ROOT="
	out, errs, _ := call(t, "doctor", "--config", write(t, settings+open+"/new/builds\n"))
	info, err := os.Stat(open + "/new/builds")
	if err != nil || info.Mode().Perm() != 0o755 || !strings.Contains(out, "ok   workspaces:") {
		t.Errorf("%v, %v\n%s%s", info, err, out, errs)
	}
	closed := sharedDir(t) // 0700
	out, errs, code := call(t, "doctor", "--config", write(t, settings+closed+"/builds\n"))
	if code != 1 || !strings.Contains(out, "BAD  workspaces:    DRONE_RUNNER_ROOT: ") || !strings.Contains(out, "cannot enter "+closed+":") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	server := runtimetest.NewServer(t)
	startDaemon(t, server, map[string]string{"DRONE_RUNNER_USER": "nobody", "DRONE_RUNNER_ROOT": closed}).says("cannot enter " + closed)
}
