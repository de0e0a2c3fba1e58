//go:build linux

package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// escape is a way in which a build's process may try to outlive it. The script must end by itself; its processes
// carry $TOKEN on their command line, by which the kernel is asked who survived.
type escape struct {
	script string
	// limits are those of the build.
	limits Limits
	// shared leaves the step in the host's mount namespace, where a user who is not root can use sudo, and everybody can
	// write to the cgroups that are theirs.
	shared bool
	// begun says that the escape has gone as far as it can; nil where it is enough that a process lives.
	begun func(t *testing.T, h *Host, b Build) bool
}

func escapes() map[string]escape {
	return map[string]escape{
		"background":      {script: `sleep $TOKEN >/dev/null 2>&1 </dev/null &`},
		"setsid":          {script: `setsid sleep $TOKEN &`},
		"double fork":     {script: `(setsid sh -c 'sleep $TOKEN & sleep $TOKEN & exit' &)`},
		"nohup":           {script: `nohup sleep $TOKEN >/dev/null 2>&1 &`},
		"env -i":          {script: `(env -i setsid sh -c "sleep $TOKEN & exit" $TOKEN &)`},
		"non-dumpable":    {script: `CC_CI_TEST_CHILD=hide setsid $SELF $TOKEN &`},
		"ignores SIGTERM": {script: `CC_CI_TEST_CHILD=deaf $SELF $TOKEN & sh -c 'trap "" TERM; sleep $TOKEN; sleep $TOKEN' &`},
		"stopped":         {script: `sh -c 'kill -STOP $$' $TOKEN &`},
		"holds stdout":    {script: `sleep $TOKEN &`},
		// Each process lives for about a millisecond and leaves a child in a new session.
		"re-forking chain": {script: `printf '#!/bin/sh\necho >>"$0.beat"\n(env -i /usr/bin/setsid /bin/sh "$0" "$1" &)\n' >chain; chmod +x chain
			for i in 1 2 3 4; do ./chain $TOKEN & done`},
		"uid change": {shared: true, script: `CC_CI_TEST_CHILD=$BECOME setsid $OTHER $TOKEN >ready & until grep -q ready ready; do sleep 0.01; done`},
		"move to another cgroup": {shared: true, script: `for procs in $MOVES; do
			setsid sh -c 'echo $$ >"$1" && echo >>moved; exec sleep $TOKEN' sh $procs >/dev/null 2>&1 & done`,
			begun: func(t *testing.T, h *Host, b Build) bool {
				return h.tree == nil || size(b.Workspace+"/moved") == int64(len(moves(t, h)))
			}},
		// Where nothing limits it, it ends after seven generations.
		"fork bomb": {limits: Limits{PIDs: 40}, script: `exec 2>refused
			bomb() { [ $1 -gt 6 ] || { sleep $TOKEN & bomb $(($1+1)) & bomb $(($1+1)) & }; }; bomb 0`,
			begun: func(t *testing.T, h *Host, b Build) bool {
				return unlimited(t, h, "pids") || size(b.Workspace+"/refused") > 0
			}},
		"memory hog": {limits: Limits{Memory: 64 << 20}, script: `CC_CI_TEST_CHILD=hog setsid $SELF $TOKEN >full & sleep $TOKEN &`,
			begun: func(t *testing.T, h *Host, b Build) bool {
				return unlimited(t, h, "memory") && size(b.Workspace+"/full") > 0 || h.build(b.Name).steps["step"].usage().oomKills > 0
			}},
	}
}

// TestEscape is the escape suite: after the step if leftovers are killed, and after the build in any case, nobody is
// left, or who cannot be killed is named; and the neighbour has not noticed.
func TestEscape(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		for name, e := range escapes() {
			for _, keep := range []bool{false, true} {
				policy := map[bool]string{false: "kill", true: "keep"}[keep]
				t.Run(name+"/"+policy, func(t *testing.T) {
					t.Parallel()
					testEscape(t, Config{Mode: mode, KeepLeftovers: keep, ShareMounts: e.shared, Limits: e.limits}, e)
				})
			}
		}
	})
}

func testEscape(t *testing.T, cfg Config, e escape) {
	h := openHost(t, cfg)
	neighbour := startNeighbour(t, h)
	b := newBuild(t, h, Build{Name: "victim"})
	c, token := escapeCommand(t, b, e.script)
	c.Env = append(c.Env, "MOVES="+strings.Join(moves(t, h), " "))
	// A bomb may leave its own shell without a process to start.
	if exit, out := mustRun(t, h, c); exit.Code != 0 && e.limits.PIDs == 0 {
		t.Fatalf("%+v\n%s", exit, out)
	}
	chain := b.Workspace + "/chain.beat"
	await(t, "the escape", func() bool {
		return len(survivors(t, token, chain)) > 0 && (e.begun == nil || e.begun(t, h, b))
	})
	if h.tree == nil && os.Geteuid() != 0 && strings.Contains(e.script, "BECOME") {
		reportsUnkillable(t, h, b, token)
		neighbour(t)
		return
	}
	left, err := h.EndStep(t.Context(), b.Name, c.Step)
	// A chain's links are gone before they can be named, and who has left the cgroup is looked for if it is to be killed.
	if mayBeUnseen := size(chain) > 0 || cfg.KeepLeftovers && size(b.Workspace+"/moved") > 0; err != nil || len(left) == 0 && !mayBeUnseen {
		t.Errorf("end of step: %v, %v; want the leftovers named", left, err)
	}
	if alive := survivors(t, token, chain); (len(alive) > 0) != cfg.KeepLeftovers {
		t.Errorf("after the step: %v", alive)
	}
	tearDown(t, h, b.Name)
	if alive := survivors(t, token, chain); len(alive) > 0 {
		t.Errorf("after the build: %v", alive)
	}
	neighbour(t)
}

