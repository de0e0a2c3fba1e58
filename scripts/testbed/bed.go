package testbed

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Options says how a Bed is made. The zero value is good.
type Options struct {
	Dir      string            // where the servers keep their data; a temporary directory when empty
	Log      io.Writer         // progress; nothing is shown when nil
	DroneEnv map[string]string // more settings of the Drone server, e.g. DRONE_WEBHOOK_ENDPOINT
}

// Bed is a running pair of Gitea and Drone. Its methods may be called at the same time. All that it started dies with
// the process that started it, but its data then stay: call Stop.
type Bed struct {
	Gitea *Gitea
	Drone *Drone
	Dir   string // holds the data and logs of everything that runs on this bed

	root      string // the repository
	temporary bool   // Dir is ours and goes at Stop
	log       io.Writer
}

// Start builds what is missing, starts both servers on free loopback ports and logs the administrator in to Drone.
// Whatever it started is stopped again when it fails. With the servers built it takes some seconds, without them
// minutes: ctx must allow for that. Keep it no longer than the call: the servers live on after its end.
func Start(ctx context.Context, options Options) (*Bed, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	binaries, err := BuildServers(ctx, options.Log)
	if err != nil {
		return nil, err
	}
	bed := &Bed{Dir: options.Dir, root: root, log: options.Log}
	if bed.Dir == "" {
		bed.temporary = true
		if bed.Dir, err = os.MkdirTemp("", "cc-ci-testbed-"); err != nil {
			return nil, err
		}
	}
	if err := bed.start(ctx, binaries, options); err != nil {
		// Not with the caller's context: its end may be what went wrong.
		return nil, errors.Join(err, bed.Stop(context.WithoutCancel(ctx)))
	}
	return bed, nil
}

// start starts Gitea first: Drone is registered there, and asks for its address.
func (b *Bed) start(ctx context.Context, binaries Binaries, options Options) error {
	err := phase(ctx, options.Log, "start gitea", func() error {
		var err error
		b.Gitea, err = startGitea(ctx, binaries, filepath.Join(b.Dir, "gitea"))
		return err
	})
	if err != nil {
		return err
	}
	return phase(ctx, options.Log, "start drone", func() error {
		var err error
		b.Drone, err = b.startDrone(ctx, binaries.Drone, options.DroneEnv)
		return err
	})
}

// Stop ends both servers and removes their data if it was temporary. It is safe to call twice. Runners are the
// caller's to stop, before: they report to Drone to the last.
func (b *Bed) Stop(ctx context.Context) error {
	var errs []error
	// Drone first: it speaks to Gitea to its end.
	if b.Drone != nil {
		errs = append(errs, b.Drone.Server.Stop(ctx))
	}
	if b.Gitea != nil {
		errs = append(errs, b.Gitea.Server.Stop(ctx))
	}
	if b.temporary {
		errs = append(errs, os.RemoveAll(b.Dir))
	}
	return errors.Join(errs...)
}
