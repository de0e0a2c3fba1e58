package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/process"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime"
)

// execCommand runs one pipeline here, with the daemon's own engine and step graph. It talks to no Drone server, gives
// the build no Docker socket of its own, sets no limits, and runs the steps as the caller.
type execCommand struct {
	source
	Pretty *bool `negatable:"" help:"Colour the output (when it goes to a terminal)."`
}

// execName begins the name that a run of exec has on this host, so that the daemon and leaks know what one left that
// was killed. The process's number follows: runs beside each other must not see each other's builds.
const execName = "cc-ci-exec-"

// Run runs the pipeline. It exits with 1 when the pipeline fails, and with 128 and the signal's number when a signal
// ended it; either way the build is torn down first.
func (c *execCommand) Run(ctx context.Context, out streams) error {
	p, stage, err := c.stage()
	if err != nil {
		return err
	}
	spec, err := p.prepare(ctx, stage)
	if err != nil {
		return err
	}
	log := logrus.New()
	log.SetOutput(out.err)
	log.SetLevel(logrus.WarnLevel)
	local := runtime.Local{
		Spec: spec, Build: stage.Build, Stage: stage.Stage,
		Timeout: time.Duration(stage.Repo.Timeout) * time.Minute,
		Out:     out.out, Pretty: c.pretty(out.out), Log: logrus.NewEntry(log),
	}
	// What a step leaves running lives until the end, as with the daemon's default.
	host, err := process.Open(ctx, process.Config{Name: execName + strconv.Itoa(os.Getpid()), KeepLeftovers: true})
	if err != nil {
		return fmt.Errorf("find a way to contain the build: %w", err)
	}
	local.Engine, err = engine.New(engine.Config{
		Workspaces: &engine.Workspaces{Parent: filepath.Dir(spec.Root)}, Processes: host, LockDir: lockDir(), Log: local.Log,
	})
	if err != nil {
		return errors.Join(err, host.Close())
	}
	// From here on a signal cancels; before, there is no build to tear down, and it ends the program.
	ctx, received, stop := untilSignal(ctx)
	ended, err := local.Run(ctx)
	stop()
	if err = errors.Join(err, host.Close()); err != nil {
		return err
	}
	return verdict(ended, received())
}

// untilSignal is a context that a signal cancels as a server's cancel would, and which signal it was (0 for none). One
// of them is the end of who reads the output, such as head.
// Further signals do nothing: the teardown is what there is to wait for. stop gives the signals back to the system;
// received, after it, waits for the goroutine. A second call of received returns 0.
func untilSignal(parent context.Context) (ctx context.Context, received func() syscall.Signal, stop func()) {
	signals := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE} {
		// Notify would bring back what nohup, or a shell for a job in the background, has switched off.
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	ctx, cancel := context.WithCancelCause(parent)
	got := make(chan syscall.Signal, 1)
	go func() {
		defer close(got)
		select {
		case s := <-signals:
			cancel(engine.ErrCancelled)
			if number, ok := s.(syscall.Signal); ok {
				got <- number
			}
		case <-ctx.Done():
		}
	}()
	stop = func() {
		signal.Stop(signals)
		cancel(nil)
	}
	return ctx, func() syscall.Signal { return <-got }, stop
}

// verdict is the exit code that goes with how the stage ended, and a sentence that names the steps at fault. A signal
// decides it alone: drone-runner-exec exited with 0 for a build that was stopped.
func verdict(stage *drone.Stage, received syscall.Signal) error {
	text := "the pipeline ended with " + stage.Status
	if stage.Error != "" {
		text += ": " + stage.Error
	}
	for _, step := range stage.Steps {
		if (step.Status == drone.StatusFailing || step.Status == drone.StatusError) && !step.ErrIgnore {
			text += fmt.Sprintf("; step `%s` has exit code %d", step.Name, step.ExitCode)
			if step.Error != "" {
				text += ": " + step.Error
			}
		}
	}
	switch {
	case received != 0:
		return &exitError{128 + int(received), fmt.Sprintf("stopped by a signal (%s); the build is torn down", received)}
	case stage.Status == drone.StatusPassing:
		return nil
	}
	return &exitError{exitFailed, text}
}

// pretty is as asked, else whether the output is a terminal.
func (c *execCommand) pretty(w io.Writer) bool {
	if c.Pretty != nil {
		return *c.Pretty
	}
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// stage is the build that the flags describe and what prepares it. It reads every file that the flags name, so that
// what is missing is known before anything runs.
func (c *source) stage() (*preparer, *runner.Context, error) {
	file, root, err := c.places()
	if err != nil {
		return nil, nil, err
	}
	data, err := readSource(file)
	if err != nil {
		return nil, nil, err
	}
	d := c.details(time.Now())
	c.pickOnly(&d, data)
	p, err := c.preparer(root)
	if err != nil {
		return nil, nil, err
	}
	stage, err := c.local(d, data, file)
	return p, stage, err
}
