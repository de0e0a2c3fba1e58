package main

import (
	"net"
	"sync"
)

// capped is a listener with a bound on open connections; more wait in the kernel's queue. Without it each connection
// of a flood would have a goroutine, buffers of some kilobytes and a file descriptor, of which the journal needs some
// too.
type capped struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

// newCapped bounds a listener's open connections.
func newCapped(l net.Listener, connections int) *capped {
	return &capped{Listener: l, slots: make(chan struct{}, connections), closed: make(chan struct{})}
}

// Accept waits for a slot, then for a connection. The other way round, an accepted connection would wait here,
// outside of the server's timeouts.
func (c *capped) Accept() (net.Conn, error) {
	select {
	case c.slots <- struct{}{}:
	case <-c.closed:
		return nil, net.ErrClosed
	}
	conn, err := c.Listener.Accept()
	if err != nil {
		<-c.slots
		return nil, err
	}
	return &slotted{Conn: conn, free: sync.OnceFunc(func() { <-c.slots })}, nil
}

// Close ends Accept, also one that waits for a slot.
func (c *capped) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Listener.Close()
}

// slotted gives its slot back when it is closed, once: the server may close a connection twice.
type slotted struct {
	net.Conn
	free func()
}

// Close closes the connection and frees its slot.
func (s *slotted) Close() error {
	defer s.free()
	return s.Conn.Close()
}
