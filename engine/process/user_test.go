//go:build linux

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseUser(t *testing.T) {
	for text, want := range map[string]string{
		"":            "<nil>",
		"20000-20099": "20000-20099",
		"20000-20000": "20000-20000",
		"31234":       "uid 31234 gid 31234 groups [31234]",
		"20099-20000": "a range is FIRST-LAST",
		"0-10":        "a range is FIRST-LAST",
		"-5":          "user \"-5\"",
		// 1<<32 is 0 to the kernel, one less means nobody's uid: both would leave the steps root.
		"4294967296":            "give a uid between 1 and 4294967294",
		"4294967295":            "give a uid between 1 and 4294967294",
		"4294967296-4294967300": "a range is FIRST-LAST",
		"20000-90000":           "at most 65536 uids",
		"no-such-user!":         "unknown user",
		"root":                  "is root",
		"0":                     "is root",
	} {
		got := "<nil>"
		u, err := parseUser(text)
		switch {
		case err != nil:
			got = err.Error()
		case u != nil && u.shared != nil:
			got = fmt.Sprintf("uid %d gid %d groups %v", u.shared.UID, u.shared.GID, u.shared.Groups)
		case u != nil:
			got = fmt.Sprintf("%d-%d", u.first, u.last)
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// Steps do not get the groups that give them the host's Docker, however their user came by them.
func TestWithoutGroups(t *testing.T) {
	t.Parallel()
	const docker = 998
	one := &users{shared: &identity{UID: 1000, GID: 1000, Groups: []int{1000, docker, 27}}}
	if err := one.leave([]int{docker, 0}); err != nil || !slices.Equal(one.shared.Groups, []int{1000, 27}) {
		t.Errorf("the groups left are %v, %v", one.shared.Groups, err)
	}
	for _, u := range []*users{
		{shared: &identity{UID: 1000, GID: docker, Groups: []int{docker}}},
		{first: docker, last: docker},
		{first: 900, last: 999},
	} {
		if err := u.leave([]int{docker}); err == nil || !strings.Contains(err.Error(), "group 998") {
			t.Errorf("%+v: error %v", u, err)
		}
	}
	if err := (&users{first: docker + 1, last: docker + 9}).leave([]int{docker}); err != nil {
		t.Error(err)
	}
	var user *UserError
	if err := CheckUser("990-1005", docker); !errors.As(err, &user) {
		t.Errorf("a range with Docker's group: %v", err)
	}
}

// testUIDs is the first of two uids that no other test and no other run of these tests has. Their lock files go with
// the test.
func testUIDs(t *testing.T, number int) int {
	t.Helper()
	first := 100_000 + os.Getpid()%100_000*100 + 2*number
	t.Cleanup(func() {
		for uid := range 2 {
			if err := os.Remove(uidLocks + "/" + itoa(first+uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		}
	})
	return first
}

// needRoot skips what only a runner that is root can do.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// Old defect of another runner: steps had root's group among their supplementary groups.
func TestStepsHaveTheirUsersGroupsOnly(t *testing.T) {
	t.Parallel()
	needRoot(t)
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"nobody", nobody.Uid} {
		eachMode(t, func(t *testing.T, mode Mode) {
			h := openHost(t, Config{Mode: mode, User: name})
			b := newBuild(t, h, Build{})
			_, out := mustRun(t, h, shell(b, "id -u; id -g; id -G; umask; grep -E 'NoNewPrivs|CapEff|CapAmb' /proc/self/status; echo hello >file && mkdir $HOME/d && cat file"))
			want := fmt.Sprintf("%s\n%s\n%s\n0022\nCapEff:\t%016d\nCapAmb:\t%016d\nNoNewPrivs:\t1\nhello\n", nobody.Uid, nobody.Gid, nobody.Gid, 0, 0)
			if out != want {
				t.Errorf("got\n%s\nwant\n%s", out, want)
			}
			if uid, gid := h.Owner(b.Name); itoa(uid) != nobody.Uid || itoa(gid) != nobody.Gid {
				t.Errorf("owner %d:%d", uid, gid)
			}
		})
	}
}

// Every running build of a range has a uid of its own, also if two runners share the range, and nothing of an earlier
// build runs under it.
func TestUIDRange(t *testing.T) {
	t.Parallel()
	needRoot(t)
	first := testUIDs(t, 0)
	setting := fmt.Sprintf("%d-%d", first, first+1)
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode, User: setting, KeepLeftovers: true})
		other := openHost(t, Config{Mode: mode, User: setting, Name: h.cfg.Name + "-other"})
		one := newBuild(t, h, Build{Name: "one"})
		two := newBuild(t, other, Build{Name: "two"})
		if err := h.Create(t.Context(), Build{Name: "three"}); err == nil || !strings.Contains(err.Error(), "no uid of the range") {
			t.Errorf("a third build: %v", err)
		}
		_, out1 := mustRun(t, h, shell(one, "id -u; env -i setsid sleep 1000 >/dev/null 2>&1 &"))
		_, out2 := mustRun(t, other, shell(two, "id -u"))
		uids := []string{strings.TrimSpace(out1), strings.TrimSpace(out2)}
		slices.Sort(uids)
		if !slices.Equal(uids, []string{itoa(first), itoa(first + 1)}) {
			t.Errorf("uids %v", uids)
		}
		tearDown(t, h, one.Name)
		uid, err := strconv.Atoi(strings.TrimSpace(out1))
		if err != nil {
			t.Fatal(err)
		}
		if procs, err := procsOf(uid); err != nil || len(procs) > 0 {
			t.Errorf("processes of uid %d: %v, %v", uid, procs, err)
		}
		newBuild(t, h, Build{Name: "three"}) // the uid is free again
		tearDown(t, h, "three")
		tearDown(t, other, two.Name)
	})
}

