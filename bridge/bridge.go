// Package bridge turns a comment on a Gitea pull request into one Drone build, and the build's result into one
// comment.
//
// A request lives in the journal from before its hook is acknowledged until its result is on the pull request.
// Each step of its life (authorise, admit, trigger, follow, deliver) ends in one journal write and may be repeated
// after a crash at any point: what may already exist outside (a reply, a build) is looked for before it is made.
//
// The way of a comment through the files:
//
//	hook.go       signature, body, the rules that need no call; into the journal; 202
//	catchup.go    the same for comments whose hook was lost
//	work.go       takes a request from state to state, repeats what fails, gives up in the end
//	authorise.go  received: may the author, does the comment still stand
//	pin.go        received: which recipe, which commit
//	trigger.go    authorised: what becomes of other runs; triggering: exactly one build
//	follow.go     triggered: waits for the end, or brings it about
//	deliver.go    with an outcome: reply, status, reaction; reported or refused
//	reply.go      every word that people read
//
// Three things hold everywhere. A decision rests on what was signed or on what Gitea says now, and no answer is no. A
// decision is in the audit log before it is in the journal, and in the journal before anybody sees it. Nothing is
// kept in memory that a restart would miss: limits and notices start afresh, which costs a little politeness only.
package bridge

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/drone"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// Bridge is the service. New makes it, Handler receives the hooks, Run does the work. Handler's goroutines only write
// the journal and the audit log and hand jobs over; every call to Gitea or Drone is made by a goroutine that Run has
// started and waits for.
type Bridge struct {
	Config
	audit   *audit
	metrics *metrics

	self     atomic.Pointer[gitea.User] // the bot's account, once Gitea has told it
	known    chan struct{}              // closed when self is set: no request goes on before
	users    *limits[int64]             // commands, by author
	pulls    *limits[lane]              // runs, by pull request
	repos    *limits[int64]             // runs, by repository
	accepted chan *job                  // has no room: a job that was sent is one that Run has taken
	done     chan struct{}              // closed when Run no longer reads accepted

	mu      sync.Mutex           // of the maps; never held during a call
	jobs    map[journal.Key]*job // at work; a request has at most one job
	lanes   map[lane]*laneLock   // of the pull requests that somebody holds or waits for
	notices map[lane]string      // the text of each pull request's notice, as last written
	work    sync.WaitGroup       // the jobs and the upkeep
}

// lane is a pull request: what its requests decide about each other happens one after the other.
type lane struct{ repo, pr int64 }

// laneLock is a lane's lock. It is forgotten only with its last user: two who wait for a pull request must find the same
// one.
type laneLock struct {
	sync.Mutex
	users int // who hold it or wait for it; the bridge's mu guards it
}

// job is a request at work. Its request belongs to the job's goroutine: whoever else wants something of it goes
// through the journal (end) and wakes it. What stands beside the request is lost in a crash, so it may only save work
// or patience.
type job struct {
	req    journal.Request
	wake   chan struct{} // a hint that something changed; has room for one that comes while the job is busy
	fresh  bool          // not yet charged to the limits
	unsure time.Time     // since when a build may exist whose number is unknown
	made   drone.Build   // the build, from Drone's answer until its number is in the journal
	looked bool          // the reply was looked for, or cannot exist yet
	fails  int           // failures of the present step
	since  time.Time     // of the first of them
	lost   time.Time     // since when the build's creation, and later every look at it, is answered with 404
	broken int           // answers of 500 to the build's creation
	poll   time.Duration // the last interval between two looks at the build
}

// New returns a bridge; nothing happens before Run. The only error is a metric's name that is taken in cfg.Registry.
func New(cfg Config) (*Bridge, error) {
	m, err := newMetrics(cfg.Registry)
	if err != nil {
		return nil, err
	}
	return &Bridge{
		Config: cfg, audit: &audit{out: cfg.Audit}, metrics: m,
		users: newLimits[int64](cfg.UserBurst, cfg.UserEvery),
		pulls: newLimits[lane](cfg.PullBurst, cfg.PullEvery),
		repos: newLimits[int64](cfg.RepoBurst, cfg.RepoEvery),
		known: make(chan struct{}), accepted: make(chan *job), done: make(chan struct{}),
		jobs: map[journal.Key]*job{}, lanes: map[lane]*laneLock{}, notices: map[lane]string{},
	}, nil
}

// Run works until ctx ends: first on what the journal holds, then on what Handler accepts and on comments whose hook
// was lost. When it returns, every request is in the journal in a state from which the next Run goes on, and nothing
// uses the journal any more but hooks under way. It is called once. Its error is the journal's, met before any work
// began: what fails later is logged and tried again.
func (b *Bridge) Run(ctx context.Context) error {
	defer b.work.Wait()
	defer close(b.done)
	if err := b.firstStart(); err != nil {
		return err
	}
	live, err := b.Journal.Live()
	if err != nil {
		return err
	}
	for _, r := range live {
		// Whoever asked Drone before the crash may not have heard the answer, so that counts as unsure.
		if j := (&job{req: r, unsure: r.Asked}); b.enter(j) {
			b.start(ctx, j)
		}
	}
	b.work.Go(func() { b.upkeep(ctx) })
	// Jobs are started here and not where they are accepted: the handler's goroutines end with their hook, and work
	// must not be added to once Run waits for it.
	for {
		select {
		case j := <-b.accepted:
			b.start(ctx, j)
		case <-ctx.Done():
			return nil
		}
	}
}

