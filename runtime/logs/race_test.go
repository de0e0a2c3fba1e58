//go:build race

package logs

// raced says that the race detector runs: everything is slower and larger.
const raced = true
