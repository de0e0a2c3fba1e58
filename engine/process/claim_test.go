//go:build linux

package process

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Anybody can start a process with the name of a build that runs. Where the steps have a user, that of another one is no
// process of the build: its teardown neither names it, which could fail the build, nor ends it.
func TestMarkerOfAnotherUserIsNotBelieved(t *testing.T) {
	t.Parallel()
	needRoot(t)
	first := testUIDs(t, 4)
	for name, setting := range map[string]string{"one user": itoa(first), "range": itoa(first) + "-" + itoa(first+1)} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, mode Mode) {
				h := openHost(t, Config{Mode: mode, User: setting, Ended: testName(t) + "-exec-"})
				b := newBuild(t, h, Build{Name: "victim"})
				_, out := mustRun(t, h, shell(b, "id -u"))
				uid, err := strconv.Atoi(strings.TrimSpace(out))
				if err != nil {
					t.Fatal(err)
				}
				claims := []*exec.Cmd{
					claim(t, h.markerValue(b.Name), 1_000_000_000),
					claim(t, h.cfg.Ended+"1/"+b.Name, 1_000_000_000),
					claimAsSetuid(t, h.markerValue(b.Name), uid),
				}
				real := claim(t, h.markerValue(b.Name), uid)
				left, err := h.EndStep(t.Context(), b.Name, "step")
				ended, downErr := h.Teardown(t.Context(), b.Name)
				remaining, leftErr := h.Remaining(t.Context(), b.Name)
				if len(left)+len(ended) != 1 || len(remaining) > 0 || err != nil || downErr != nil || leftErr != nil {
					t.Errorf("left %v, %v, ended %v, %v, remaining %v, %v; want one of uid %d", left, err, ended, downErr, remaining, leftErr, uid)
				}
				for i, c := range claims {
					if p, ok := readProc(c.Process.Pid); !ok || p.zombie {
						t.Errorf("process %d, which only claimed to be the build's, was killed", i)
					}
				}
				if p, ok := readProc(real.Process.Pid); ok && !p.zombie {
					t.Errorf("%s survived", p.item())
				}
			})
		})
	}
}

// claim starts a process of the user that has the marker.
func claim(t *testing.T, marker string, uid int) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sleep", "1000")
	c.Env = []string{MarkerEnv + "=" + marker}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	startClaim(t, c)
	return c
}

// claimAsSetuid starts one as a setuid program of the user runs that another has started.
func claimAsSetuid(t *testing.T, marker string, uid int) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := &buffer{}
	c := exec.CommandContext(t.Context(), self)
	c.Env = []string{MarkerEnv + "=" + marker, "CC_CI_TEST_CHILD=setuid", "CC_CI_TEST_UID=" + itoa(uid)}
	c.Stdout = out
	startClaim(t, c)
	await(t, "the child of two users", func() bool { return strings.Contains(out.String(), "ready") })
	return c
}

func startClaim(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill() // it may be dead
		_ = c.Wait()         // that it was killed is no news
	})
}
