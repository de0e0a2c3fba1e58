package process

import (
	"bufio"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// run is one command that was started. Two goroutines belong to it, wait and the capture's copy; build.release awaits both.
type run struct {
	cmd *exec.Cmd // the stub, which becomes the command, or the launcher
	out *capture
	// launcher says that cmd is one, stays that it outlives the command as the reaper of its orphans; control, which only
	// launchers have, is closed to let it go.
	launcher, stays bool
	control         *os.File
	ended           chan result   // one result, buffered: nobody may be there to take it
	gone            chan struct{} // the stub or launcher has been waited for
}

// result is how the command itself ended. With err it is not known how, or it never began.
type result struct {
	exit Exit
	err  error
}

// Run starts a command in its step's cgroup and waits for it. If ctx ends first, everything in the step is asked to
// end, killed after the grace period, and the error is ctx's cause beside the Exit. An error without that is about
// starting: the command did not run.
//
// What the command leaves running does not hold Run: it is listed in the Exit and lives until EndStep or Teardown. It may
// keep the output open; Run waits a second for that, and drops what comes later.
//
// Commands of one build, of one step even, may run at once; an end of ctx then ends the whole step.
func (h *Host) Run(ctx context.Context, c Command) (Exit, error) {
	if ctx.Err() != nil {
		return Exit{}, context.Cause(ctx)
	}
	if len(c.Args) == 0 {
		return Exit{}, fmt.Errorf("run step %s: no command", c.Step)
	}
	b := h.build(c.Build)
	if b == nil {
		return Exit{}, fmt.Errorf("run step %s: no build %s", c.Step, c.Build)
	}
	s, r, before, err := h.start(b, c)
	if err != nil {
		return Exit{}, fmt.Errorf("run step %s: %w", c.Step, err)
	}
	var cause error
	var res result
	select {
	case res = <-r.ended:
	case <-ctx.Done():
		cause = context.Cause(ctx)
		res = h.cancel(context.WithoutCancel(ctx), b, s, r)
	}
	outErr := r.out.finish(h.cfg.outputGrace)
	if res.err != nil {
		return Exit{}, errors.Join(cause, fmt.Errorf("run step %s: %w", c.Step, res.err), outErr)
	}
	exit := res.exit
	if after := s.usage(); s.group != "" {
		exit.CPUSeconds = float64(after.cpuMicros-before.cpuMicros) / 1e6
		exit.OOM = after.oomKills > before.oomKills
		exit.PeakMemory = after.peak
	}
	left, leftErr := h.leftovers(b, s)
	exit.Leftovers = left
	return exit, errors.Join(cause, outErr, leftErr)
}

// start starts the command, unless the build is being torn down. It holds the build's lock until the child is in its
// cgroup and in the list, so that a teardown either finds it there or comes before it.
func (h *Host) start(b *build, c Command) (*step, *run, usage, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, nil, usage{}, errors.New("the build is being torn down")
	}
	s, err := h.step(b, c.Step)
	if err != nil {
		return nil, nil, usage{}, err
	}
	before := s.usage()
	r, err := h.spawn(b, s, h.orderFor(b, s, c), c.Output)
	if err != nil {
		return nil, nil, usage{}, err
	}
	s.runs = append(s.runs, r)
	return s, r, before, nil
}

// step makes the step on its first command. The caller holds b.mu.
func (h *Host) step(b *build, name string) (*step, error) {
	if s, ok := b.steps[name]; ok {
		return s, nil
	}
	s := &step{}
	if h.tree != nil {
		var err error
		if s, err = h.tree.createStep(b.groupName(), name); err != nil {
			return nil, err
		}
	}
	b.steps[name] = s
	return s, nil
}

// orderFor says what the stub has to do for this command.
func (h *Host) orderFor(b *build, s *step, c Command) order {
	o := order{
		Args: c.Args, Dir: c.Dir, Env: append([]string{h.marker(b)}, c.Env...),
		User: b.user, NoNewPrivs: b.user != nil, Keep: b.Keep, Reaper: h.tree == nil,
	}
	// Version 2's cgroup is entered by clone3(2) itself; version 1 has no such thing.
	for _, g := range s.v1 {
		o.Join = append(o.Join, string(g.child("tasks")))
	}
	if h.report.PrivateMounts {
		o.Mounts = &mountPlan{Root: b.Root, Tmp: b.Tmp, Shm: h.shmOf(b), Binds: b.Binds, ReadOnly: h.readOnly}
		o.UserNamespace = os.Geteuid() != 0
		o.Mounts.Restricted = o.UserNamespace || b.user != nil
	}
	return o
}

// shmOf is what is shown as /dev/shm, if this host has one to cover. Create has made it (see makeDirs).
func (h *Host) shmOf(b *build) string {
	if !h.hasShm {
		return ""
	}
	return b.shm()
}

// marker is the assignment that marks the build's processes.
func (h *Host) marker(b *build) string {
	name := MarkerEnv
	if b.Keep {
		name = KeptMarkerEnv
	}
	return name + "=" + h.markerValue(b.Name)
}

// markerValue names the runner too: two runners on a host may have a build of the same name.
func (h *Host) markerValue(build string) string { return h.cfg.Name + "/" + build }

