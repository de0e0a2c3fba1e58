//go:build linux

package process

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// delegatedUID is whom the tests run as below TestDelegated: a uid that nothing else on a host has.
const delegatedUID = 29980

// underDelegation says in the environment that this is the run inside TestDelegated, and names its setuid helper.
// delegatedRun is which tests that run is for; all, if it is not set.
const (
	underDelegation = "CC_CI_TEST_DELEGATED"
	delegatedRun    = "CC_CI_TEST_DELEGATED_RUN"
)

// TestDelegated runs this package's tests once more as a user who is not root, in a cgroup subtree that was handed to
// it, as a service manager does with Delegate=yes. There eachMode finds the delegated mode.
func TestDelegated(t *testing.T) {
	if runtime.NumCPU() > 1 { // or the two runs would only hold each other up
		t.Parallel()
	}
	if os.Getenv(underDelegation) != "" {
		t.Skip("this is it")
	}
	needRoot(t)
	trees, err := readHierarchies()
	if err != nil || trees.unified == nil || trees.unified.own == "" {
		t.Skip("no cgroups", err)
	}
	dir := delegatedDir(t)
	subtree := delegatedSubtree(t, cgroup(trees.unified.own))
	leaf, err := subtree.child("agent").open()
	if err != nil {
		t.Fatal(err)
	}
	defer discard(leaf)
	args := []string{"-test.run", cmp.Or(os.Getenv(delegatedRun), "Test"), "-test.timeout", "9m"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.CommandContext(t.Context(), dir+"/child", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, underDelegation + "=" + dir + "/sudo"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		UseCgroupFD: true, CgroupFD: int(leaf.Fd()),
		Credential: &syscall.Credential{Uid: delegatedUID, Gid: delegatedUID, Groups: []uint32{delegatedUID}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
	if !bytes.Contains(out, []byte("PASS")) {
		t.Error("no test passed")
	}
	if left, err := subtree.pids(); err != nil || len(left) > 0 {
		t.Errorf("left after the tests: %v, %v", items(left), err)
	}
}

// delegatedDir is a directory for the other user, with a copy of this test and another that becomes root.
func delegatedDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "cc-ci-test-") // where setuid works and everybody may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	err = errors.Join(
		os.Chmod(dir, 0o755),
		copyFile(os.Args[0], dir+"/child"), copyFile(os.Args[0], dir+"/sudo"),
		os.Chown(dir, delegatedUID, delegatedUID),
		os.Chmod(dir+"/sudo", 0o755|os.ModeSetuid),
	)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// delegatedSubtree makes a cgroup and gives it away, with a leaf for the runner itself.
func delegatedSubtree(t *testing.T, own cgroup) cgroup {
	t.Helper()
	subtree := own.child(testName(t))
	err := errors.Join(subtree.create(), subtree.child("agent").create())
	if err != nil {
		t.Fatal(err)
	}
	delegateControllers(t, own, subtree)
	t.Cleanup(func() {
		if err := errors.Join(subtree.kill(), subtree.removeSoon(t.Context())); err != nil {
			// The context has ended: nothing waits here, so one more try is all there is.
			if err := subtree.remove(); err != nil {
				t.Error(err)
			}
		}
	})
	for _, g := range []cgroup{subtree, subtree.child("agent")} {
		for _, file := range []string{"", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} {
			if err := os.Chown(filepath.Join(string(g), file), delegatedUID, delegatedUID); err != nil {
				t.Fatal(err)
			}
		}
	}
	return subtree
}

// delegateControllers hands the version 2 controllers that there are to the subtree.
func delegateControllers(t *testing.T, own, subtree cgroup) {
	t.Helper()
	available, err := own.read("cgroup.controllers")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"memory", "pids", "cpu"} {
		if slices.Contains(strings.Fields(available), c) {
			if err := own.write("cgroup.subtree_control", "+"+c); err != nil {
				t.Logf("%s is not delegated: %v", c, err)
			}
		}
	}
}

// The runner itself is not dumpable, and its steps get a mount namespace nevertheless; what hangs from that holds.
func TestHardenedRunner(t *testing.T) {
	if os.Getenv(underDelegation) == "" {
		t.Skip("runs inside TestDelegated")
	}
	if err := Harden(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
			t.Error(err)
		}
	}()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		if !h.Report().PrivateMounts || !h.Report().Isolated {
			t.Fatalf("%v", h.Report().Lines())
		}
		b := newBuild(t, h, Build{})
		_, out := mustRun(t, h, shell(b, "cat /proc/"+itoa(os.Getpid())+"/environ && echo read; grep CapEff /proc/self/status; umount /tmp && echo unmounted; id -u"))
		for _, word := range []string{"read\n", "unmounted"} {
			if strings.Contains(out, word) {
				t.Errorf("the step did what it must not:\n%s", out)
			}
		}
		for _, word := range []string{"CapEff:\t0000000000000000", itoa(delegatedUID)} {
			if !strings.Contains(out, word) {
				t.Errorf("no %s in\n%s", word, out)
			}
		}
		if h.tree == nil {
			return
		}
		_, out = mustRun(t, h, shell(b, "for g in "+string(h.tree.folder)+"/.. "+string(h.tree.folder)+"/../agent "+string(h.tree.folder)+"; do echo $$ >$g/cgroup.procs; mkdir $g/x; done; true"))
		if strings.Count(out, "ead-only file system") != 6 {
			t.Errorf("the step could write to cgroups:\n%s", out)
		}
	})
}
