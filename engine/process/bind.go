package process

import (
	"fmt"
	"slices"
)

// Bind adds a bind to those of the build's steps that start from now on. It exists for what can only be made once
// the build's user is known, which Create decides: the build's Docker socket belongs to that user. It must not be
// called while a step runs, which reads the list under another lock. An error means that there is no such build.
func (h *Host) Bind(build string, b Bind) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.builds[build]
	if known == nil {
		return fmt.Errorf("bind %s in build %s: no such build", b.Target, build)
	}
	known.Binds = append(slices.Clip(known.Binds), b)
	return nil
}
