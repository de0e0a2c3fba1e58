// Command build fills the cache with the testbed's servers and prints where their programs are. scripts/test runs it
// before the tests, so that minutes of compiling count against no test's time, and are said.
//
// An interruption leaves nothing half built.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	binaries, err := testbed.BuildServers(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testbed:", err)
		os.Exit(1)
	}
	fmt.Println(binaries.Gitea)
	fmt.Println(binaries.Drone)
}
