package testbed

import "crypto/rand"

// password returns a fresh secret of 32 characters, the length that Drone wants of a token.
func password() string { return (rand.Text() + rand.Text())[:32] }
