package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/drone/drone-go/drone"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/client"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/logs"
)

// restartedText is the error of a stage that a crash of the runner cut short.
const restartedText = "the runner restarted while this stage ran"

// Recover ends what an earlier process left: it removes from the host what the builds in the journal hold, and tells
// the server how they ended. What the server does not take at once goes on in the background of Run. Call it before
// Run. An error means that something is left on the host; the runner can work all the same. What the end of the
// context cuts short is left to the next start.
func (r *Runner) Recover(ctx context.Context) error {
	entries, damaged, err := r.journal.load()
	if err != nil {
		return err
	}
	for _, d := range damaged {
		r.logger.WithError(d.err).WithField("file", d.path).Error("a journal file cannot be read; it was set aside")
		if d.stage != 0 {
			entries = append(entries, r.salvage(d.stage))
		}
	}
	// One after the other: the host is cleaned build by build, and only the reports go on side by side.
	//
	// The first attempt comes before polling, so that a stage ends within seconds of the restart. A server that is away
	// must not keep the runner from polling, or it would not notice when it is back.
	first, done := context.WithTimeout(ctx, r.timing.recover)
	defer done()
	var sent sync.WaitGroup
	for _, e := range entries {
		log := r.logger.WithField("stage", e.Stage.ID)
		rep := r.newReporter(&record{journal: r.journal, entry: e, log: log}, log)
		// No slot takes the stage before it is known whether it is ours already. The claim ends with the entry.
		r.claim(e.Stage.ID)
		r.intents[e.Stage.ID] = e.Phase == phaseIntent
		if e.Phase == phaseLost {
			// The file that held the stage was set aside. Without another one, a restart before the server has been
			// told would know nothing of the stage, and its spooled logs would count as strays.
			rep.rec.keep(func(*entry) {})
		}
		safely(log, func() { err = errors.Join(err, r.clear(ctx, rep)) })
		if ctx.Err() != nil || rep.unfinished() {
			continue // what holds of the stage is not known yet; the next start finds its entry
		}
		sent.Go(func() {
			if !r.outbox.deliver(first, rep) {
				r.outbox.add(rep)
			}
		})
	}
	sent.Wait()
	return errors.Join(err, r.removeStraySpools())
}

// unfinished says that the entry does not tell yet how its stage ended.
func (r *reporter) unfinished() (open bool) {
	r.rec.read(func(e *entry) { open = e.Phase == phaseAccepted || e.Phase == phaseRunning })
	return open
}

// clear removes from the host what the build holds and puts into the entry how its stage is to be reported. An ended
// stage was torn down already; of a stage that was about to be accepted the host holds nothing yet. It reads the
// entry without a lock: nobody else knows the record before clear returns.
func (r *Runner) clear(ctx context.Context, rep *reporter) error {
	e := rep.rec.entry
	if e.Phase == phaseEnded || e.Phase == phaseIntent {
		return nil
	}
	limited, done := context.WithTimeout(ctx, r.cfg.TeardownTimeout)
	defer done()
	report, err := r.cfg.Engine.Destroy(limited, e.Build)
	r.cfg.Hooks.tornDown(report, err)
	if ctx.Err() != nil {
		return fmt.Errorf("remove what build %s left: %w", e.Build, err)
	}
	engine.WithoutDetails(report, err)
	// What a warning would say is in the report's lines, which tell writes.
	_, leak := r.cfg.Leaks(report, err)
	text := ""
	if leak != nil {
		text = leak.Error()
	}
	if e.Phase == phaseLost {
		rep.rec.note(func(e *entry) { e.Leak = text }) // for claim, which ends the stage
	} else {
		r.tell(ctx, rep, report)
		rep.rec.note(func(e *entry) { restarted(e, text) })
	}
	rep.log.WithFields(logrus.Fields{"repo": e.Repo, "name": e.Stage.Name}).Warn(restartedText)
	// What is left may be allowed to be; that the teardown could not do its work is said all the same.
	if leak == nil {
		leak = besideLeak(err)
	}
	if leak != nil {
		return fmt.Errorf("remove what build %s left: %w", e.Build, leak)
	}
	return nil
}

