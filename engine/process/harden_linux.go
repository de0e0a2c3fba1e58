package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// environField is the place of env_start among the fields of /proc/PID/stat that follow the command (proc(5): 50).
const environField = 50 - 3

// Harden keeps other processes of the runner's user from reading its memory and environment: the files of a process
// that is not dumpable belong to root (proc(5)), and ptrace(2) refuses. Steps that run as the runner's own user could
// else take the RPC secret, with which every repository's secrets can be fetched from the server. Root is not held back.
//
// It holds until the next execve(2), so children are not affected. A child cannot have its uid_map written by such a
// parent; that is one reason for the launcher.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the runner's memory unreadable: %w", err)
	}
	return nil
}

// HideEnvironment blanks the values of these variables where the kernel shows what this process was started with,
// /proc/PID/environ, which os.Unsetenv does not reach. Call it before [Harden], which closes the way there.
func HideEnvironment(names ...string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("hide secrets of the environment: %w", err)
		}
	}()
	environ, err := os.ReadFile("/proc/self/environ")
	if err != nil {
		return err
	}
	at, err := environStart()
	if err != nil {
		return err
	}
	memory, err := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for assignment := range bytes.SplitSeq(environ, []byte{0}) {
		name, value, _ := bytes.Cut(assignment, []byte("="))
		if len(value) > 0 && slices.Contains(names, string(name)) {
			// In place and of the same length: everything behind it must stay where the kernel looks for it.
			_, writeErr := memory.WriteAt(bytes.Repeat([]byte("*"), len(value)), at+int64(len(name)+1))
			err = errors.Join(err, writeErr)
		}
		at += int64(len(assignment) + 1)
	}
	return errors.Join(err, memory.Close())
}

// environStart is the address of what /proc/self/environ shows.
func environStart() (int64, error) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= environField {
		return 0, errors.New("this kernel does not tell where they are")
	}
	return strconv.ParseInt(string(fields[environField]), 10, 64)
}