// reportsUnkillable checks that a process of another user is reported, again and again, and the build does not count as
// clean; then it ends the process.
func reportsUnkillable(t *testing.T, h *Host, b Build, token string) {
	t.Helper()
	left, err := h.EndStep(t.Context(), b.Name, "step")
	if len(left) != 1 || (err == nil) != h.cfg.KeepLeftovers {
		t.Errorf("end of step: %v, %v; want the process named", left, err)
	}
	if _, err := h.Teardown(t.Context(), b.Name); err == nil || !strings.Contains(err.Error(), left[0].Name) || !strings.Contains(err.Error(), "cannot be killed") {
		t.Errorf("teardown: %v, want the process named", err)
	}
	remaining, err := h.Remaining(t.Context(), b.Name)
	if err != nil || len(remaining) != 1 || remaining[0].Name != left[0].Name {
		t.Errorf("remaining %v, %v", remaining, err)
	}
	// Only root can end it. This is its only chance to do us a favour.
	cmd := exec.CommandContext(t.Context(), os.Getenv(underDelegation))
	cmd.Env = []string{"CC_CI_TEST_CHILD=kill-as-root", "CC_CI_TEST_PID=" + left[0].Name}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	await(t, "its end", func() bool { return len(survivors(t, token, "")) == 0 })
	tearDown(t, h, b.Name)
}

// moves are the cgroups that the victim tries to hide in: the runner's own and its neighbour's.
func moves(t *testing.T, h *Host) []string {
	t.Helper()
	trees, err := readHierarchies()
	if err != nil {
		t.Fatal(err)
	}
	var procs []string
	if trees.unified != nil && trees.unified.own != "" {
		procs = append(procs, trees.unified.own+"/cgroup.procs")
	}
	if h.tree != nil {
		procs = append(procs, string(h.tree.folder.child("neighbour").child(stepName("step")))+"/cgroup.procs")
	}
	return procs
}

// unlimited says that the controller does not work here, after checking that the report says so too.
func unlimited(t *testing.T, h *Host, controller string) bool {
	t.Helper()
	if slices.Contains(h.Report().Controllers, controller) {
		return false
	}
	said := slices.ContainsFunc(h.Report().Warnings, func(w string) bool {
		return strings.Contains(w, controller+" limit is set but cannot be enforced")
	})
	if !said {
		t.Errorf("no warning about the %s limit in %v", controller, h.Report().Warnings)
	}
	return true
}

// escapeCommand is the script as a step's command, and the text by which its processes are known.
func escapeCommand(t *testing.T, b Build, script string) (Command, string) {
	t.Helper()
	self := b.Root + "/child" // the original may lie below /tmp, which the build does not see
	become, other := "become-nobody", self
	if sudo := os.Getenv(underDelegation); sudo != "" {
		become, other = "become-root", sudo
	}
	if strings.Contains(script, "$SELF") || strings.Contains(script, "$OTHER") {
		if err := copyFile(os.Args[0], self); err != nil {
			t.Fatal(err)
		}
	}
	// A number that no other test has, so that sleep takes it.
	token := "1" + strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, filepath.Base(b.Root)+b.Root)
	token = token[:min(len(token), 18)]
	c := shell(b, script)
	c.Env = append(c.Env, "TOKEN="+token, "SELF="+self, "OTHER="+other, "BECOME="+become)
	return c, token
}

// copyFile copies a program. No process may be started meanwhile: it would inherit the open copy, which then could not
// be run yet ("text file busy").
func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(to, b, 0o755)
}

// survivors are the living processes whose command line ends in the token. Those of a chain are too short-lived for
// every scan to see one; they are known by the file that grows.
func survivors(t *testing.T, token, chain string) []string {
	t.Helper()
	before := size(chain)
	var found []string
	for range 2 {
		err := visitAll(func(p proc) {
			if args := p.args(); len(args) > 0 && strings.HasSuffix(args[len(args)-1], token) {
				found = append(found, p.item().String())
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if size(chain) > before {
		found = append(found, "a chain that goes on")
	}
	return found
}

func size(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}

// tearDown tears a build down and asks for what remains.
func tearDown(t *testing.T, h *Host, build string) {
	t.Helper()
	if _, err := h.Teardown(context.Background(), build); err != nil {
		t.Error(err)
	}
	left, err := h.Remaining(context.Background(), build)
	if err != nil || len(left) > 0 {
		t.Errorf("remaining of %s: %v, %v", build, left, err)
	}
}

// startNeighbour runs a build that must not notice anything. The returned check ends it.
func startNeighbour(t *testing.T, h *Host) (check func(t *testing.T)) {
	t.Helper()
	b := newBuild(t, h, Build{Name: "neighbour"})
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("the test is over")
	ended := make(chan error, 1)
	out := &buffer{}
	c := shell(b, "echo ready; sleep 3600")
	c.Output = out
	go func() {
		_, err := h.Run(ctx, c)
		ended <- err
	}()
	await(t, "the neighbour", func() bool { return strings.Contains(out.String(), "ready") })
	return func(t *testing.T) {
		t.Helper()
		select {
		case err := <-ended:
			t.Errorf("the neighbour ended: %v", err)
			return
		default:
		}
		cancel(enough)
		if err := <-ended; !errors.Is(err, enough) {
			t.Errorf("the neighbour ended with %v", err)
		}
		tearDown(t, h, b.Name)
	}
}
