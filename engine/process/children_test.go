//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// playChild is what the test binary does in the part of a misbehaving child.
func playChild(role string) int {
	switch role {
	case "hide": // as ssh-agent does
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			fmt.Println("hide:", err)
			return 1
		}
	case "deaf":
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	case "become-root": // as sudo does; this copy of the binary is setuid root
		if err := syscall.Setresuid(0, 0, 0); err != nil {
			fmt.Println("not root:", err)
			return 1
		}
	case "become-nobody": // as su does; a step that is root needs no help
		if err := syscall.Setresuid(65534, 65534, 65534); err != nil {
			fmt.Println("not nobody:", err)
			return 1
		}
	case "setuid": // as a program is that belongs to one user and was started by another
		uid, err := strconv.Atoi(os.Getenv("CC_CI_TEST_UID"))
		if err = errors.Join(err, syscall.Setresuid(65534, uid, 0)); err != nil {
			fmt.Println("two users:", err)
			return 1
		}
	case "kill-as-root":
		pid, err := strconv.Atoi(os.Getenv("CC_CI_TEST_PID"))
		if err == nil {
			err = errors.Join(syscall.Setresuid(0, 0, 0), syscall.Kill(pid, syscall.SIGKILL))
		}
		if err != nil {
			fmt.Println("kill:", err)
			return 1
		}
		return 0
	case "hide-environment":
		environ, err := []byte(nil), HideEnvironment("SECRET", "NOT_SET", "EMPTY")
		if err == nil {
			environ, err = os.ReadFile("/proc/self/environ")
		}
		fmt.Printf("%q %v", environ, err)
		return 0
	case "hog":
		return hog()
	case "runner":
		return playRunner()
	default:
		fmt.Println("no such role:", role)
		return 1
	}
	fmt.Println("ready")
	time.Sleep(time.Hour)
	return 0
}

// hog touches memory until it is stopped, or has what no test allows, and holds it.
func hog() int {
	var all [][]byte
	for range 120 {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 { // a byte of each page is enough
			block[i] = 1
		}
		all = append(all, block)
	}
	fmt.Println("the hog got", len(all), "MiB")
	time.Sleep(time.Hour)
	return len(all)
}

// playRunner opens a Host and runs a step that leaves processes behind, until it is killed itself.
func playRunner() int {
	ctx, dir := context.Background(), os.Getenv("CC_CI_TEST_DIR")
	h, err := Open(ctx, Config{Name: os.Getenv("CC_CI_TEST_NAME"), Mode: Mode(os.Getenv("CC_CI_TEST_MODE")), KeepLeftovers: true})
	if err == nil {
		err = h.Create(ctx, Build{Name: "build", Root: dir})
	}
	if err == nil {
		_, err = h.Run(ctx, Command{
			Build: "build", Step: "step", Dir: dir, Output: os.Stdout, Env: []string{"PATH=/usr/bin:/bin"},
			Args: []string{"/bin/sh", "-c", "(env -i setsid sh -c 'sleep 1000 & echo $!; exit') & sleep 1001 & echo $!; sleep 1002"},
		})
	}
	fmt.Println("runner:", err)
	return 1
}
