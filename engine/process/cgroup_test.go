//go:build linux

package process

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWaitingSleeps: whoever waits for a cgroup's event sleeps. A step that ignores SIGTERM is waited for throughout its
// grace period, and the steps beside it need the processor.
func TestWaitingSleeps(t *testing.T) {
	h := openHost(t, Config{})
	if h.tree == nil {
		t.Skip("no cgroups here")
	}
	g := h.tree.folder.child(probePrefix + "wait")
	if err := g.create(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.remove(); err != nil {
			t.Error(err)
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadTime(t)
	if came, err := g.waitEvent(nil, "populated", 1, time.Second); came || err != nil {
		t.Fatalf("waited for what does not come: %v, %v", came, err)
	}
	// It looks every 50 ms whether it is to stop. That takes a few milliseconds of processor time, however busy the host is;
	// one that does not sleep takes nearly all of its share.
	if used := threadTime(t) - before; used > 200*time.Millisecond {
		t.Errorf("waiting for a second took %s of the processor", used)
	}
}

// threadTime is the processor time of the calling thread.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
