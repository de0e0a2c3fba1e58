// Package testbed builds and runs a real Gitea and a real Drone server on this machine's loopback address, and gives
// tests and the demo the means to make users, repositories, pull requests and builds, and to break the connection
// between a runner and its server.
//
//	bed, err := testbed.Start(ctx, testbed.Options{Log: os.Stderr})
//	defer bed.Stop(ctx)
//	user, err := bed.Gitea.NewUser(ctx, "alice")
//	repo, err := user.NewRepo(ctx, testbed.RepoSpec{Name: "hello"})
//	err = bed.Drone.Activate(ctx, user, repo, testbed.Settings{})
//	_, err = user.Push(ctx, repo, testbed.Commit{Message: "a pipeline", Files: map[string]string{".drone.yml": pipeline}})
//	build, err := bed.Drone.WaitFor(ctx, repo, testbed.Event("push"))
//
// The servers are test dependencies: they are built from their published modules, each by a wrapper module of its own
// (gitea/, drone/), and cached under the user's cache directory. Nothing of them enters the product.
//
// Start reading at bed.go, then server.go (a program and its runs); gitea.go and drone.go say how each server is set up,
// user.go, repo.go and builds.go what one can do there, runner.go and proxy.go what stands between. The tests are in
// e2e, crash, bridge and bootstrap; cmd/demo and cmd/bench use the same bed. A bed may be used by many tests at once:
// give each its own users and repositories. Whatever waits takes a context.
package testbed
