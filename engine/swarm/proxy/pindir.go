package proxy

import "path/filepath"

// PinDir is where the pins of a socket's build lie. Only root may enter it, while the socket's directory is open to all.
func PinDir(socket string) string { return filepath.Join(filepath.Dir(socket), "pins") }