// A uid that something still runs under is not given to the next build.
func TestUIDInUseIsPassedOver(t *testing.T) {
	t.Parallel()
	needRoot(t)
	uids := testUIDs(t, 1)
	h := openHost(t, Config{User: fmt.Sprintf("%d-%d", uids, uids+1)})
	first := newBuild(t, h, Build{Name: "first", Keep: true})
	_, out := mustRun(t, h, shell(first, "id -u; setsid sleep 1000 >/dev/null 2>&1 & echo $!"))
	pids := pidsIn(out)
	tearDown(t, h, first.Name)
	second := newBuild(t, h, Build{Name: "second"})
	_, out2 := mustRun(t, h, shell(second, "id -u"))
	if strings.HasPrefix(out, strings.TrimSpace(out2)) {
		t.Errorf("the second build has the uid of the first, whose process lives: %s", out2)
	}
	p, ok := readProc(pids[1])
	if !ok {
		t.Fatal("the kept process is gone")
	}
	if err := p.signal(9); err != nil {
		t.Error(err)
	}
	await(t, "its end", func() bool { return !p.same() })
	tearDown(t, h, second.Name)
}

// The runner's processes are closed to a step that runs as another user, and the cgroups are not its to write.
func TestStepCannotLeaveItsCgroup(t *testing.T) {
	t.Parallel()
	needRoot(t)
	h := openHost(t, Config{User: "nobody"})
	if h.tree == nil {
		t.Skip("no cgroups")
	}
	if !h.Report().Isolated {
		t.Errorf("not isolated: %v", h.Report().Lines())
	}
	neighbour := startNeighbour(t, h)
	b := newBuild(t, h, Build{Name: "victim"})
	script := "for g in " + string(h.tree.folder) + " " + string(h.tree.folder) + "/neighbour/step-* " + string(h.tree.folder) + "/..; do " +
		"echo $$ >$g/cgroup.procs && echo moved to $g; mkdir $g/new && echo made $g/new; done; cat /proc/" + itoa(os.Getpid()) + "/environ && echo read; true"
	_, out := mustRun(t, h, shell(b, script))
	for _, word := range []string{"moved to", "made", "read\n"} {
		if strings.Contains(out, word) {
			t.Errorf("the step did what it must not:\n%s", out)
		}
	}
	if n := strings.Count(out, "ead-only file system"); n < 4 {
		t.Errorf("%d of 6 attempts met a read-only file system:\n%s", n, out)
	}
	tearDown(t, h, b.Name)
	neighbour(t)
}

// A build's directory belongs to its user, who may put links where /tmp and /dev/shm are kept. Root mounts these for the next
// step: by a link it would open what that user cannot get at, the workspaces of other builds for one.
func TestLinksAreNotMounted(t *testing.T) {
	t.Parallel()
	needRoot(t)
	closed := t.TempDir() // below a directory that everybody may enter, as /tmp is
	open := filepath.Join(closed, "open")
	if err := errors.Join(os.Mkdir(open, 0o755), os.WriteFile(open+"/file", []byte("canary"), 0o644), os.Chmod(closed, 0o700)); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"shm": "/dev/shm", "tmp": "/tmp"} {
		h := openHost(t, Config{User: itoa(testUIDs(t, 2)), Name: testName(t) + "-" + name, KeepLeftovers: true})
		if !h.report.PrivateMounts {
			t.Skip("no mount namespaces here")
		}
		b := newBuild(t, h, Build{Name: "build"})
		mustRun(t, h, shell(b, "cd "+b.Root+" && mv "+name+" old && ln -s "+open+" "+name))
		var out buffer
		c := shell(b, "cat "+target+"/file")
		c.Output = &out
		exit, err := h.Run(t.Context(), c)
		if strings.Contains(out.String(), "canary") || err == nil || !strings.Contains(err.Error(), "symbolic link") {
			t.Errorf("%s: %+v, %v, %q", name, exit, err, out.String())
		}
		tearDown(t, h, b.Name)
	}
}

