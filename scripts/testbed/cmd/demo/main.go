// Command demo shows the runner at work: it starts Gitea, Drone and cc-ci-runner on the loopback address, pushes a
// pipeline, follows its log, and checks that nothing is left. It exits with 0 only if the build was green and clean.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

//go:embed pipeline.yml
var pipeline string

// secret is what the log must not show.
const secret = "correct-horse-battery-staple"

func main() {
	keep := flag.Bool("keep", false, "leave everything running until Ctrl-C, and print addresses and logins")
	program := flag.String("runner", "", "the `program` to show, e.g. an older runner; ours is built when empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &demo{out: os.Stdout, program: *program, mark: fmt.Sprintf("cc-ci-demo-%d", os.Getpid())}
	if err := d.run(ctx, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is one run of the demo.
type demo struct {
	out     io.Writer
	program string // the runner; empty until it is built
	mark    string // in the command line of the process that the pipeline leaves behind
	bed     *testbed.Bed
	runner  *testbed.Runner
	user    *testbed.User
	repo    testbed.Repo
}

// run starts the parts, shows a build, and stops the parts again, whatever happened.
func (d *demo) run(ctx context.Context, keep bool) (err error) {
	d.bed, err = testbed.Start(ctx, testbed.Options{Log: os.Stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop(context.WithoutCancel(ctx))) }()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	err = d.show(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if keep {
		if err != nil {
			d.say("the demo failed: %v", err)
		}
		d.logins()
		<-ctx.Done()
		d.say("")
	}
	return err
}

// prepare makes the repository and starts the runner.
func (d *demo) prepare(ctx context.Context) (err error) {
	if d.user, err = d.bed.Gitea.NewUser(ctx, "demo"); err != nil {
		return err
	}
	d.repo, err = d.user.NewRepo(ctx, testbed.RepoSpec{Name: "hello", Files: map[string]string{"README.md": "# Hello\n"}})
	if err != nil {
		return err
	}
	if err := d.bed.Drone.Activate(ctx, d.user, d.repo, testbed.Settings{}); err != nil {
		return err
	}
	if err := d.bed.Drone.AddSecret(ctx, d.repo, testbed.Secret{Name: "token", Value: secret}); err != nil {
		return err
	}
	if d.program == "" {
		if d.program, err = d.bed.BuildProduct(ctx, "cc-ci-runner"); err != nil {
			return err
		}
	}
	d.runner, err = d.bed.StartRunner(ctx, testbed.RunnerOptions{Program: d.program, Name: "demo-runner"})
	return err
}

// show pushes the pipeline, follows its build and judges it.
func (d *demo) show(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("the build took more than five minutes"))
	defer cancel()
	yaml := strings.NewReplacer("ARCH", runtime.GOARCH, "MARK", d.mark).Replace(pipeline)
	sha, err := d.user.Push(ctx, d.repo, testbed.Commit{Message: "Add a pipeline", Files: map[string]string{".drone.yml": yaml}})
	if err != nil {
		return err
	}
	d.say("pushed %s to %s", sha[:10], d.repo.Slug())
	started, err := d.bed.Drone.WaitFor(ctx, d.repo, testbed.Of(sha))
	if err != nil {
		return err
	}
	d.say("build %d: %s/%s/%d\n", started.Number, d.bed.Drone.URL(), d.repo.Slug(), started.Number)
	follower := newFollower(d.bed.Drone, d.repo, d.out)
	build, err := follower.follow(ctx, started.Number)
	if err != nil {
		return err
	}
	d.result(build)
	return errors.Join(d.green(build), d.clean(follower.text()))
}

// clean returns an error unless the build left nothing behind and its log kept the secret.
func (d *demo) clean(log string) error {
	processes, err := testbed.Processes(d.mark)
	if err != nil {
		return err
	}
	files, err := d.runner.Leftovers()
	if err != nil {
		return err
	}
	d.say("left on this host: %d processes, %d directories", len(processes), len(files))
	if left := append(processes, files...); len(left) > 0 {
		return errors.New("left behind: " + strings.Join(left, ", "))
	}
	if strings.Contains(log, secret) {
		return errors.New("the log shows the secret")
	}
	return nil
}

// logins tells how to look at the servers.
func (d *demo) logins() {
	d.say("")
	d.say("Gitea   %s   login %s, password %s", d.bed.Gitea.URL(), d.user.Name, d.user.Password)
	d.say("        administrator: login %s, password %s", d.bed.Gitea.Admin.Name, d.bed.Gitea.Admin.Password)
	d.say("Drone   %s   log in through Gitea", d.bed.Drone.URL())
	d.say("        API: curl -H 'Authorization: Bearer %s' %s/api/user", d.bed.Drone.AdminToken, d.bed.Drone.URL())
	d.say("Runner  %s   log %s", d.runner.URL, d.runner.LogPath())
	d.say("Change .drone.yml in %s/%s and watch. Ctrl-C stops and removes everything.", d.bed.Gitea.URL(), d.repo.Slug())
}

// stop ends the runner first, so that it can tear its builds down, then the servers.
func (d *demo) stop(ctx context.Context) error {
	d.say("stopping")
	var err error
	if d.runner != nil {
		err = d.runner.Stop(ctx)
	}
	return errors.Join(err, d.bed.Stop(ctx))
}

// say writes a line for the reader. A terminal that went away is no reason to leave servers running.
func (d *demo) say(format string, args ...any) {
	_, _ = fmt.Fprintf(d.out, format+"\n", args...)
}
