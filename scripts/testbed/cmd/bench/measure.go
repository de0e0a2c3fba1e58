package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// build asks for a build, waits for its success and returns the log of one step. It asks every 5 ms, which is also how
// exact the time of a build's end is.
func (b *bench) build(ctx context.Context, repo testbed.Repo, step string) (string, error) {
	build, err := b.bed.Drone.NewBuild(ctx, repo, "main", nil)
	if err != nil {
		return "", err
	}
	for !testbed.Done(build) {
		if build, err = b.bed.Drone.Build(ctx, repo, build.Number); err != nil {
			return "", err
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return "", err
		}
	}
	if build.Status != drone.StatusPassing {
		return "", fmt.Errorf("build %d of %s is %s", build.Number, repo.Slug(), testbed.Describe(build))
	}
	// The stored log is whole once the build is done.
	ref, err := testbed.Ref(build, step)
	if err != nil {
		return "", err
	}
	return b.bed.Drone.Log(ctx, repo, ref)
}

// errStay is that a cancelled build's processes are still there after the time that processes waits. It is a result,
// not a fault.
var errStay = errors.New("the step's processes stay")

// processes waits until processes with a mark are there, or until none is, for 20 s at most. It looks every 2 ms,
// which costs some of the machine that is measured, on either runner.
func (b *bench) processes(ctx context.Context, mark string, there bool) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		found, err := testbed.Processes(mark)
		if err != nil || (len(found) > 0) == there {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %v", errStay, found)
		}
		if err := sleep(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

// kill ends what a runner did not end, so that the next measurements and the machine are free of it.
func kill(mark string) error {
	found, err := testbed.Processes(mark)
	for _, process := range found {
		// A line of Processes begins with the number.
		var pid int
		if _, fault := fmt.Sscan(process, &pid); fault != nil {
			return errors.Join(err, fault)
		}
		err = errors.Join(err, syscall.Kill(pid, syscall.SIGKILL))
	}
	return err
}

// load prints how busy the machine is, which decides what the figures are worth.
func (b *bench) load(when string) error {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(b.out, "%s: %d processors, load %s\n", when, runtime.NumCPU(), strings.Join(strings.Fields(string(data))[:3], " "))
	return err
}

// sleep waits, or returns the cause of the context's end.
func sleep(ctx context.Context, wait time.Duration) error {
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// timesIn finds the lines that `date +%s.%N` wrote, in their order, among all others. The clock is the server's and
// the client's, too: everything runs here.
func timesIn(log string) ([]time.Time, error) {
	var times []time.Time
	for _, line := range strings.Split(log, "\n") {
		whole, fraction, ok := strings.Cut(line, ".")
		seconds, err := strconv.ParseInt(whole, 10, 64)
		nanos, err2 := strconv.ParseInt(fraction, 10, 64)
		// Nine digits of nanoseconds: a number of the step's own is hardly written so.
		if ok && err == nil && err2 == nil && len(fraction) == 9 {
			times = append(times, time.Unix(seconds, nanos))
		}
	}
	if len(times) == 0 {
		return nil, errors.New("the log holds no time")
	}
	return times, nil
}

// memory is the resident set of a runner that has come to rest, as the kernel counts it (VmRSS of proc(5)), pages of
// the program's file included. Ten seconds are what either runner gets to give memory back.
func (b *bench) memory(ctx context.Context) (string, error) {
	if err := sleep(ctx, 10*time.Second); err != nil {
		return "", err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.runner.PID()))
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(string(status), "\n") {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kib, err := strconv.Atoi(fields[1])
			return fmt.Sprintf("%d MB", kib/1024), err
		}
	}
	return "", errors.New("the kernel does not tell the runner's memory")
}

// cpu is the processor time that the runner itself has used, without that of the steps: proc(5) counts those of
// children apart.
func (b *bench) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.runner.PID()))
	if err != nil {
		return 0, err
	}
	// After the command's name in parentheses, fields 14 and 15 of the line are user and system time in ticks of 10 ms.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, err
}
