//go:build linux

package process

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOpenRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		cfg  Config
		want string
	}{
		"a name with a slash": {Config{Name: "a/b"}, "a slash cannot be part"},
		"an unknown user":     {Config{User: "no-such-user!"}, "unknown user"},
		"root as user":        {Config{User: "root"}, "is root"},
		"a mode of elsewhere": {Config{Mode: ProcessGroup}, "containment process-group: this host has"},
	} {
		if h, err := Open(t.Context(), test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, %v; want %q", name, h, err, test.want)
		}
	}
	if os.Geteuid() != 0 {
		if _, err := Open(t.Context(), Config{User: "20000-20009"}); err == nil || !strings.Contains(err.Error(), "only a runner that is root") {
			t.Errorf("another user without root: %v", err)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	h := openHost(t, Config{})
	b := newBuild(t, h, Build{Name: "twice"})
	if err := h.Create(t.Context(), b); err == nil || !strings.Contains(err.Error(), "it exists") {
		t.Errorf("a second time: %v", err)
	}
	for _, name := range []string{"", "a/b", "..", ".hidden", "probe-1", "x.keep", "x.kept"} {
		if err := h.Create(t.Context(), Build{Name: name}); err == nil || !strings.Contains(err.Error(), "not a name") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if left, err := h.EndStep(t.Context(), "twice", "no-such-step"); err != nil || len(left) > 0 {
		t.Errorf("end of a step that never began: %v, %v", left, err)
	}
	if left, err := h.EndStep(t.Context(), "no-such-build", "step"); err != nil || len(left) > 0 {
		t.Errorf("end of a step of no build: %v, %v", left, err)
	}
	tearDown(t, h, "twice")
	if _, err := h.Run(t.Context(), shell(b, "true")); err == nil {
		t.Error("a build that was torn down runs a command")
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	r, err := Probe(t.Context(), Config{Name: testName(t), Limits: Limits{Memory: 1 << 30, PIDs: 100, CPUs: 2}})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Join(r.Lines(), "\n")
	if !strings.HasPrefix(lines, "containment: "+r.Mode.String()+": ") {
		t.Errorf("%s", lines)
	}
	if os.Geteuid() == 0 && !strings.Contains(lines, "steps run as root") {
		t.Errorf("no word about root in\n%s", lines)
	}
	for _, m := range []Mode{CgroupRoot, CgroupDelegated, HybridRoot, HybridDelegated, Subreaper, ProcessGroup} {
		if m.Guarantee() == "unknown mode" {
			t.Errorf("%s: %s", m, m.Guarantee())
		}
	}
	r = Report{Mode: Subreaper, Attempts: []Attempt{{CgroupRoot, errors.New("no such luck")}}, Warnings: []string{"beware"}}
	want := []string{"containment: subreaper: " + Subreaper.Guarantee(), "not cgroup-v2-root: no such luck", "beware"}
	if got := r.Lines(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// A leftover is named so that a person recognises it, and so that no argument gives a secret away.
func TestItemShowsNoArguments(t *testing.T) {
	t.Parallel()
	h := openHost(t, Config{KeepLeftovers: true})
	b := newBuild(t, h, Build{})
	exit, _ := mustRun(t, h, shell(b, "echo 'sleep 1000' >server.sh; "+
		"sh server.sh --password=canary >/dev/null 2>&1 & sh -c 'sleep 1001; : canary' >/dev/null 2>&1 & "+
		"while [ $(grep -l sleep /proc/[0-9]*/comm | wc -l) -lt 2 ]; do sleep 0.01; done"))
	var all []string
	for _, item := range exit.Leftovers {
		if item.Kind != "process" || !strings.Contains(item.Detail, ", running for ") {
			t.Errorf("%+v", item)
		}
		all = append(all, item.Detail)
	}
	said := strings.Join(all, "\n")
	if !strings.Contains(said, "sh server.sh, running") || strings.Contains(said, "canary") {
		t.Errorf("leftovers:\n%s", said)
	}
	strange := proc{pid: startNamed(t, "\x1b[2J\n"+strings.Repeat("x", 300))}
	if detail := strange.item().Detail; strings.ContainsAny(detail, "\x1b\n") || len(detail) > 250 {
		t.Errorf("%q", detail)
	}
}

// startNamed starts a process with that name and returns its PID.
func startNamed(t *testing.T, name string) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sleep", "1000")
	cmd.Args[0] = name
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Kill(), notExit(cmd.Wait())); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	})
	return cmd.Process.Pid
}

// A PID that belongs to another process by now is left alone.
func TestSignalReachesTheSameProcessOnly(t *testing.T) {
	t.Parallel()
	pid := startNamed(t, "sleep")
	p, ok := readProc(pid)
	if !ok {
		t.Fatal("no such process")
	}
	earlier := p
	earlier.start--
	if err := earlier.signal(unix.SIGKILL); err != nil || !p.same() || earlier.same() {
		t.Errorf("a signal for an earlier process: %v, it is alive: %t", err, p.same())
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	await(t, "its end", func() bool { return !p.same() })
	if err := p.signal(unix.SIGKILL); err != nil {
		t.Errorf("a signal for a dead process: %v", err)
	}
	if age, ok := p.age(); !ok || age < 0 || age > time.Hour {
		t.Errorf("age %v, %t", age, ok)
	}
}

// Kernels differ in whether they tell a process's children; both ways find the same.
func TestChildrenByParent(t *testing.T) {
	t.Parallel()
	pid := startNamed(t, "sleep")
	for name, find := range map[string]func(int) []int{"asked": childrenOf, "searched": childrenByParent} {
		if children := find(os.Getpid()); !slices.Contains(children, pid) {
			t.Errorf("%s: %v without %d", name, children, pid)
		}
	}
}

// Kernels before 5.14 have no cgroup.kill.
func TestFreezeAndKill(t *testing.T) {
	t.Parallel()
	h := openHost(t, Config{KeepLeftovers: true, Limits: Limits{PIDs: 500}})
	if h.tree == nil {
		t.Skip("no cgroups")
	}
	b := newBuild(t, h, Build{})
	c, token := escapeCommand(t, b, escapes()["re-forking chain"].script)
	mustRun(t, h, c)
	chain := b.Workspace + "/chain.beat"
	await(t, "the chain", func() bool { return size(chain) > 0 })
	group := h.tree.folder.child(b.Name)
	if err := group.freezeAndKill(); err != nil {
		t.Error(err)
	}
	if empty, err := group.waitEmpty(nil, killWait); !empty || err != nil {
		t.Errorf("empty %t, %v", empty, err)
	}
	if alive := survivors(t, token, chain); len(alive) > 0 {
		t.Errorf("survivors %v", alive)
	}
	if frozen, ok := group.field("cgroup.events", "frozen"); !ok || frozen != 0 {
		t.Error("it is still frozen")
	}
	tearDown(t, h, b.Name)
}

// The runner builds in the subtree that was handed to it, not in the leaf that it was started in.
func TestDelegatedBase(t *testing.T) {
	t.Parallel()
	needRoot(t)
	h := openHost(t, Config{})
	if h.tree == nil {
		t.Skip("no cgroups")
	}
	service := h.tree.folder.child("some.service")
	leaf := service.child("agent")
	if err := os.MkdirAll(string(leaf), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := delegatedBase(leaf, "/", "x"); got != leaf {
		t.Errorf("not delegated: %s", got)
	}
	if err := unix.Setxattr(string(service), "trusted.delegate", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if got := delegatedBase(leaf, "/", "x"); got != service {
		t.Errorf("delegated by the service manager: %s", got)
	}
	if got := delegatedBase(leaf, string(leaf), "x"); got != leaf {
		t.Errorf("nothing above it is visible: %s", got)
	}
	if err := service.remove(); err != nil {
		t.Error(err)
	}
}

func TestStepName(t *testing.T) {
	seen := map[string]string{}
	for _, step := range []string{"build", "build 1", "build-1", "build_1", "Build", "../../etc", "", "ünï", strings.Repeat("long", 100), strings.Repeat("long", 101)} {
		name := stepName(step)
		if other, ok := seen[name]; ok || len(name) > 60 || strings.ContainsAny(name, "/. ") || !strings.HasPrefix(name, "step-") {
			t.Errorf("%q becomes %q, as does %q", step, name, other)
		}
		seen[name] = step
	}
}

// What an operator is told about users depends on who the steps run as.
func TestReportOnUsers(t *testing.T) {
	t.Parallel()
	want := map[string]string{"": "steps run as the runner's own user"}
	if os.Geteuid() == 0 {
		want = map[string]string{"": "steps run as root", "nobody": "share a user", "29970-29979": ""}
	}
	for setting, sentence := range want {
		h := openHost(t, Config{User: setting})
		said := strings.Join(h.Report().Warnings, "\n")
		if !strings.Contains(said, sentence) || sentence == "" && strings.Contains(said, "user") {
			t.Errorf("%q: %s", setting, said)
		}
		if isolated := h.Report().PrivateMounts && sentence != "steps run as root"; h.Report().Isolated != isolated {
			t.Errorf("%q: isolated %t", setting, h.Report().Isolated)
		}
		cleanHost(t, h)
	}
}
