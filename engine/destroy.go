package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Destroy removes everything of the build from the host and looks again whether it is gone. It needs nothing but
// the build's name, so that the process which recovers a crash can call it as well as the one that ran the build,
// and it may be called again. The report is never nil. The error is a *LeakError when something survived; other
// errors say what kept teardown from working or from knowing.
func (e *Engine) Destroy(ctx context.Context, name string) (*Report, error) {
	started := time.Now()
	report := newReport(name)
	if err := e.locks.wait(ctx, name); err != nil {
		return report, err
	}
	var errs []error
	keep, err := e.kept(name)
	if err != nil {
		errs = append(errs, fmt.Errorf("look whether the build is exempt from teardown: %w", err))
	}
	if e.config.Docker != nil {
		// Before the teardown, which forgets what it has nothing to remove of.
		kept, err := e.config.Docker.Kept(ctx, name)
		report.Kept = append(report.Kept, kept...)
		if err != nil {
			errs = append(errs, fmt.Errorf("look what the build keeps: %w", err))
		}
	}
	for _, reaper := range e.reapers {
		if err := e.reap(ctx, reaper, keep, report); err != nil {
			errs = append(errs, err)
		}
	}
	if e.config.Docker != nil {
		if err := e.config.Docker.Detach(ctx, name); err != nil {
			errs = append(errs, fmt.Errorf("close the build's Docker socket: %w", err))
		}
	}
	report.Finished = time.Now()
	report.Seconds = report.Finished.Sub(started).Seconds()
	report.sortUnverified()
	if len(report.Survivors) > 0 {
		errs = append(errs, &LeakError{Build: name, Items: report.Survivors})
	}
	if err := e.reports.save(report); err != nil {
		errs = append(errs, err)
	}
	return report, errors.Join(append(errs, e.forget(name))...)
}

// reap asks one reaper to tear the build down, and then what is left. Of a build that is exempt, a reaper's Teardown
// lets everything live and returns what that is.
func (e *Engine) reap(ctx context.Context, reaper Reaper, keep bool, report *Report) error {
	removed, err := reaper.Teardown(ctx, report.Build)
	switch {
	case reaper == Reaper(e.config.Workspaces):
		report.Removed = append(report.Removed, removed...)
	case keep:
		report.Kept = append(report.Kept, removed...)
	default:
		report.Leftovers = append(report.Leftovers, removed...)
	}
	left, errLeft := reaper.Remaining(ctx, report.Build)
	report.Survivors = append(report.Survivors, left...)
	return errors.Join(err, errLeft)
}

// forget drops what this process knows of the build.
func (e *Engine) forget(name string) error {
	e.mu.Lock()
	delete(e.builds, name)
	e.mu.Unlock()
	return e.locks.release(name)
}

// Sweep destroys every build on this host that no living process runs: what a crash left. It is called at start,
// before the first build. The reports are those of builds of which something was found; they and the error are without
// details (see WithoutDetails).
func (e *Engine) Sweep(ctx context.Context) ([]*Report, error) {
	names, errs := e.found(ctx)
	var mu sync.Mutex
	var reports []*Report
	// At the same time: what cannot be removed costs each build the whole time of a teardown, and polling waits.
	var builds errgroup.Group
	builds.SetLimit(sweepers)
	for _, name := range names {
		if e.Busy(name) {
			continue
		}
		builds.Go(func() error {
			report, err := e.Destroy(ctx, name)
			WithoutDetails(report, err)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("sweep build %s: %w", name, err))
			}
			if report.found() {
				reports = append(reports, report)
			}
			return nil
		})
	}
	_ = builds.Wait() // every error is in the list
	slices.SortFunc(reports, func(a, b *Report) int { return strings.Compare(a.Build, b.Build) })
	return reports, errors.Join(errs...)
}

// sweepers is how many builds are swept at the same time. Mostly they wait: for a grace period, for Docker.
const sweepers = 8

// found names every build that some reaper or a lock file knows, in order. Names come out of environments of processes and
// labels of objects too, which anybody may set: what has not the form of a build's name must not become a path.
func (e *Engine) found(ctx context.Context) ([]string, []error) {
	names, err := e.locks.builds()
	var errs []error
	if err != nil {
		errs = append(errs, err)
	}
	for _, reaper := range e.reapers {
		builds, err := reaper.Builds(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("look for builds: %w", err))
		}
		names = append(names, builds...)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !isBuildName(name) })
	slices.Sort(names)
	return slices.Compact(names), errs
}

// found says whether the teardown had anything to do or to tell.
func (r *Report) found() bool {
	return len(slices.Concat(r.Leftovers, r.Removed, r.Kept, r.Survivors, r.Unverified)) > 0
}
