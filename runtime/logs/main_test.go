package logs

import (
	"os"
	"testing"
)

// full is how often a repeated test runs: a tenth of its count unless CC_CI_TEST_FULL is set.
func full(t testing.TB, count int) int {
	t.Helper()
	if os.Getenv("CC_CI_TEST_FULL") == "" {
		return count / 10
	}
	return count
}
