package swarm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
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
