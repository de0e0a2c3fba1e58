//go:build linux

package process

import (
	"fmt"
	"strings"
	"testing"
)

const v2Mount = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"

func TestParseHierarchies(t *testing.T) {
	for name, test := range map[string]struct{ mounts, own, want string }{
		"pure, under a service manager": {
			mounts: "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n" + v2Mount,
			own:    "0::/system.slice/runner.service/agent\n",
			want:   "v2 /sys/fs/cgroup/system.slice/runner.service/agent points [/sys/fs/cgroup]",
		},
		"hybrid: a tmpfs over all, version 2 below": {
			mounts: "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n" +
				"35 31 0:32 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n" +
				"36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
				"37 31 0:34 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n" +
				"40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n" +
				"41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			own: "9:name=systemd:/x\n4:memory:/m\n3:devices:/d\n1:cpu,cpuacct:/c\n0::/u\n",
			want: "v2 /sys/fs/cgroup/unified/u v1 [cpu] /sys/fs/cgroup/cpu,cpuacct/c v1 [memory] /sys/fs/cgroup/memory/m " +
				"points [/sys/fs/cgroup/cpu,cpuacct /sys/fs/cgroup/memory /sys/fs/cgroup/devices /sys/fs/cgroup/systemd /sys/fs/cgroup/unified]",
		},
		"a container that sees its own part": {
			mounts: "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
			own:    "0::/docker/abc/init\n",
			want:   "v2 /sys/fs/cgroup/init points [/sys/fs/cgroup]",
		},
		"a container that sees another part": {
			mounts: "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
			own:    "0::/docker/abcdef\n",
			want:   "v2  points [/sys/fs/cgroup]",
		},
		"outside the cgroup namespace": {mounts: v2Mount, own: "0::/../other\n", want: "v2  points [/sys/fs/cgroup]"},
		"a removed cgroup":             {mounts: v2Mount, own: "0::/gone (deleted)\n", want: "v2 /sys/fs/cgroup/gone points [/sys/fs/cgroup]"},
		"a path with a space": {
			mounts: `30 23 0:26 / /a\040b\134c rw - cgroup2 none rw` + "\n", own: "0::/\n", want: `v2 /a b\c points [/a b\c]`,
		},
		"no cgroups": {mounts: "21 1 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n", own: "", want: "points []"},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := parseHierarchies(strings.NewReader(test.mounts), strings.NewReader(test.own))
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			if found.unified != nil {
				fmt.Fprintf(&got, "v2 %s ", found.unified.own)
			}
			for _, h := range found.v1 {
				fmt.Fprintf(&got, "v1 %v %s ", h.controllers, h.own)
			}
			fmt.Fprintf(&got, "points %v", found.points)
			if got.String() != test.want {
				t.Errorf("got  %s\nwant %s", got.String(), test.want)
			}
		})
	}
}

// This kernel's own account must be understood too.
func TestReadHierarchies(t *testing.T) {
	found, err := readHierarchies()
	if err != nil {
		t.Fatal(err)
	}
	if found.unified != nil && found.unified.own != "" && !cgroup(found.unified.own).exists() {
		t.Errorf("%s is not there", found.unified.own)
	}
}
