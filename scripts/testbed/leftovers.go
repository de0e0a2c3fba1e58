package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Processes lists the processes whose command line or environment holds mark, each as "pid command". Tests put a mark
// that nothing else has into what a build starts. It sees every process of the host, in whatever cgroup, but the
// environment only of those whose user it may look at; a zombie has neither and is not found.
func Processes(mark string) ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		// A process may end between the listing and the reading: then it is no leftover.
		line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if err != nil {
			env = nil // another user's, or a kernel thread's
		}
		// The caller itself is among them if it has the mark.
		if strings.Contains(string(line), mark) || strings.Contains(string(env), mark) {
			found = append(found, fmt.Sprintf("%s %s", entry.Name(), strings.ReplaceAll(string(line), "\x00", " ")))
		}
	}
	return found, nil
}
