//go:build !linux

package proxy

import (
	"errors"
	"net"
)

// pins are bind mounts, which need Linux: elsewhere no build may mount its own directories.
type pins struct{}

func newPins(Config) *pins { return &pins{} }

func (*pins) holds(string) bool { return false }

func (*pins) pin(string, bool) (string, error) {
	return "", errors.New("mounting a build's directories needs a runner on Linux")
}

// Unpin has nothing to remove on this system.
func Unpin(_, _ string) error { return nil }

// Namespace is always the runner's own on this system.
func Namespace(net.Conn) (string, error) { return "", nil }
