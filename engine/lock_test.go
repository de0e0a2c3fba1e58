package engine

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Two of locks in one directory are as two processes to each other.
func twoLocks(t *testing.T) (*locks, *locks) {
	t.Helper()
	dir := t.TempDir()
	one, err := newLocks(dir)
	if err != nil {
		t.Fatal(err)
	}
	two, err := newLocks(dir)
	if err != nil {
		t.Fatal(err)
	}
	return one, two
}

// Locks lie where everybody may make directories, and links: what another could have made there is not believed.
func TestLockDirectoryOfOthers(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "own")
	for range 2 {
		if _, err := newLocks(own); err != nil {
			t.Fatal(err)
		}
	}
	for name, plant := range map[string]func(string) error{
		"link": func(path string) error { return os.Symlink(own, path) },
		"open": func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o777)) },
		"anothers": func(path string) error {
			if os.Geteuid() != 0 {
				return os.Symlink(own, path) // only root can give a directory away
			}
			return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, 65534, 65534))
		},
	} {
		path := filepath.Join(dir, name)
		if err := plant(path); err != nil {
			t.Fatal(err)
		}
		if _, err := newLocks(path); err == nil || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWaitForTheLockOfAnother(t *testing.T) {
	one, two := twoLocks(t)
	if err := one.take("b"); err != nil {
		t.Fatal(err)
	}
	short, done := context.WithTimeout(t.Context(), 3*busyPause)
	defer done()
	if err := two.wait(short, "b"); !errors.Is(err, errBusy) {
		t.Fatalf("a lock that is held was waited for: %v", err)
	}
	waited := make(chan error)
	go func() { waited <- two.wait(t.Context(), "b") }()
	time.Sleep(2 * busyPause)
	if err := one.release("b"); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Errorf("the lock that was given up was not taken: %v", err)
	}
	if err := two.release("b"); err != nil {
		t.Error(err)
	}
}

// A lock is never held on a file that was removed: nobody else would see it.
func TestLockIsSeen(t *testing.T) {
	one, two := twoLocks(t)
	var holders atomic.Int32
	var both sync.WaitGroup
	for _, l := range []*locks{one, two} {
		both.Go(func() {
			for range 3000 {
				err := l.take("b")
				if errors.Is(err, errBusy) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if holders.Add(1) > 1 {
					t.Error("both hold the lock")
				}
				if _, err := os.Stat(l.path("b")); err != nil {
					t.Errorf("the lock that is held cannot be seen: %v", err)
				}
				holders.Add(-1)
				if err := l.release("b"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	both.Wait()
}

// A look at a lock never gives it up: a build of this process may take it at the same moment.
func TestLookLeavesTheLock(t *testing.T) {
	l, _ := twoLocks(t)
	var looking sync.WaitGroup
	done := make(chan struct{})
	looking.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				l.busy("b")
			}
		}
	})
	for range 20000 {
		if err := l.take("b"); err != nil {
			t.Error(err)
			break
		}
		if _, err := os.Stat(l.path("b")); err != nil || !l.busy("b") {
			t.Errorf("the lock was given up: %v", err)
			break
		}
		if err := l.release("b"); err != nil {
			t.Error(err)
		}
	}
	close(done)
	looking.Wait()
}

// A runner of another user keeps its locks elsewhere; root, who can see them, leaves its builds alone. A step that
// pretends to be such a runner gets nothing by it.
func TestLockOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root sees what other users have open")
	}
	const nobody = 65534
	dir, build := t.TempDir(), BuildName("http://foreign", int64(os.Getpid()))
	for path := dir; path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, build+".lock")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	none := func(int) bool { return false }
	if foreign(build, none) {
		t.Error("a file that nobody holds is taken for a lock")
	}
	holder := exec.Command("flock", "--no-fork", file, "sh", "-c", "echo held; exec sleep 1000")
	holder.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	output, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = holder.Process.Kill() // it may have ended
		_ = holder.Wait()         // killed, as it should be
	})
	if line, err := bufio.NewReader(output).ReadString('\n'); line != "held\n" {
		t.Fatalf("the lock was not taken: %q %v", line, err)
	}
	engine := newEngine(t, nil)
	if !engine.Busy(build) {
		t.Error("the build of another user's runner is taken for dead")
	}
	if foreign(build, func(uid int) bool { return uid == nobody }) {
		t.Error("a process of a step's user passes for a runner")
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // killed
	if engine.Busy(build) {
		t.Error("the build of a runner that has ended is taken for alive")
	}
}
