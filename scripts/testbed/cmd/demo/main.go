// Command demo shows the whole way at work: it starts Gitea, Drone, a Docker Swarm, cc-ci-runner and cc-ci-bridge on the
// loopback address, opens a pull request, comments !testme on it, follows the build that the bridge starts, and checks
// the answer and that nothing is left. It exits with 0 only if all of that holds.
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

// demo is one run of the demo.
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

// run starts the parts, tells the story, and stops the parts again, whatever happened.
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
	if err := d.prepare(ctx); err != nil {
		return interrupted(ctx, err)
	}
	err = d.story(ctx)
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

// interrupted replaces the errors that an interruption causes.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

// verdict is the last line of a good run.
func (d *demo) verdict() string {
	if d.docker == nil {
		return "the build was green, the pull request says so, nothing was left (the Docker part was left out)"
	}
	return "the build was green, the pull request says so, nothing was left"
}

// logins tells how to look at the servers.
func (d *demo) logins() {
	d.heading("Look around")
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
	d.say("Comment !testme on %s/%s/pulls/1 and watch. Ctrl-C stops and removes everything.", gitea.URL(), d.recipe.Slug())
}

// stop ends the bridge, then the runner, so that it can tear its builds down, then what both need.
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

// say writes a line for the reader. A terminal that went away is no reason to leave servers running.
func (d *demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format+"\n", args...) }

// lockedWriter lets several goroutines write whole lines.
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
