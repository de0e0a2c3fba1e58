package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// dropProgramPages takes the pages of the program's file out of this process: most were needed once. What is used
// again comes back from the kernel's cache, and the kernel can have the rest for something else. This is what madvise(2)
// promises of MADV_DONTNEED for a file's mapping; smaps is described in proc(5).
func dropProgramPages() (err error) {
	// The link and the map say the same also when the file was replaced: both add " (deleted)".
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, maps.Close()) }()
	var from, to uintptr // of the program's mapping that the lines are about, if it is one that nobody writes to
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		line := lines.Text()
		switch fields := strings.Fields(line); {
		case len(fields) > 4 && strings.Contains(fields[0], "-"):
			from, to = 0, 0
			if strings.HasSuffix(line, " "+program) && !strings.Contains(fields[1], "w") {
				if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil {
					return fmt.Errorf("read the program's mappings: %w", err)
				}
			}
		// Pages that differ from the file, such as those a loader has relocated, would be lost.
		case from != 0 && fields[0] == "Anonymous:" && fields[1] == "0":
			if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
				return fmt.Errorf("drop the program's pages: %w", errno)
			}
		}
	}
	return lines.Err()
}
