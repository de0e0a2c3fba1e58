package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/process"
)

// diskInterval is how often a workspace's size is taken where there is a limit.
const diskInterval = 5 * time.Second

// Run runs the step's commands one after the other and writes their output, unmasked, to out. It returns when the
// last one has ended; what the step left running is named in the state. When ctx ends, every process of the step
// gets SIGTERM and, after the grace period, SIGKILL; the state's reason is made of context.Cause(ctx).
//
// An error means that a command could not be started or that its end is not known; a command that fails is a State.
func (e *Engine) Run(ctx context.Context, spec *Spec, step *Step, out io.Writer) (*State, error) {
	uid, gid := e.config.Processes.Owner(spec.Build)
	if err := writeFiles(spec.Root, step.Files, &owner{uid, gid}); err != nil {
		return nil, err
	}
	state, err := e.runLimited(ctx, spec, step, out)
	return state, errors.Join(err, removeFiles(spec.Root, step.Files))
}

// runLimited runs the commands under the engine's own limits.
func (e *Engine) runLimited(ctx context.Context, spec *Spec, step *Step, out io.Writer) (*State, error) {
	limits := e.config.Limits()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if limits.StepTimeout > 0 && !step.Detach {
		timed, stop := context.WithTimeoutCause(ctx, limits.StepTimeout, ErrStepTimeout)
		defer stop()
		ctx = timed
	}
	if limits.DiskBytes > 0 {
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			watchDisk(ctx, spec.Root, limits.DiskBytes, cancel)
		}()
		defer func() { cancel(nil); <-watched }()
	}
	state := &State{}
	for _, command := range step.Commands {
		if err := e.runCommand(ctx, spec, step, call{command, out, state}); err != nil {
			return nil, err
		}
		if state.ExitCode != 0 {
			break
		}
	}
	return state, e.endStep(ctx, spec, step, state)
}

// call is one command with where its output goes and where its end is noted.
type call struct {
	Command
	out   io.Writer
	state *State
}

// runCommand runs one command, as often as its retries allow.
func (e *Engine) runCommand(ctx context.Context, spec *Spec, step *Step, c call) error {
	for attempt := 0; ; attempt++ {
		if c.Trace != "" {
			if _, err := fmt.Fprintf(c.out, "+ %s\n", c.Trace); err != nil {
				return fmt.Errorf("write the log: %w", err)
			}
		}
		exit, err := e.config.Processes.Run(ctx, process.Command{
			Build: spec.Build, Step: step.Name, Args: c.Args, Dir: step.Dir, Env: e.environ(spec, step), Output: c.out,
		})
		stopped := context.Cause(ctx)
		if err != nil && !errors.Is(err, stopped) {
			return fmt.Errorf("run %s: %w", c.Args[0], err)
		}
		if err != nil && err.Error() != stopped.Error() {
			e.config.Log.WithError(err).WithField("build", spec.Build).Warnf("step %s was stopped, but not without trouble", step.Name)
		}
		c.state.note(exit, stopped)
		if exit.Code == 0 || attempt >= c.Retries || ctx.Err() != nil {
			return nil
		}
		pause := time.Duration(attempt+1) * time.Second
		if _, err := fmt.Fprintf(c.out, "exit code %d, trying again in %s (%d of %d)\n", exit.Code, pause, attempt+1, c.Retries); err != nil {
			return fmt.Errorf("write the log: %w", err)
		}
		select {
		case <-ctx.Done():
			exit.CPUSeconds = 0 // noted above
			c.state.note(exit, context.Cause(ctx))
			return nil
		case <-time.After(pause):
		}
	}
}

// note takes over how a command ended. stopped is why its context ended, or nil.
func (s *State) note(exit process.Exit, stopped error) {
	s.ExitCode = exit.Code
	s.CPUSeconds += exit.CPUSeconds
	s.PeakMemory = max(s.PeakMemory, exit.PeakMemory)
	switch {
	case stopped != nil:
		s.Reason = reason(stopped)
		if s.ExitCode == 0 {
			s.ExitCode = 128 + int(syscall.SIGTERM)
		}
	case exit.OOM && exit.Code != 0:
		s.Reason, s.ExitCode = OutOfMemory, 137
	case exit.Signal != 0:
		s.Reason = Signaled
	default:
		s.Reason = Exited
	}
}

// endStep notes what the step left running, or ends it.
func (e *Engine) endStep(ctx context.Context, spec *Spec, step *Step, state *State) error {
	left, err := e.config.Processes.EndStep(context.WithoutCancel(ctx), spec.Build, step.Name)
	for _, item := range left {
		state.Leftovers = append(state.Leftovers, item.Name+" "+item.Detail)
	}
	if err != nil {
		return fmt.Errorf("look what step %s left running: %w", step.Name, err)
	}
	return nil
}

// environ is the step's whole environment in the form of os/exec, sorted; secrets beat everything.
func (e *Engine) environ(spec *Spec, step *Step) []string {
	vars := map[string]string{}
	for name, value := range step.Env {
		vars[name] = value
	}
	e.mu.Lock()
	if b := e.builds[spec.Build]; b != nil && b.socket != "" {
		vars["DOCKER_HOST"] = "unix://" + b.socket
	}
	e.mu.Unlock()
	for _, secret := range step.Secrets {
		vars[secret.Env] = secret.Value
	}
	list := make([]string, 0, len(vars))
	for name, value := range vars {
		// The kernel's environment ends at a zero byte, and a step with one would not start at all.
		list = append(list, strings.ReplaceAll(name+"="+value, "\x00", ""))
	}
	slices.Sort(list)
	return list
}

// watchDisk ends the step when the build's directory is larger than the limit.
func watchDisk(ctx context.Context, root string, limit int64, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(diskInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			// A size that cannot be taken is no reason to end a build.
			if size, err := process.DiskUsage(ctx, root); err == nil && size > limit {
				cancel(ErrDiskFull)
				return
			}
		}
	}
}