// Where the build's directory lies below /tmp, its place is made in the build's own /tmp. A link there must not have root
// make it somewhere else on the host.
func TestLinksAreNotFollowedToTargets(t *testing.T) {
	t.Parallel()
	needRoot(t)
	victim, err := os.MkdirTemp("/var/tmp", "cc-ci-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.RemoveAll(victim); err != nil {
			t.Error(err)
		}
	}()
	h := openHost(t, Config{User: itoa(testUIDs(t, 3)), KeepLeftovers: true})
	b := newBuild(t, h, Build{Name: "build"})
	if !h.report.PrivateMounts || !below(b.Root, "/tmp") {
		t.Skip("nothing is made below /tmp here")
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(b.Root, "/tmp/"), "/")
	// One that leads to nowhere else now may do so in the next moment.
	for _, link := range []string{victim, "elsewhere"} {
		mustRun(t, h, shell(b, "cd "+b.Root+" && mv tmp old-$$ && mkdir -p tmp/elsewhere && ln -s "+link+" tmp/"+first))
		if exit, err := h.Run(t.Context(), shell(b, "true")); err == nil {
			t.Errorf("the next step ran: %+v", exit)
		}
		if err := os.Remove(filepath.Join(b.Tmp, first)); err != nil {
			t.Error(err)
		}
	}
	if made, err := os.ReadDir(victim); err != nil || len(made) > 0 {
		t.Errorf("root has made %v in it, %v", made, err)
	}
	tearDown(t, h, b.Name)
}

// Who inherits a session keyring may read what is in it, as any user. That of the runner is not for steps.
func TestKeysStayWithTheRunner(t *testing.T) {
	t.Parallel()
	needRoot(t)
	runtime.LockOSThread() // and never unlocks it: the keyring is the thread's, which ends with the test
	ring, err := unix.KeyctlJoinSessionKeyring("cc-ci-test")
	if err != nil {
		t.Skipf("no keyrings here: %v", err)
	}
	if _, err := unix.AddKey("user", "cc-ci-canary", []byte("canary"), ring); err != nil {
		t.Fatal(err)
	}
	h := openHost(t, Config{User: "nobody"})
	b := newBuild(t, h, Build{})
	_, out := mustRun(t, h, shell(b, "cat /proc/keys"))
	if strings.Contains(out, "cc-ci-canary") || !strings.Contains(out, "_ses") {
		t.Errorf("the step has the keys\n%s", out)
	}
	tearDown(t, h, b.Name)
}

// In the host's mounts a build's directory lies in a /tmp where its owner may rename it. The runner would write the next step's
// files wherever the link leads that took its place. It can be passed through, so what is in it keeps others out.
func TestBuildCannotReplaceItsDirectory(t *testing.T) {
	t.Parallel()
	needRoot(t)
	first := testUIDs(t, 5)
	for i, setting := range []string{itoa(first), itoa(first) + "-" + itoa(first+1)} {
		h := openHost(t, Config{User: setting, ShareMounts: true, Name: testName(t) + itoa(i)})
		b := newBuildBelowTmp(t, h, "build")
		_, out := mustRun(t, h, shell(b, "mv "+b.Root+" "+b.Root+"-old && ln -s /etc "+b.Root+"; "+
			"touch $HOME/home src && stat -c '%U %a' "+b.Root+" && ls $HOME && ls && rm src"))
		if want := "root 711\nhome\nsrc\n"; !strings.HasSuffix(out, want) {
			t.Errorf("user %s: %s; want\n%s", setting, out, want)
		}
		for _, dir := range []string{b.Home, b.Workspace, b.Tmp, b.Root + "/shm"} {
			info, err := os.Lstat(dir)
			if err != nil || info.Mode().Perm() != 0o700 || int(statOf(info).Uid) != first {
				t.Errorf("user %s: %s: %v, %v", setting, dir, info, err)
			}
		}
		tearDown(t, h, b.Name)
	}
}

// Whose directories are a runner's own.
func TestOwns(t *testing.T) {
	self := os.Geteuid()
	for text, foreign := range map[string]int{"": self + 1, "31234": 31235, "20000-20099": 20100} {
		users, err := parseUser(text)
		if err != nil {
			t.Fatal(err)
		}
		h := &Host{users: users}
		if !h.Owns(self) || h.Owns(foreign) {
			t.Errorf("%q: its own user %t, uid %d %t", text, h.Owns(self), foreign, h.Owns(foreign))
		}
		if users != nil && !h.Owns(foreign-1) {
			t.Errorf("%q: uid %d is not its own", text, foreign-1)
		}
	}
}

// Not even root reads a secret that the runner was started with from the list of processes.
func TestHideEnvironment(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = []string{"CC_CI_TEST_CHILD=hide-environment", "EMPTY=", "SECRET=canary = value", "SECRETS=shown", "LAST=one"}
	out, err := cmd.CombinedOutput()
	want := strings.Join([]string{cmd.Env[0], "EMPTY=", "SECRET=**************", "SECRETS=shown", "LAST=one", ""}, "\x00")
	if got := string(out); err != nil || got != fmt.Sprintf("%q <nil>", want) {
		t.Errorf("%v, %s; want %q", err, got, want)
	}
}
