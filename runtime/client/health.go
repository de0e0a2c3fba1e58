package client

import (
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// Health is whether the server answers this runner.
type Health struct {
	// OK is false while the server cannot be reached or refuses the runner. A server that was not asked yet is OK.
	OK bool

	// Since is when OK last changed.
	Since time.Time

	// Err is why it is not OK.
	Err error
}

// health remembers what was said, so that an outage costs one line at its start and one at its end.
type health struct {
	mu    sync.Mutex
	err   error     // why the server does nothing for us; nil while it does
	said  string    // the reason that was logged last
	since time.Time // when err became nil, or stopped being nil
}

// Health tells whether the server answers, for status pages.
func (c *Client) Health() Health {
	c.health.mu.Lock()
	defer c.health.mu.Unlock()
	return Health{OK: c.health.err == nil, Since: c.health.since, Err: c.health.err}
}

// observe takes one attempt's outcome. An answer of Drone's own, even a 500, shows that the server is there; a
// gateway's 502 does not.
func (c *Client) observe(fault *Error) {
	h := &c.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if fault == nil || fault.kind == answered || fault.kind == passing && fault.Status != 0 && !fault.lost {
		if h.err != nil {
			c.log.Infof("the Drone server answers again after %s", time.Since(h.since).Round(time.Second))
			h.err, h.said, h.since = nil, "", time.Now()
		}
		return
	}
	if h.err == nil {
		h.since = time.Now()
	}
	h.err = fault
	// What a person must do is said again when it changes; the network's many ways of failing are not.
	reason, level := "unreachable", logrus.WarnLevel
	if fault.kind == standing {
		reason, level = fault.Err.Error(), logrus.ErrorLevel
	}
	if h.said != reason {
		h.said = reason
		c.log.WithError(fault).Log(level, "cannot work with the Drone server; trying again until it answers")
	}
}
