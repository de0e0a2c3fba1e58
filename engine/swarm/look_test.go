package swarm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTimeOverWhileClean runs out of time after the first look that finds nothing: what looks before it found, or did
// not get to see, is not told as what is left.
func TestTimeOverWhileClean(t *testing.T) {
	for name, first := range map[string]func() (*holding, error){
		"what there was": func() (*holding, error) { return &holding{tasks: []thing{{kind: "task", id: "t"}}}, nil },
		"an error":       func() (*holding, error) { return nil, errors.New("the daemon is away") },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		looks := 0
		run := newTeardown(&Swarm{cfg: Config{TeardownTimeout: time.Minute}}, "b1", func(context.Context) (*holding, error) {
			if looks++; looks == 1 {
				return first()
			}
			cancel()
			return &holding{}, nil
		})
		left, err := run.run(ctx)
		if err != nil || (left != nil && !left.empty()) {
			t.Errorf("%s: left %+v, %v", name, left, err)
		}
	}
}

// TestLockOfAnotherUser takes the lock of an app whose file a step made that is another user, where all may make files.
func TestLockOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "cc-ci-app-shop.example.org.lock")
	err := errors.Join(os.WriteFile(path, nil, 0o644), os.Chown(path, 61300, 61300), os.Chmod(dir, os.ModeSticky|0o777))
	if err != nil {
		t.Fatal(err)
	}
	s := &Swarm{cfg: Config{LockDir: dir}, apps: regexp.MustCompile(`^shop\.example\.org$`)}
	for range 2 { // the second finds it free again
		f, err := s.openLock("shop_example_org", os.O_RDWR|os.O_CREATE)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestLockOfNobody locks an app whose file nobody has made: a deployment that begins afterwards finds the lock held. To ask
// whether it is leaves no file behind.
func TestLockOfNobody(t *testing.T) {
	s := &Swarm{cfg: Config{LockDir: t.TempDir()}, apps: regexp.MustCompile(`^shop\.example\.org$`)}
	path := filepath.Join(s.cfg.LockDir, "cc-ci-app-shop.example.org.lock")
	if _, err := os.Stat(path); s.inUse("shop_example_org") || !errors.Is(err, os.ErrNotExist) {
		t.Error("an app of nobody's is in use, or its file is made by a look: ", err)
	}
	lock, err := s.lockApp("shop_example_org")
	if err != nil {
		t.Fatal(err)
	}
	deployment, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o666) // as flock(1) does
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(deployment.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Error("a deployment has the lock of an app that is being removed: ", err)
	}
	if err := errors.Join(deployment.Close(), lock.Close()); err != nil {
		t.Error(err)
	}
	if s.inUse("shop_example_org") {
		t.Error("the lock is not given up")
	}
	none := &Swarm{cfg: Config{LockDir: filepath.Join(s.cfg.LockDir, "none")}}
	if lock, err = none.lockApp("shop_example_org"); err != nil {
		t.Fatal("a host without the directory has no locks: ", err)
	}
	if err := lock.Close(); err != nil {
		t.Error(err)
	}
}

// TestLockIsNoLink: in /run/lock everybody may make files, and so links that lead root elsewhere. Pipes would be waited for.
func TestLockIsNoLink(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "cc-ci-app-shop.example.org.lock")
	s := &Swarm{cfg: Config{LockDir: dir}, apps: regexp.MustCompile(`^shop\.example\.org$`)}
	if err := os.WriteFile(other+"/there", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func() error{
		"a link to a file":  func() error { return os.Symlink(other+"/there", path) },
		"a link to no file": func() error { return os.Symlink(other+"/new", path) },
		"a pipe":            func() error { return unix.Mkfifo(path, 0o600) },
	} {
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		for _, flags := range []int{os.O_RDWR, os.O_RDWR | os.O_CREATE} {
			if f, err := s.openLock("shop_example_org", flags); err == nil {
				t.Errorf("%s was opened: %v", name, f.Close())
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if made, err := os.ReadDir(other); err != nil || len(made) != 1 {
		t.Errorf("made elsewhere: %v, %v", made, err)
	}
}