// upkeep learns the bot's account, then reads missed comments and prunes the journal for ever. A token without the
// scope read:user is asked about for ever too: doctor names it, and Ready keeps saying no.
func (b *Bridge) upkeep(ctx context.Context) {
	wait := b.RetryFirst
	for b.self.Load() == nil {
		self, err := b.Gitea.Self()
		if err == nil {
			b.self.Store(&self)
			close(b.known)
			break
		}
		b.Log.WithError(err).Warn("Gitea does not tell the bot's account; asking again")
		if !pause(ctx, wait) {
			return
		}
		wait = min(2*wait, b.RetryMax)
	}
	for {
		b.catchUp(ctx)
		if _, err := b.Journal.Prune(time.Now().Add(-b.Keep)); err != nil {
			b.Log.WithError(err).Error("prune journal")
		}
		if !pause(ctx, b.CatchUp) {
			return
		}
	}
}

// Ready reports whether the bridge can judge hooks: Gitea has told it who it is. Hooks that come before are taken all
// the same; their requests wait in the journal.
func (b *Bridge) Ready() error {
	if b.self.Load() == nil {
		return fmt.Errorf("the bot's account is not known yet: Gitea has not answered")
	}
	return nil
}

// enter makes a job known to the others, unless its request has one. Who enters a job must see that it leaves.
func (b *Bridge) enter(j *job) bool {
	j.wake = make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.jobs[j.req.Key] != nil {
		return false // a hook and the reading of missed comments have met
	}
	b.jobs[j.req.Key] = j
	b.metrics.live.Set(float64(len(b.jobs)))
	return true
}

// leave forgets a job: its request is finished, was never stored, or waits in the journal for the next Run.
func (b *Bridge) leave(j *job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.jobs, j.req.Key)
	b.metrics.live.Set(float64(len(b.jobs)))
}

// start runs a job in its own goroutine, which Run waits for. A job mostly sleeps, so there is one for each request
// and no pool: a run that takes an hour keeps nobody else from a worker. QUEUE bounds how many there are.
func (b *Bridge) start(ctx context.Context, j *job) {
	b.work.Go(func() {
		defer b.leave(j)
		select {
		case <-b.known: // before, the bot could not tell its own comments from others'
			b.advance(ctx, j)
		case <-ctx.Done():
		}
	})
}

// accept journals a request that was never seen before and hands it to Run; when Run has ended, the next one finds it
// in the journal. It returns when the request is on disk and Run has it, so before Run begins it waits. The job is
// entered before the journal is written: a Run that begins at this moment reads the journal, and must not start the
// request a second time.
func (b *Bridge) accept(r journal.Request) (fresh bool, err error) {
	j := &job{req: r, fresh: true, looked: true}
	if !b.enter(j) {
		return false, nil
	}
	if fresh, err = b.Journal.Accept(r); err != nil || !fresh {
		b.leave(j)
		return false, err
	}
	select {
	case b.accepted <- j:
	case <-b.done: // it is in the journal, so 202 is true: the next Run begins with it
		b.leave(j)
	}
	return true, nil
}

// crowded reports whether as many requests are alive as may be. Hooks that come together may all see the last place
// free: the bound is there to keep a flood from growing, not to be exact.
func (b *Bridge) crowded() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.jobs) >= b.Queue
}

// end stores the reason why a run must stop and wakes its job. A job that is not there, or misses the nudge, finds the
// reason when it looks next.
func (b *Bridge) end(key journal.Key, stop journal.Stop) error {
	if err := b.Journal.Stop(key, stop); err != nil {
		return err
	}
	b.nudge(key)
	return nil
}

// nudge makes a job look at its build at once, or repeat at once what it was about to repeat later. It never waits.
func (b *Bridge) nudge(key journal.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if j := b.jobs[key]; j != nil {
		select {
		case j.wake <- struct{}{}:
		default: // it is awake already
		}
	}
}

// lane locks a pull request; the caller calls the result to unlock it. It may be held during calls to Gitea, so a slow
// forge delays the decisions about this pull request and no other's.
func (b *Bridge) lane(r *journal.Request) (unlock func()) {
	key := lane{r.Repo, r.PR}
	b.mu.Lock()
	l := b.lanes[key]
	if l == nil {
		l = new(laneLock)
		b.lanes[key] = l
	}
	l.users++
	b.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		b.mu.Lock()
		defer b.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(b.lanes, key)
		}
	}
}

// pause waits and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
