package testbed

import "crypto/rand"

// password returns a fresh secret of 32 characters, the length that Drone wants of a token. It is fit for passwords
// and tokens alike: letters and digits, which need no quotes anywhere.
func password() string { return (rand.Text() + rand.Text())[:32] }
