package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
)

// cpuPeriod is the kernel's default for counting CPU quotas, in microseconds. A quota below 1000 of them is refused, so a
// hundredth of a processor is the smallest limit there is.
const cpuPeriod = 100_000

// setting is one limit as each cgroup version has it. The values are written in their order: version 1 refuses a limit
// on memory and swap (memsw) that is below the one on memory, and takes a CPU quota with the period that is set then.
type setting struct {
	controller string
	v2, v1     []fileValue
}

// fileValue is what is written to one file of a cgroup.
type fileValue struct {
	file, value string
	// optional files are missing on some kernels: those about swap, where it is not counted (swapaccount=0).
	optional bool
}

// settings are the files to write for the limits that are set.
func (l Limits) settings() []setting {
	var all []setting
	if l.Memory > 0 {
		bytes := strconv.FormatInt(l.Memory, 10)
		all = append(all, setting{
			controller: "memory",
			v2:         []fileValue{{"memory.max", bytes, false}, {"memory.swap.max", "0", true}},
			v1:         []fileValue{{"memory.limit_in_bytes", bytes, false}, {"memory.memsw.limit_in_bytes", bytes, true}},
		})
	}
	if l.PIDs > 0 {
		count := []fileValue{{"pids.max", strconv.FormatInt(l.PIDs, 10), false}}
		all = append(all, setting{controller: "pids", v2: count, v1: count})
	}
	if l.CPUs > 0 {
		quota := strconv.Itoa(int(l.CPUs * cpuPeriod))
		period := strconv.Itoa(cpuPeriod)
		all = append(all, setting{
			controller: "cpu",
			v2:         []fileValue{{"cpu.max", quota + " " + period, false}},
			v1:         []fileValue{{"cpu.cfs_period_us", period, false}, {"cpu.cfs_quota_us", quota, false}},
		})
	}
	return all
}

// limit sets one limit on a build, through whichever version has the controller: a controller is in one tree only, and
// which one is the host's choice. Where none has, the limit cannot be enforced; the report says so once.
func (t *tree) limit(build string, s setting) error {
	group, files := t.folder.child(build), s.v2
	if !slices.Contains(t.controllers, s.controller) {
		folder, ok := t.v1[s.controller]
		if !ok {
			return nil
		}
		group, files = folder.child(build), s.v1
		if err := os.MkdirAll(string(group), 0o755); err != nil {
			return err
		}
	}
	for _, f := range files {
		err := group.write(f.file, f.value)
		if err != nil && !(f.optional && errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("limit %s: %w", s.controller, err)
		}
	}
	return nil
}

// usage is what a step has used up to now, all its commands together. A single one's share of the first two is the
// difference between its start and its end; a peak has no share.
type usage struct {
	cpuMicros, oomKills, peak int64
}

// usage reads the step's counters. What a host does not count stays zero: missing numbers are no reason to fail a step.
func (s *step) usage() usage {
	var u usage
	if s.group == "" {
		return u
	}
	u.cpuMicros, _ = s.group.field("cpu.stat", "usage_usec")
	if s.memory == "" {
		return u
	}
	// Version 2 has oom_kill from Linux 4.13 on and memory.peak from 5.19, version 1 its oom_kill from 4.13.
	if s.memory == s.group {
		u.oomKills, _ = s.memory.field("memory.events", "oom_kill")
		u.peak, _ = s.memory.number("memory.peak")
		return u
	}
	u.oomKills, _ = s.memory.field("memory.oom_control", "oom_kill")
	u.peak, _ = s.memory.number("memory.max_usage_in_bytes")
	return u
}
