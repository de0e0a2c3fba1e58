package process

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// hierarchy is one mounted cgroup tree and where in it this process is. Of version 2 there is one tree; of version 1 there
// is one for each controller, or for several that are mounted together (cpu,cpuacct).
type hierarchy struct {
	// controllers of a version 1 tree that limit or count (memory, pids, cpu); nil for the version 2 tree, where what can
	// be had depends on the cgroup.
	controllers []string
	// mount is where the tree is mounted, root which of its cgroups is seen there: in a container mostly not the top one.
	mount, root string
	// own is the directory of this process's cgroup; empty if it is not visible below mount.
	own string
}

// hierarchies are all the cgroup trees of this host.
type hierarchies struct {
	unified *hierarchy
	v1      []hierarchy
	// points are the mount points of all cgroup trees, those without a controller of interest too: a step that may write
	// to any of them could move itself out of sight, so all become read-only for it.
	points []string
}

// readHierarchies looks at the calling process's mounts and cgroups. Nothing is concluded from fixed paths or from
// the type of /sys/fs/cgroup itself: on hybrid hosts that is a tmpfs although version 2 is there to be used.
func readHierarchies() (hierarchies, error) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return hierarchies{}, err
	}
	defer discard(mounts)
	own, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return hierarchies{}, err
	}
	defer discard(own)
	return parseHierarchies(mounts, own)
}

// parseHierarchies is readHierarchies on text, for hosts of other kinds than the one that tests run on.
func parseHierarchies(mountinfo, cgroup io.Reader) (hierarchies, error) {
	var found hierarchies
	lines := bufio.NewScanner(mountinfo)
	lines.Buffer(nil, 1<<20) // the line of an overlay names all of its layers
	for lines.Scan() {
		h, version := parseMount(lines.Text())
		if version != 0 {
			found.points = append(found.points, h.mount)
		}
		switch {
		case version == 2 && found.unified == nil:
			found.unified = &h
		case version == 1 && len(h.controllers) > 0:
			found.v1 = append(found.v1, h)
		}
	}
	paths, err := parseOwn(cgroup)
	if err = errors.Join(lines.Err(), err); err != nil {
		return hierarchies{}, fmt.Errorf("read cgroup mounts: %w", err)
	}
	if found.unified != nil {
		found.unified.locate(paths[""])
	}
	for i := range found.v1 {
		found.v1[i].locate(paths[found.v1[i].controllers[0]])
	}
	return found, nil
}

// parseMount reads one line of mountinfo: ID PARENT DEV ROOT MOUNT OPTIONS [TAGS...] - TYPE SOURCE SUPEROPTIONS
// (proc(5)). The number of tags varies, hence the cut at the dash. A version 1 tree names its controllers
// among the superoptions. Version 0 means that the line is not about cgroups.
func parseMount(line string) (hierarchy, int) {
	before, after, ok := strings.Cut(line, " - ")
	fields, tail := strings.Fields(before), strings.Fields(after)
	if !ok || len(fields) < 6 || len(tail) < 3 {
		return hierarchy{}, 0
	}
	h := hierarchy{root: unescapeMount(fields[3]), mount: unescapeMount(fields[4])}
	switch tail[0] {
	case "cgroup2":
		return h, 2
	case "cgroup":
		for _, option := range strings.Split(tail[2], ",") {
			if slices.Contains([]string{"memory", "pids", "cpu"}, option) {
				h.controllers = append(h.controllers, option)
			}
		}
		return h, 1
	}
	return hierarchy{}, 0
}

// parseOwn reads /proc/PID/cgroup: controller to path, with the empty controller for version 2. Its lines are
// `0::/path` for version 2, `4:cpu,cpuacct:/path` for version 1, and `1:name=systemd:/path` for a tree without one.
func parseOwn(cgroup io.Reader) (map[string]string, error) {
	paths := map[string]string{}
	lines := bufio.NewScanner(cgroup)
	for lines.Scan() {
		id, rest, _ := strings.Cut(lines.Text(), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		if !ok || (controllers == "" && id != "0") {
			continue
		}
		for _, c := range strings.Split(controllers, ",") {
			paths[c] = strings.TrimSuffix(path, " (deleted)")
		}
	}
	return paths, lines.Err()
}

// locate sets own from the path that the kernel gives, if that path lies below what is mounted.
func (h *hierarchy) locate(path string) {
	if path == "" || strings.HasPrefix(path, "/..") {
		return // outside this cgroup namespace
	}
	rel, err := filepath.Rel(h.root, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return
	}
	h.own = filepath.Join(h.mount, rel)
}

// unescapeMount undoes the octal escapes of mountinfo: a blank, a tab, a line end and the backslash.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
