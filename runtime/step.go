package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/logs"
)

// withLog is build.withLog for a stage of a server. The server is told beside the step: it may be away while the step
// runs, but where it answers at once it knows of the step before the first line. When withLog returns, the end is in
// the record; the log's upload and the report go on in s.reports.
func (s *stage) withLog(name string, f func(io.Writer) outcome) {
	begun := false
	s.rec.note(func(e *entry) { begun = e.begin(name) })
	if !begun {
		return
	}
	// The goroutine that tells the server is started first and told last: whatever happens in between, it ends.
	log, err := s.openLog(name)
	announced, ended := make(chan struct{}), make(chan struct{})
	s.reports.Go(func() { safely(s.log, func() { s.follow(name, log, announced, ended) }) })
	defer close(ended)
	s.await(announced)

	result := outcome{status: drone.StatusError, code: exitNotRun}
	if err == nil {
		err = s.guarded(func() error { result = f(log); return nil })
	}
	if log != nil {
		log.Finish() // follow may have to wait for the server, and each step of a long stage would keep a file open
	}
	if err != nil {
		result.text = err.Error()
	}
	result.text = s.masked(result.text)
	s.rec.note(func(e *entry) { e.end(name, result) })
}

// openLog opens the log of a step, under the id that the server gave the step when it was registered. follow closes it.
func (s *stage) openLog(name string) (*logs.Log, error) {
	cfg := logs.Config{Name: name, Limit: s.cfg.LogLimit, Masker: s.masker, Sink: s.cfg.Server, Log: s.log}
	s.rec.read(func(e *entry) {
		cfg.Dir = s.journal.spool(e.Stage.ID)
		if step := e.step(name); step != nil {
			cfg.StepID = step.ID
		}
	})
	return logs.Open(s.reporting, cfg)
}

// await gives the server a moment to learn that the step runs, unless it is known to be away. It ends with the build's
// life: a stop or a cancel is not kept waiting.
func (s *stage) await(announced <-chan struct{}) {
	if s.pulse.stuck(time.Now()) {
		return
	}
	timer := time.NewTimer(s.timing.announce)
	defer timer.Stop()
	select {
	case <-announced:
	case <-timer.C:
	case <-s.life.Done():
	case <-s.reporting.Done():
	}
}

// follow tells the server about one step: that it runs, then its log, then how it ended.
func (s *stage) follow(name string, log *logs.Log, announced, ended chan struct{}) {
	// The order is the server's: a live log opens with the step's start, and closes with its end. Lines sent at any
	// other time are answered with `stream: not found`. The upload needs no live log; it comes first so that a step
	// that has ended has its whole log.
	announce := sync.OnceFunc(func() { close(announced) })
	defer announce()
	err := s.rep.step(s.reporting, name, announce)
	announce()
	<-ended
	if log != nil {
		if err := s.pulse.call(func() error { return log.Close(s.reporting) }); err != nil {
			s.log.WithError(err).WithField("step", name).Debug("the log stays on disk until the server takes it")
		}
	}
	// Where the start could not be told, there is no time for the end either: it is delivered with the stage's.
	if err == nil {
		s.tellEnd(name)
	}
}

// tellEnd tells the server how a step ended. Where that fails, the step stays unreported in the record, and deliver
// tells it again before the stage's end.
func (s *stage) tellEnd(name string) {
	if s.rep.step(s.reporting, name, nil) == nil {
		s.rep.settle(name)
	}
}

// skipped is build.skipped for a stage of a server.
func (s *stage) skipped(name string) {
	s.reports.Go(func() { safely(s.log, func() { s.tellEnd(name) }) })
}

// card uploads the card that the step wrote to the file that it names, if any. What is wrong with a card is said in the
// step's log and does not fail the step.
func (s *stage) card(step *engine.Step, log io.Writer) {
	path := step.Env[cardPath]
	if path == "" {
		return
	}
	// The step may have written anything there; the workspace is the border.
	card, err := logs.ReadCard(path, s.spec.Root, s.spec.Workspace, s.masker)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = s.upload(step.Name, card)
	}
	if err != nil {
		say(log, "card: "+err.Error())
	}
}

// reportSchema is how a server that knows cards shows a teardown's report.
const reportSchema = "https://git.autonomic.zone/recipe-maintainers/cc-ci/raw/branch/main/docs/teardown-card.json"

// reportCard uploads what a teardown found as the step's card, where there is more to tell than that all is clean.
func (s *stage) reportCard(step string, report *engine.Report) {
	if len(report.Leftovers)+len(report.Kept)+len(report.Survivors)+len(report.Unverified) == 0 {
		return
	}
	data, err := json.Marshal(report)
	if err == nil {
		err = s.upload(step, &drone.CardInput{Schema: reportSchema, Data: json.RawMessage(s.masked(string(data)))})
	}
	// The log of the step says the same, and servers before 2.1 know no cards.
	if err != nil {
		s.log.WithError(err).Debug("the teardown has no card")
	}
}

// upload gives the server a step's card. The step waits for it, so it gets no more time than a short confirmation.
func (s *stage) upload(step string, card *drone.CardInput) error {
	var id int64
	s.rec.read(func(e *entry) { id = e.step(step).ID })
	ctx, done := context.WithTimeout(s.reporting, s.timing.beatShort)
	defer done()
	return s.cfg.Server.UploadCard(ctx, id, card)
}
