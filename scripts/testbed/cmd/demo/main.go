// Command demo shows the whole way at work: it starts Gitea, Drone, a Docker Swarm, cc-ci-runner and cc-ci-bridge on
// the loopback address, opens a pull request, comments !testme on it, follows the build that the bridge starts, and
// checks the answer and that nothing is left. It exits with 0 only if all of that holds.
//
// main.go begins and ends it; prepare.go makes what the story needs, with bridge.go and docker.go for two of its
// parts; story.go tells it and judges; follow.go shows the build's logs. pipeline.yml, docker.yml and compose.yml are
// what is built. scripts/demo compiles and runs it. Where there can be no Docker, that part is left out and said so,
// and the rest is judged all the same.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

func main() {
	keep := flag.Bool("keep", false, "leave everything running until Ctrl-C, and print addresses and logins")
	program := flag.String("runner", "", "the `program` to show, e.g. an older runner; ours is built when empty")
	flag.Parse()
	// SIGHUP is a terminal that was closed: it stops and removes everything, too.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	d := &demo{
		out: &lockedWriter{to: os.Stdout}, program: *program, uiPassword: rand.Text(),
		mark: fmt.Sprintf("cc-ci-demo-%d", os.Getpid()),
	}
	if err := d.run(ctx, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is one run of the demo. Its parts are set as they are started; stop ends those that are there.
type demo struct {
	out        io.Writer
	program    string // the runner; empty until it is built
	mark       string // in the command line of the process that the pipeline leaves behind
	uiPassword string // of the runner's dashboard

	bed    *testbed.Bed
	docker *docker // nil where there can be none
	runner *testbed.Runner
	bridge *bridge

	maintainer  *testbed.User // owns the repositories and comments
	contributor *testbed.User // opens the pull request
	bot         *testbed.User // answers
	recipe, ci  testbed.Repo
}

// run starts the parts, tells the story, and stops the parts again, whatever happened. With keep it waits for the end
// of ctx before that; a story that failed then still fails the run. Stopping has a context of its own, since an
// interruption must not cut it.
func (d *demo) run(ctx context.Context, keep bool) (err error) {
	d.heading("Starting the servers")
	d.bed, err = testbed.Start(ctx, testbed.Options{Log: d.out})
	if err != nil {
		return interrupted(ctx, err)
	}
	defer func() {
		d.heading("Stopping everything")
		err = errors.Join(err, d.stop(context.WithoutCancel(ctx)))
		if err == nil {
			d.say("done: %s", d.verdict())
		}
	}()
	// From here on what was started is stopped on each way out.
	if err := d.prepare(ctx); err != nil {
		return interrupted(ctx, err)
	}
	err = d.story(ctx)
	// Kept also when it failed: that is when there is most to look at.
	if keep && ctx.Err() == nil {
		if err != nil {
			d.say("the demo failed: %v", err)
		}
		d.logins()
		<-ctx.Done()
		return err
	}
	return interrupted(ctx, err)
}

// interrupted replaces the errors that an interruption causes: they would look like a fault of the demo's.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

// verdict is the last line of a good run. It claims no more than was looked at.
func (d *demo) verdict() string {
	if d.docker == nil {
		return "the build was green, the pull request says so, nothing was left (the Docker part was left out)"
	}
	return "the build was green, the pull request says so, nothing was left"
}

// logins tells how to look at the servers. The passwords are made for this run and die with it.
func (d *demo) logins() {
	d.heading("Look around")
	// Everything listens on the loopback address only, so a login that is printed is good for this machine.
	gitea, server := d.bed.Gitea, d.bed.Drone
	d.say("Gitea      %s   login %s, password %s", gitea.URL(), d.maintainer.Name, d.maintainer.Password)
	d.say("           administrator: login %s, password %s", gitea.Admin.Name, gitea.Admin.Password)
	d.say("Drone      %s   log in through Gitea", server.URL())
	d.say("           API: curl -H 'Authorization: Bearer %s' %s/api/user", server.AdminToken, server.URL())
	d.say("Dashboard  %s   login demo, password %s; log %s", d.runner.URL, d.uiPassword, d.runner.LogPath())
	d.say("Bridge     %s/metrics   log %s", d.bridge.status, d.bridge.log)
	if d.docker != nil {
		d.say("Docker     docker -H %s info", d.docker.Host)
	}
	// The pull request of the story is the first there, and is still open.
	d.say("Comment !testme on %s/%s/pulls/1 and watch. Ctrl-C stops and removes everything.", gitea.URL(), d.recipe.Slug())
}

// stop ends the bridge, then the runner, so that it can tear its builds down, then what both need. Every part gets its
// chance: what one could not end does not keep the others.
func (d *demo) stop(ctx context.Context) error {
	var errs []error
	if d.bridge != nil {
		errs = append(errs, d.bridge.stop())
	}
	if d.runner != nil {
		errs = append(errs, d.runner.Stop(ctx))
	}
	if d.docker != nil {
		errs = append(errs, d.docker.stop())
	}
	return errors.Join(append(errs, d.bed.Stop(ctx))...)
}

// heading begins a part of the story.
func (d *demo) heading(format string, args ...any) { d.say("\n== "+format, args...) }

// say writes a line for the reader. A terminal that went away is no reason to leave servers running, so its errors are
// dropped.
func (d *demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format+"\n", args...) }

// lockedWriter lets several goroutines write whole lines: the follower's, the bridge's comment and the story come at
// the same time, each line in one call of Write.
type lockedWriter struct {
	mu sync.Mutex
	to io.Writer
}

// Write satisfies io.Writer.
func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p)
}
