package proxy

import "path/filepath"

// PinDir is where the pins of a socket's build lie.
func PinDir(socket string) string { return filepath.Join(filepath.Dir(socket), "pins") }
