package main

import (
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/kardianos/service"
)

// The unit that `service install` writes is one that systemd accepts. Where systemd-analyze is missing, the lines that
// matter are looked at alone.
func TestUnit(t *testing.T) {
	text := strings.NewReplacer(
		"{{Description}}", "cc-ci runner",
		"{{Path | cmdEscape}}", "/bin/true",
		"{{range Arguments}} {{. | cmd}}{{end}}", " service --config /etc/cc-ci-runner/config run",
	).Replace(unit)
	if strings.Contains(text, "{{") {
		t.Fatalf("the test does not know all of the template:\n%s", text)
	}
	for _, line := range []string{"Type=notify", "Delegate=yes", "KillMode=mixed", "ExecReload=/bin/kill -s USR2 $MAINPID",
		"StateDirectory=cc-ci-runner", "Restart=always", "WatchdogSec=120"} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the unit lacks %s", line)
		}
	}
	if !strings.Contains(unitFor(true), "\nWantedBy=multi-user.target\n") || !strings.Contains(unitFor(false), "\nWantedBy=default.target\n") {
		t.Error("a unit is wanted by a target that its manager does not have")
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: the unit was not verified as a whole")
	}
	file := filepath.Join(t.TempDir(), "cc-ci-runner.service")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// Without systemd nothing is installed, and the error says what to do instead.
func TestServiceWithoutSystemd(t *testing.T) {
	if service.Platform() == "linux-systemd" || runtime.GOOS != "linux" {
		t.Skip("this host has a service manager that we know")
	}
	config := write(t, "DRONE_RPC_HOST=drone.example.org\nDRONE_RPC_SECRET=x\n")
	for _, action := range []string{"install", "start", "stop", "status", "uninstall"} {
		_, errs, code := call(t, "service", action, "--config", config)
		if code != 1 || !strings.Contains(errs, "systemd does not run on this host") || !strings.Contains(errs, "daemon "+config) {
			t.Errorf("%s: exit code %d: %s", action, code, errs)
		}
	}
}

