package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/client"
)

// accept makes an offered stage ours. The intent is on disk first: a stage that was accepted is never offered again,
// whatever becomes of this process, and the server would show it as pending for up to two days.
//
// A record is returned only for a stage that is ours. An entry stays behind an error where it may be ours all the same.
func (r *Runner) accept(ctx context.Context, offer *drone.Stage) (*record, error) {
	mine := *offer
	mine.Machine = r.cfg.Machine
	rec := &record{journal: r.journal, log: r.logger, entry: &entry{
		Phase: phaseIntent, Build: engine.BuildName(r.cfg.Address, offer.ID), Offered: offer.Version, Stage: &mine,
		Since: time.Now().Unix(),
	}}
	if err := rec.change(func(*entry) {}); err != nil {
		return nil, fmt.Errorf("stages are not taken while the journal cannot be written: %w", err)
	}
	// A copy: the client writes into it, and what the entry holds is written under the record's lock only.
	accepted := mine
	if err := r.cfg.Server.Accept(ctx, &accepted); err != nil {
		if ctx.Err() != nil {
			return nil, err // it may be ours: the next start finds out
		}
		if r.intents[offer.ID] && errors.Is(err, client.ErrTaken) {
			// Perhaps by an earlier process of ours, whose call came to the server after Recover had asked it. Nobody
			// would ever run the stage then, so the outbox asks again.
			r.outbox.add(r.newReporter(rec, r.logger.WithField("stage", offer.ID)))
			return nil, err
		}
		return nil, errors.Join(err, rec.remove())
	}
	// A stage that waited for others was updated when its turn came. The server's clock may be ahead of ours.
	pickup := time.Since(time.Unix(max(offer.Created, offer.Updated), 0))
	r.cfg.Hooks.accepted(max(pickup, 0))
	err := rec.change(func(e *entry) { e.Phase, e.Stage = phaseAccepted, &accepted })
	if err != nil {
		// The stage is ours and goes on; a crash now would find it by the intent.
		r.logger.WithError(err).Error("the journal cannot be written")
	}
	return rec, nil
}
