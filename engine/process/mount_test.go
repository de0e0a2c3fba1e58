//go:build linux

package process

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// needMounts skips the test where the report says that steps get no mount namespace.
func needMounts(t *testing.T, h *Host) {
	t.Helper()
	if !h.Report().PrivateMounts {
		t.Skipf("%v", h.Report().Lines())
	}
}

// Steps of one build share a /tmp and a /dev/shm that are nobody else's, and see the workspace where it is although it
// lies below the host's /tmp.
func TestTmpIsTheBuildsOwn(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		needMounts(t, h)
		b := newBuildBelowTmp(t, h, "one")
		other := newBuildBelowTmp(t, h, "two")
		for _, dir := range []string{"/tmp", "/dev/shm"} {
			mustRun(t, h, shell(b, "echo secret >"+dir+"/cc-ci-test-file"))
			if _, out := mustRun(t, h, shell(b, "cat "+dir+"/cc-ci-test-file; stat -c %a "+dir)); out != "secret\n1777\n" {
				t.Errorf("the build's next command in %s: %s", dir, out)
			}
			if _, out := mustRun(t, h, shell(other, "cat "+dir+"/cc-ci-test-file")); strings.Contains(out, "secret") {
				t.Errorf("another build sees %s", dir)
			}
			if _, err := os.Stat(dir + "/cc-ci-test-file"); err == nil {
				t.Errorf("it is in the host's %s", dir)
			}
		}
		exit, out := mustRun(t, h, shell(b, "pwd && echo hello >file && cd / && cat "+b.Workspace+"/file && ls -A /tmp"))
		if exit.Code != 0 || !strings.HasPrefix(out, b.Workspace+"\nhello\n") {
			t.Errorf("%+v\n%s", exit, out)
		}
		if got, err := os.ReadFile(b.Workspace + "/file"); err != nil || string(got) != "hello\n" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// newBuildBelowTmp is a build whose directories lie below the host's /tmp.
func newBuildBelowTmp(t *testing.T, h *Host, name string) Build {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "cc-ci-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	b := Build{Name: name, Root: root, Home: root + "/home", Workspace: root + "/src", Tmp: root + "/tmp"}
	for _, dir := range []string{b.Home, b.Workspace} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Create(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return b
}

// A socket of the build's own lies where every tool looks for Docker's, for its steps only.
func TestBinds(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		needMounts(t, h)
		dir := t.TempDir()
		target, source := filepath.Join(dir, "docker.sock"), filepath.Join(dir, "own.sock")
		for _, path := range []string{target, source} {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer discard(l)
		}
		b := newBuild(t, h, Build{Binds: []Bind{
			{Source: source, Target: target},
			{Source: source, Target: "/tmp/made/on/demand"},
			{Source: "/usr", Target: "/opt", ReadOnly: true},
		}})
		want := inode(t, source)
		_, out := mustRun(t, h, shell(b, "stat -c %i "+target+" /tmp/made/on/demand; ls /opt/bin/env; touch /opt/x"))
		if !strings.HasPrefix(out, want+"\n"+want+"\n/opt/bin/env\n") || !strings.Contains(out, "Read-only file system") {
			t.Errorf("want inode %s twice:\n%s", want, out)
		}
		if inode(t, target) == want {
			t.Error("the host sees the bind too")
		}
	})
}

func inode(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return itoa(int(statOf(info).Ino))
}

func TestMissingBindSourceIsNamed(t *testing.T) {
	t.Parallel()
	h := openHost(t, Config{})
	needMounts(t, h)
	b := newBuild(t, h, Build{Binds: []Bind{{Source: "/no/such/socket", Target: "/run/docker.sock"}}})
	if _, err := h.Run(t.Context(), shell(b, "true")); err == nil || !strings.Contains(err.Error(), "/no/such/socket") {
		t.Errorf("error %v", err)
	}
}

func TestCgroupsAreReadOnly(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		needMounts(t, h)
		b := newBuild(t, h, Build{})
		for _, point := range h.readOnly {
			if _, out := mustRun(t, h, shell(b, "mkdir "+point+"/cc-ci-test")); !strings.Contains(out, "Read-only file system") {
				t.Errorf("%s: %s", point, out)
			}
		}
	})
}

