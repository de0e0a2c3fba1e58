//go:build !linux

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

// Host runs builds on this machine: here only with process groups, enough to try a pipeline by hand. What starts a session
// of its own escapes, nothing is found after a crash, and a PID that the system uses again can be taken for a group.
type Host struct {
	cfg    Config
	report Report

	mu     sync.Mutex
	builds map[string]*build
}

type build struct {
	Build
	groups map[int]*capture // process group to what reads its output
}

// Main has no parts to play on this system.
func Main([]string) (handled bool, exit int) { return false, 0 }

// Harden does nothing on this system.
func Harden() error { return nil }

// HideEnvironment does nothing on this system.
func HideEnvironment(...string) error { return nil }

// CheckUser refuses every user but the runner's own.
func CheckUser(user string, _ ...int) error {
	if user != "" {
		return &UserError{errors.New("running steps as another user needs Linux")}
	}
	return nil
}

// Open returns a Host that kills a command's process group and nothing more.
func Open(_ context.Context, cfg Config) (*Host, error) {
	if err := CheckUser(cfg.User); err != nil {
		return nil, err
	}
	if cfg.Mode != "" && cfg.Mode != ProcessGroup {
		return nil, fmt.Errorf("containment %s needs Linux", cfg.Mode)
	}
	h := &Host{cfg: cfg.withDefaults(), builds: map[string]*build{}}
	h.report = Report{Mode: ProcessGroup, Warnings: unenforced(cfg.Limits)}
	return h, nil
}

// Probe finds out what [Open] would.
func Probe(ctx context.Context, cfg Config) (Report, error) {
	h, err := Open(ctx, cfg)
	if err != nil {
		return Report{}, err
	}
	return h.Report(), nil
}

// Mode is how builds are contained.
func (h *Host) Mode() Mode { return h.report.Mode }

// Report is what Open found out.
func (h *Host) Report() Report { return h.report }

// SetLimits has no effect on this system, and says so.
func (h *Host) SetLimits(l Limits) (warnings []string) { return unenforced(l) }

// unenforced says once that no limit holds.
func unenforced(l Limits) []string {
	if l == (Limits{}) {
		return nil
	}
	return []string{"limits are set but cannot be enforced: that needs Linux"}
}

// Close has nothing to remove on this system.
func (h *Host) Close() error { return nil }

// Owner is the runner's own user.
func (h *Host) Owner(string) (uid, gid int) { return os.Geteuid(), os.Getegid() }

// Owns says whether the user's directories may be those of builds.
func (h *Host) Owns(uid int) bool { return uid == os.Geteuid() }

// Create makes the build known.
func (h *Host) Create(_ context.Context, b Build) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.builds[b.Name]; ok {
		return fmt.Errorf("create build %s: it exists", b.Name)
	}
	h.builds[b.Name] = &build{Build: b, groups: map[int]*capture{}}
	return nil
}

// Run starts a command in a process group of its own and waits for it. If ctx ends first the group is asked to end,
// killed after the grace period, and the error is ctx's cause.
func (h *Host) Run(ctx context.Context, c Command) (Exit, error) {
	if len(c.Args) == 0 {
		return Exit{}, fmt.Errorf("run step %s: no command", c.Step)
	}
	out, pipe, err := newCapture(c.Output)
	if err != nil {
		return Exit{}, fmt.Errorf("run step %s: %w", c.Step, err)
	}
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Dir, cmd.Env = c.Dir, append([]string{MarkerEnv + "=" + h.cfg.Name + "/" + c.Build}, c.Env...)
	cmd.Stdout, cmd.Stderr = pipe, pipe
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = h.cfg.Grace
	if err := errors.Join(h.start(cmd, c, out), pipe.Close()); err != nil {
		return Exit{}, errors.Join(fmt.Errorf("run step %s: %w", c.Step, err), out.close())
	}
	waitErr := cmd.Wait()
	if ctx.Err() != nil {
		waitErr = errors.Join(context.Cause(ctx), killGroup(cmd.Process.Pid))
	} else if errors.As(waitErr, new(*exec.ExitError)) {
		waitErr = nil
	}
	ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	exit := exitOf(ws)
	exit.CPUSeconds = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	return exit, errors.Join(waitErr, out.finish(h.cfg.outputGrace))
}

// start starts the command and notes its group under the lock, so that a teardown either sees it or comes first.
func (h *Host) start(cmd *exec.Cmd, c Command, out *capture) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, ok := h.builds[c.Build]
	if !ok {
		return fmt.Errorf("no build %s", c.Build)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.groups[cmd.Process.Pid] = out
	return nil
}

// killGroup kills a process group; that it is gone is no error.
func killGroup(pgid int) error {
	// EPERM is what a group of zombies answers here.
	if err := syscall.Kill(-pgid, syscall.SIGKILL); err != nil && err != syscall.ESRCH && err != syscall.EPERM {
		return fmt.Errorf("kill process group %d: %w", pgid, err)
	}
	return nil
}

// EndStep knows nothing of single steps on this system; Teardown ends everything.
func (h *Host) EndStep(context.Context, string, string) ([]leftover.Item, error) { return nil, nil }

// Builds names the builds that were created and not torn down.
func (h *Host) Builds(context.Context) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for name := range h.builds {
		names = append(names, name)
	}
	return names, nil
}

// Teardown kills the build's process groups.
func (h *Host) Teardown(_ context.Context, name string) ([]leftover.Item, error) {
	h.mu.Lock()
	b := h.builds[name]
	delete(h.builds, name)
	h.mu.Unlock()
	if b == nil || b.Keep {
		return nil, nil
	}
	var ended []leftover.Item
	var err error
	for pgid, out := range b.groups {
		if syscall.Kill(-pgid, 0) == nil {
			ended = append(ended, leftover.Item{Kind: "process", Name: itoa(pgid), Detail: "process group"})
		}
		err = errors.Join(err, killGroup(pgid), out.close())
	}
	return ended, err
}

// Keeps says whether the build was created with Keep.
func (h *Host) Keeps(build string) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.builds[build]
	return b != nil && b.Keep, nil
}

// Remaining are the process groups of a build that was not torn down.
func (h *Host) Remaining(_ context.Context, name string) ([]leftover.Item, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.builds[name]
	if b == nil {
		return nil, nil
	}
	var left []leftover.Item
	for pgid := range b.groups {
		if syscall.Kill(-pgid, 0) == nil {
			left = append(left, leftover.Item{Kind: "process", Name: itoa(pgid), Detail: "process group"})
		}
	}
	return left, nil
}
