package runtime

import (
	"context"
	"sync"
)

// peers are the stages that run here, in the order in which they came. They make a stage with a concurrency limit
// wait for those that the server counts as ended already, because they were cancelled, while they are still being
// torn down here. Stages that have a limit use something that only so many can use, and what is being torn
// down still uses it. Other runners' stages are not seen.
type peers struct {
	mu    sync.Mutex
	list  []*peer
	freed chan struct{} // closed and replaced whenever a stage leaves
}

// peer is one stage. The server counts a limit by repository and name too.
type peer struct {
	repo int64
	name string
}

// join enters the stage; it must leave when it is torn down.
func (p *peers) join(repo int64, name string) *peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	me := &peer{repo: repo, name: name}
	p.list = append(p.list, me)
	return me
}

// leave takes the stage out; leaving twice does nothing.
func (p *peers) leave(me *peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.list {
		if other == me {
			p.list = append(p.list[:i:i], p.list[i+1:]...)
			if p.freed != nil {
				close(p.freed)
				p.freed = nil
			}
			return
		}
	}
}

// wait returns when fewer than limit stages of the same repository and name that came before are left, or when the
// context ends, with its cause. No limit is 0. Those that came later do not count, so two cannot wait for each other.
func (p *peers) wait(ctx context.Context, me *peer, limit int) error {
	for {
		freed, before := p.before(me)
		if limit <= 0 || before < limit {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// before counts the stages of the same repository and name that came before.
func (p *peers) before(me *peer) (freed <-chan struct{}, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.freed == nil {
		p.freed = make(chan struct{})
	}
	for _, other := range p.list {
		if other == me {
			break
		}
		if other.repo == me.repo && other.name == me.name {
			n++
		}
	}
	return p.freed, n
}