// tell writes into the log of the teardown step what the crash had left. Where the crash cut a teardown that had said
// already what it found, that stays.
func (r *Runner) tell(ctx context.Context, rep *reporter, report *engine.Report) {
	e := rep.rec.entry
	if len(e.Steps) == 0 || report == nil {
		return // the steps were not registered: there is no log to write into
	}
	last := e.Steps[len(e.Steps)-1]
	if last.ID == 0 || final(last.Status) {
		return
	}
	rep.rec.note(func(e *entry) { e.begin(last.Name) })
	log, err := logs.Open(ctx, logs.Config{
		Dir: r.journal.spool(e.Stage.ID), StepID: last.ID, Name: last.Name, Sink: r.cfg.Server, Log: rep.log,
	})
	if errors.Is(err, fs.ErrExist) {
		return // deliver uploads what the process that crashed had written
	}
	if err != nil {
		rep.log.WithError(err).Warn("the teardown has no log")
		return
	}
	// No masker: the secrets are not known any more, and the report has lost its details.
	for _, line := range append([]string{restartedText}, report.Lines()...) {
		say(log, line)
	}
	limited, done := context.WithTimeout(ctx, r.timing.announce)
	defer done()
	if err := log.Close(limited); err != nil {
		rep.log.WithError(err).Debug("the log stays on disk until the server takes it")
	}
}

// restarted ends the stage in the entry: what ran has an error, what did not is skipped. What had ended keeps its
// end: its report may have been lost, but its result was on disk. The leak is what the host still holds; empty for nothing.
func restarted(e *entry, leak string) {
	e.Unsure = e.Phase == phaseAccepted || e.Phase == phaseLost
	for i, s := range e.Steps {
		teardown := i == len(e.Steps)-1
		switch {
		case teardown && leak != "":
			e.end(s.Name, outcome{status: drone.StatusFailing, code: 1, text: leak})
		case teardown:
			e.end(s.Name, outcome{status: drone.StatusPassing})
		case s.Status == drone.StatusRunning:
			e.end(s.Name, outcome{status: drone.StatusError, code: exitNotRun, text: restartedText})
		}
	}
	e.skipPending()
	text := restartedText
	if leak != "" {
		text = joinText(text, leak)
	}
	e.conclude(drone.StatusError, text)
	e.Phase = phaseEnded
}

// claim decides about a stage that only the server can tell about. Where the process ended before it knew whether
// Accept had made the stage ours, it is ours if it has our name and stands as Accept leaves it; a name alone is no
// proof, since another runner may have it. Of a stage whose entry was damaged we know that it was ours.
func (r *reporter) claim(ctx context.Context) (ours bool, err error) {
	var stage drone.Stage
	var offered int64
	var lost bool
	r.rec.read(func(e *entry) { stage, offered, lost = *e.Stage, e.Offered, e.Phase == phaseLost })
	now, err := r.server.Detail(ctx, &stage)
	if errors.Is(err, client.ErrGone) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find out whether the stage is ours: %w", err)
	}
	// A stage that runs has been registered, and the process that ended before it knew of its Accept has registered
	// none.
	accepted := now.Stage.Status == drone.StatusPending && now.Stage.Version == offered+1
	if now.Stage.Machine != stage.Machine || final(now.Stage.Status) || !lost && !accepted {
		return false, nil
	}
	return true, r.rec.change(func(e *entry) {
		e.Stage = now.Stage
		e.Stage.Steps = nil
		e.Repo = now.Repo.Slug
		restarted(e, e.Leak)
	})
}

// salvage is what can be known of a stage whose journal file was damaged: its id, from the file's name, and with it the
// build's name on this host. The rest is the server's to tell (see claim).
func (r *Runner) salvage(id int64) *entry {
	return &entry{
		Phase: phaseLost, Build: engine.BuildName(r.cfg.Address, id), Since: time.Now().Unix(),
		Stage: &drone.Stage{ID: id, Machine: r.cfg.Machine},
	}
}

// removeStraySpools removes spooled logs that no entry names any more. journal.remove leaves none, but the unsynced
// removal of an entry and its spool may reach the disk in any order.
func (r *Runner) removeStraySpools() error {
	dirs, err := os.ReadDir(filepath.Join(r.journal.dir, "spool"))
	for _, d := range dirs {
		if _, fault := os.Stat(filepath.Join(r.journal.stages(), d.Name()+".json")); errors.Is(fault, os.ErrNotExist) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(r.journal.dir, "spool", d.Name())))
		}
	}
	return err
}