// spawn starts the stub or the launcher with its order. A session of its own (Setsid) keeps a terminal's signals from it:
// at Ctrl-C in `cc-ci-runner exec` it is the runner that ends the steps.
func (h *Host) spawn(b *build, s *step, o order, output io.Writer) (*run, error) {
	paper, err := writeOrder(o)
	if err != nil {
		return nil, err
	}
	defer discard(paper)
	statusRead, statusWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer discard(statusWrite)
	r := &run{ended: make(chan result, 1), gone: make(chan struct{})}
	r.cmd = exec.Command(h.cfg.Helper, stubRole)
	r.cmd.Dir, r.cmd.Env = "/", []string{h.marker(b), "GOMAXPROCS=1"} // one thread less under a limit on them
	r.cmd.ExtraFiles = []*os.File{paper, statusWrite}
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if o.Reaper || o.UserNamespace {
		r.cmd.Args[1] = launchRole
		controlRead, controlWrite, err := os.Pipe()
		if err != nil {
			return nil, errors.Join(err, statusRead.Close())
		}
		defer discard(controlRead)
		r.launcher, r.stays, r.control = true, o.Reaper && !o.Keep, controlWrite
		r.cmd.ExtraFiles = append(r.cmd.ExtraFiles, controlRead)
	}
	if err := r.startIn(s.group, output); err != nil {
		return nil, errors.Join(err, statusRead.Close(), r.letGo())
	}
	go r.wait(statusRead)
	return r, nil
}

// startIn starts the process inside the cgroup, with its output captured. Standard input stays nil, which os/exec makes
// /dev/null.
func (r *run) startIn(group cgroup, output io.Writer) error {
	if group != "" {
		dir, err := group.open()
		if err != nil {
			return err
		}
		defer discard(dir)
		r.cmd.SysProcAttr.UseCgroupFD, r.cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	out, pipe, err := newCapture(output)
	if err != nil {
		return err
	}
	r.cmd.Stdout, r.cmd.Stderr = pipe, pipe
	err = errors.Join(r.cmd.Start(), pipe.Close())
	if err != nil {
		return errors.Join(err, out.close())
	}
	r.out = out
	return nil
}

// letGo tells the launcher, if there is one, that nobody needs it any more. It may be called again.
func (r *run) letGo() error {
	if r.control == nil {
		return nil
	}
	if err := r.control.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// wait learns how the command ended: from its own exit, or from what the launcher reports.
func (r *run) wait(statuses *os.File) {
	defer close(r.gone)
	defer discard(statuses)
	if !r.launcher {
		waitErr := r.cmd.Wait()
		res := readStatuses(statuses)
		if res == nil {
			res = &result{exit: r.ownExit(), err: notExit(waitErr)}
		}
		r.ended <- *res
		return
	}
	res := readStatuses(statuses)
	if res == nil {
		// The launcher was killed, and whatever it had started goes on without it.
		res = &result{exit: exitOf(syscall.WaitStatus(unix.SIGKILL))}
	}
	if r.stays {
		r.ended <- *res
	}
	_ = r.cmd.Wait()   // the launcher's own end says nothing that its report did not
	discard(r.control) // nobody reads it any more
	if !r.stays {
		r.ended <- *res // not before: nobody shall take the launcher for a leftover
	}
}

// ownExit is how the process ended that the runner itself has started.
func (r *run) ownExit() Exit {
	if r.cmd.ProcessState == nil {
		return Exit{}
	}
	ws, _ := r.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return exitOf(ws)
}

// notExit drops the error that only says that the exit code was not zero.
func notExit(err error) error {
	if errors.As(err, new(*exec.ExitError)) {
		return nil
	}
	return err
}

// readStatuses reads to the end what the stub and the launcher have to say; nil if that is nothing. The first error counts:
// after the stub's own, the launcher still reports how the stub ended, which is no end of a command.
func readStatuses(r io.Reader) *result {
	var res *result
	for lines := bufio.NewScanner(r); lines.Scan(); {
		var s status
		switch err := json.Unmarshal(lines.Bytes(), &s); {
		case err != nil:
			return &result{err: fmt.Errorf("read the launcher's report: %w", err)}
		case s.Error != "":
			return &result{err: errors.New(s.Error)}
		case s.Ended:
			res = &result{exit: exitOf(s.Wait)}
			res.exit.CPUSeconds = s.CPUSeconds
		}
	}
	return res
}

// writeOrder puts the order into a file that has no name. Unlike a pipe it takes any length before somebody reads, and the
// stub can read it once more after the launcher has.
func writeOrder(o order) (*os.File, error) {
	fd, err := unix.MemfdCreate(orderName, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("write order: %w", err)
	}
	f := os.NewFile(uintptr(fd), orderName)
	if err := gob.NewEncoder(f).Encode(o); err != nil {
		return nil, errors.Join(fmt.Errorf("write order: %w", err), f.Close())
	}
	return f, nil
}

// cancel ends the step and waits for the command's end, which only an unkillable process can delay: one in
// uninterruptible sleep, on a network file system that does not answer for one. Run must come back all the same.
func (h *Host) cancel(ctx context.Context, b *build, s *step, r *run) result {
	err := h.stopStep(ctx, b, s)
	wait := killWait
	if err != nil {
		wait = time.Second // it is known already that something does not die
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case res := <-r.ended:
		res.err = errors.Join(res.err, err)
		return res
	case <-timer.C:
		return result{err: errors.Join(err, fmt.Errorf("process %d does not die", r.cmd.Process.Pid))}
	}
}

// leftovers are the step's processes that are alive.
func (h *Host) leftovers(b *build, s *step) ([]leftover.Item, error) {
	pids, err := h.stepPIDs(b, s)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	return items(pids), nil
}
