package process

// playChild is what the test binary does in the part of a misbehaving child.
func playChild(role string) int { return 99 }
