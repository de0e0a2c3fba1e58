package runtime

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/process"
)

// The test binary is also the stub that engine/process starts steps with, and a runner that can be killed.
func TestMain(m *testing.M) {
	if handled, code := process.Main(os.Args); handled {
		os.Exit(code)
	}
	if dir := os.Getenv(victimEnv); dir != "" {
		os.Exit(victim(dir))
	}
	flag.Parse()
	// The tests wait far more than they compute.
	if err := flag.Set("test.parallel", "32"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
