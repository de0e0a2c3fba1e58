//go:build linux

package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Of the arguments, which may be secrets, only a script's name is shown, from wherever it was called.
func TestItemNamesTheScript(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/script", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for argument, want := range map[string]string{
		"script": "sh script, ", dir + "/script": "sh " + dir + "/script, ", ".": "sh, ", "canary": "sh, ", "-s": "sh, ",
	} {
		if item := describeChild(t, dir, argument); !strings.HasPrefix(item, want) || strings.Contains(item, "canary") {
			t.Errorf("%s: %s, want %s", argument, item, want)
		}
	}
}

// A file system that answers nobody does not keep a teardown from ending the process that names a file of it.
func TestItemDoesNotWaitForAFileSystem(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	server, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", server)
	if err := unix.Mount("cc-ci-test", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		t.Skip(errors.Join(err, unix.Close(server)))
	}
	described := make(chan string, 1)
	go func() { described <- describeChild(t, "/", dir+"/script") }()
	select {
	case item := <-described:
		if !strings.HasPrefix(item, "sh, ") {
			t.Error(item)
		}
		described <- item
	case <-time.After(30 * time.Second):
		t.Error("it waits for the file system")
	}
	if err := errors.Join(unix.Close(server), unix.Unmount(dir, unix.MNT_DETACH)); err != nil {
		t.Error(err)
	}
	<-described // without a server the file system gives errors
}

// describeChild is what a log would say of a process with these arguments.
func describeChild(t *testing.T, dir, argument string) string {
	self, err := os.Executable()
	if err != nil {
		return err.Error()
	}
	c := exec.CommandContext(t.Context(), self)
	c.Args = []string{"sh", argument, "canary"}
	c.Env, c.Dir = []string{"CC_CI_TEST_CHILD=deaf"}, dir
	if err := c.Start(); err != nil {
		return err.Error()
	}
	p, _ := readProc(c.Process.Pid)
	item := p.item().Detail
	_ = c.Process.Kill() // it is not over by itself
	_ = c.Wait()         // that it was killed is no news
	return item
}
