// Command build fills the cache with the testbed's servers and prints where their programs are.
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