func TestServiceFindsTheOldConfiguration(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	c := serviceCommand{Config: "/somewhere/config"}
	if c.configFile() != "/somewhere/config" {
		t.Errorf("an explicit configuration is passed over for %s", c.configFile())
	}
	c.Config = ""
	if os.Getuid() == 0 {
		if got := c.configFile(); got != "/etc/cc-ci-runner/config" && got != "/etc/drone-runner-exec/config" {
			t.Errorf("the configuration is looked for at %s", got)
		}
		return
	}
	old := filepath.Join(home, ".drone-runner-exec")
	if err := os.MkdirAll(old, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(old, "config"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if c.configFile() != filepath.Join(old, "config") {
		t.Errorf("the configuration of drone-runner-exec is not found, but %s", c.configFile())
	}
}

func TestDoctor(t *testing.T) {
	out, errs, code := call(t, "doctor")
	if code != 2 || !strings.Contains(errs, "DRONE_RPC_HOST") {
		t.Errorf("without a configuration: exit code %d\n%s%s", code, out, errs)
	}
	file := write(t, "DRONE_RPC_HOST=127.0.0.1:1\nDRONE_RPC_SECRET=canary-secret\nDRONE_RUNNER_STATE="+t.TempDir()+"\n")
	out, errs, code = call(t, "doctor", "--config", file)
	if code != 1 || !strings.Contains(out, "BAD  server:") || !strings.Contains(out, "ok   containment:") || !strings.Contains(out, "ok   state:") {
		t.Errorf("with a server that is away: exit code %d\n%s%s", code, out, errs)
	}
	file = write(t, "DRONE_RPC_HOST=127.0.0.1:1\nDRONE_RPC_SECRET=canary-secret\nDRONE_RUNNER_DOCKER=proxy\nDRONE_RUNNER_DOCKER_ENDPOINT=unix:///none.sock\n")
	if out, _, _ := call(t, "doctor", "--config", file); !strings.Contains(out, "BAD  docker:        Docker does not answer at unix:///none.sock") {
		t.Errorf("with a Docker that is away:\n%s", out)
	}
	if strings.Contains(out+errs, "canary") {
		t.Error("doctor shows the secret")
	}
	if out, errs, code = call(t, "doctor", "--settings", "--config", file); code != 0 || strings.Contains(out, "server") {
		t.Errorf("the settings alone: exit code %d\n%s%s", code, out, errs)
	}
	if _, errs, code = call(t, "doctor", "--settings", "--config", write(t, "DRONE_RUNNER_CAPACITY=many\n")); code != 2 {
		t.Errorf("faulty settings alone: exit code %d\n%s", code, errs)
	}
	// What is right as a variable, and refused by the daemon.
	dir := t.TempDir()
	for variable, good := range map[string]bool{
		"DRONE_RUNNER_USER=nobody-of-this-name": false, "DRONE_LOG_FILE=" + dir + "/none/log": false, "DRONE_LOG_FILE=" + dir + "/log": true,
	} {
		name, _, _ := strings.Cut(variable, "=")
		out, errs, code := call(t, "doctor", "--settings", "--config", write(t, "DRONE_RPC_HOST=127.0.0.1:1\nDRONE_RPC_SECRET=x\n"+variable+"\n"))
		if good != (code == 0) || good == strings.Contains(out, "BAD  configuration: "+name+": ") {
			t.Errorf("%s: exit code %d\n%s%s", variable, code, out, errs)
		}
	}
	// Steps that are told to have no Docker of the host's must not get it by their user's group.
	socket := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(socket, 0, 61234); err != nil {
			t.Fatal(err)
		}
		for mode, good := range map[string]bool{"proxy": false, "none": false, "host": true} {
			out, _, code := call(t, "doctor", "--settings", "--config", write(t, "DRONE_RPC_HOST=127.0.0.1:1\nDRONE_RPC_SECRET=x\n"+
				"DRONE_RUNNER_USER=61200-61299\nDRONE_RUNNER_DOCKER_ENDPOINT=unix://"+socket+"\nDRONE_RUNNER_DOCKER="+mode+"\n"))
			if good != (code == 0) || good == strings.Contains(out, "BAD  configuration: DRONE_RUNNER_USER: group 61234 ") {
				t.Errorf("Docker's group among the users, %s: exit code %d\n%s", mode, code, out)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if made, err := os.ReadDir(dir); err != nil || len(made) != 0 {
		t.Errorf("doctor left %v, %v", made, err)
	}
	for _, dir := range cgroups(t, "cc-ci-doctor-") {
		_, pid, _ := strings.Cut(filepath.Base(dir), "cc-ci-doctor-")
		if _, err := os.Stat("/proc/" + pid); err != nil { // not one that is at work elsewhere
			t.Errorf("doctor left %s", dir)
		}
	}
}

// cgroups are the cgroups of this host with a word in their names.
func cgroups(t *testing.T, word string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.Contains(entry.Name(), word) {
			found = append(found, path)
		}
		return nil // what other tests have just removed is of no interest
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestLeaks(t *testing.T) {
	root, bind := t.TempDir(), freeAddress(t)
	file := write(t, "DRONE_RPC_HOST=127.0.0.1:1\nDRONE_RPC_SECRET=canary-secret\nDRONE_RUNNER_STATE="+t.TempDir()+
		"\nDRONE_RUNNER_ROOT="+root+"\nDRONE_HTTP_BIND="+bind+"\n")
	if out, errs, code := call(t, "leaks", "--config", file); code != 0 || !strings.Contains(out, "nothing is left") {
		t.Errorf("with nothing left: exit code %d\n%s%s", code, out, errs)
	}
	for _, dir := range []string{"cc-ci-0123abcd-7", "somebody-elses"} {
		if err := os.MkdirAll(filepath.Join(root, dir, "src"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	out, errs, code := call(t, "leaks", "--config", file)
	if code != 1 || !strings.Contains(out, "cc-ci-0123abcd-7") || strings.Contains(out, "somebody") || !strings.Contains(errs, "--remove") {
		t.Errorf("with a directory left: exit code %d\n%s%s", code, out, errs)
	}
	if out, errs, code = call(t, "leaks", "--config", file, "--remove"); code != 1 || !strings.Contains(errs, "nothing was removed") {
		t.Errorf("without an answer: exit code %d\n%s%s", code, out, errs)
	}
	if out, errs, code = call(t, "leaks", "--config", file, "--remove", "--yes"); code != 0 || !strings.Contains(out, "removed: directory") {
		t.Errorf("removing: exit code %d\n%s%s", code, out, errs)
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 1 || entries[0].Name() != "somebody-elses" {
		t.Errorf("afterwards there is %v, %v", entries, err)
	}
	if left := cgroups(t, strings.ReplaceAll(bind, ":", "_")); len(left) > 0 {
		t.Errorf("leaks itself left %v", left)
	}
}