// Nothing that a build writes is setuid or a device to its steps, unless they are root anyway.
func TestWhatABuildWritesIsRestricted(t *testing.T) {
	t.Parallel()
	user := ""
	if os.Geteuid() == 0 {
		user = "nobody"
	}
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode, User: user})
		needMounts(t, h)
		below := newBuildBelowTmp(t, h, "below")
		for _, b := range []Build{below, newBuild(t, h, Build{Name: "elsewhere"})} {
			_, out := mustRun(t, h, shell(b, "for dir in . $HOME /tmp /dev/shm; do findmnt -no OPTIONS -T $dir | tail -n 1; touch $dir/x; done"))
			lines := strings.Split(strings.TrimSpace(out), "\n")
			for _, options := range lines {
				if !strings.Contains(options, "nosuid") || !strings.Contains(options, "nodev") || len(lines) != 4 {
					t.Errorf("%s: mounted with %q", b.Name, lines)
				}
			}
			tearDown(t, h, b.Name)
		}
	})
}

func TestSharedMounts(t *testing.T) {
	t.Parallel()
	h := openHost(t, Config{ShareMounts: true})
	if h.Report().PrivateMounts || h.Report().Isolated {
		t.Errorf("%v", h.Report().Lines())
	}
	b := newBuild(t, h, Build{})
	_, out := mustRun(t, h, shell(b, "readlink /proc/self/ns/mnt"))
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil || out != own+"\n" {
		t.Errorf("the step is in %s, the runner in %s, %v", out, own, err)
	}
}

// What a step mounts is nobody else's, and gone with it.
func TestMountsOfAStepStayInside(t *testing.T) {
	t.Parallel()
	needRoot(t)
	h := openHost(t, Config{})
	needMounts(t, h)
	b := newBuild(t, h, Build{})
	exit, out := mustRun(t, h, shell(b, "mkdir m && mount -t tmpfs none m && touch m/inside && ls m"))
	if exit.Code != 0 || out != "inside\n" {
		t.Fatalf("%+v\n%s", exit, out)
	}
	if entries, err := os.ReadDir(b.Workspace + "/m"); err != nil || len(entries) > 0 {
		t.Errorf("on the host: %v, %v", entries, err)
	}
	if _, out := mustRun(t, h, shell(b, "ls m")); out != "" {
		t.Errorf("in the next command: %s", out)
	}
}

// System V's shared memory and the like outlive the processes that made them; a build's do not stay on the host, nor does it
// see the host's.
func TestIPCStaysInside(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"ipcmk", "ipcs"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	eachMode(t, func(t *testing.T, mode Mode) {
		h := openHost(t, Config{Mode: mode})
		needMounts(t, h)
		b := newBuild(t, h, Build{})
		const size = "7340033"
		_, out := mustRun(t, h, shell(b, "ipcmk -M "+size+" && ipcs -m; readlink /proc/self/ns/ipc; ls /dev/mqueue | sed s/^/queue:/"))
		own, err := os.Readlink("/proc/self/ns/ipc")
		if err != nil || strings.Count(out, size) != 1 || strings.Contains(out, own) || strings.Contains(out, "queue:") {
			t.Errorf("in the step, %v:\n%s", err, out)
		}
		host, err := os.ReadFile("/proc/sysvipc/shm")
		if err != nil || strings.Contains(string(host), size) {
			t.Errorf("on the host, %v:\n%s", err, host)
		}
		for line := range strings.Lines(string(host)) { // what an unfixed runner leaves
			if fields := strings.Fields(line); len(fields) > 3 && fields[3] == size {
				if out, err := exec.Command("ipcrm", "-m", fields[1]).CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			}
		}
	})
}

// statOf is what the kernel says of a file.
func statOf(info os.FileInfo) *syscall.Stat_t {
	st, _ := info.Sys().(*syscall.Stat_t)
	return st
}
