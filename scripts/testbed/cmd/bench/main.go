// Command bench measures a runner against a real Drone server: how soon a build starts, also after the runner was
// idle, how long one takes that does nothing, what a large log costs, how soon a cancel works, and how much memory the
// runner holds. Beside each figure stands that of drone-runner-exec 1.0.0-beta.10, measured the same way on an idle
// machine of two cores.
//
// The servers run on the same machine and share its processors, so figures are of use only beside others of the same
// machine in the same hour; the load before and after is printed with them. main.go has the figures, measure.go the
// instruments, pickup.go the one figure that needs runners of its own. scripts/bench server runs it,
// docs/benchmarks.md keeps results.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

func main() {
	program := flag.String("runner", "", "the `program` to measure; ours is built when empty")
	rounds := flag.Int("rounds", 30, "how often short builds are repeated")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{out: os.Stdout, program: *program, rounds: *rounds}
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of all measurements, one after the other: at once they would measure each other.
type bench struct {
	out     io.Writer
	program string
	// rounds is how often a short build is measured; one more comes before, to warm caches up.
	rounds int
	bed    *testbed.Bed
	runner *testbed.Runner
	user   *testbed.User
}

// run starts the bed and one runner, measures, and stops both. The first measurement is of the idle runner, so it must
// come before any build; memory after many builds and after large logs is part of the others.
func (b *bench) run(ctx context.Context) (err error) {
	b.bed, err = testbed.Start(ctx, testbed.Options{Log: os.Stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.bed.Stop(context.WithoutCancel(ctx))) }()
	if b.user, err = b.bed.Gitea.NewUser(ctx, "bench"); err != nil {
		return err
	}
	if b.program == "" {
		if b.program, err = b.bed.BuildProduct(ctx, "cc-ci-runner"); err != nil {
			return err
		}
	}
	// Without debug lines, as a runner works for real.
	b.runner, err = b.bed.StartRunner(ctx, testbed.RunnerOptions{Program: b.program, Env: map[string]string{"DRONE_DEBUG": "false"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.runner.Stop(context.WithoutCancel(ctx))) }()
	if err := b.load("before"); err != nil {
		return err
	}
	b.print("figure", "this runner", "drone-runner-exec")
	// The order matters for the memory: first of an idle runner, last of one that has sent large logs.
	for _, measure := range []func(context.Context) error{b.idle, b.short, b.clone, b.pickup, b.cancel, b.logs} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return b.load("after")
}

// print writes one row. A reader that went away is noticed by the next measurement's end, not here.
func (b *bench) print(figure, ours, theirs string) {
	_, _ = fmt.Fprintf(b.out, "%-58s %-22s %s\n", figure, ours, theirs)
}

// idle shows the memory before the first build, when all that a runner needs at its start has been used once.
func (b *bench) idle(ctx context.Context) error {
	size, err := b.memory(ctx)
	b.print("resident memory, 10 s after the start", size, "13 MB")
	return err
}

// short measures builds that do next to nothing, without a clone: what is left is the way through server and runner.
// The step writes the time at which it runs, by the same clock.
func (b *bench) short(ctx context.Context) error {
	repo, err := b.repo(ctx, "short", "clone:\n  disable: true\nsteps:\n- name: now\n  commands: [date +%s.%N]\n")
	if err != nil {
		return err
	}
	if err := b.repeat(ctx, repo, "without clone", [2]string{"187 ms", "218 ms"}); err != nil {
		return err
	}
	size, err := b.memory(ctx)
	b.print(fmt.Sprintf("resident memory, 10 s after %d small builds", b.rounds+1), size, "20 MB (30 builds)")
	return err
}

// clone measures the same with a clone, of a repository of one file: the time is that of a few calls of git.
func (b *bench) clone(ctx context.Context) error {
	repo, err := b.repo(ctx, "clone", "steps:\n- name: now\n  commands: [date +%s.%N]\n")
	if err != nil {
		return err
	}
	return b.repeat(ctx, repo, "with clone", [2]string{"232 ms", "244 ms"})
}

// repeat builds a repository many times and prints the medians: from the request until the first command runs, and
// until a client that asks every 5 ms sees the build as done. The two of theirs are in this order.
func (b *bench) repeat(ctx context.Context, repo testbed.Repo, how string, theirs [2]string) error {
	var first, whole []time.Duration
	for round := range b.rounds + 1 {
		// The request counts, too: it is a part of what a person waits for, and the same for either runner.
		asked := time.Now()
		log, err := b.build(ctx, repo, "now")
		if err != nil {
			return err
		}
		seen := time.Since(asked)
		times, err := timesIn(log)
		if err != nil {
			return err
		}
		if round > 0 { // the first one warms caches up
			first, whole = append(first, times[0].Sub(asked)), append(whole, seen)
		}
	}
	b.print("build asked for, until its first command, "+how, milliseconds(first), theirs[0])
	b.print("build asked for, until it is seen as done, "+how, milliseconds(whole), theirs[1])
	return nil
}

// logs measures 200,000 lines of 100 bytes, 20 MB, written in blocks and line by line (stdbuf makes each line a write
// of its own). The time is the step's: from before the first line until after the last, so it shows whether the runner
// holds its step up, not how soon the log is at the server. The processor time is the runner's.
func (b *bench) logs(ctx context.Context) error {
	line := strings.Repeat("x", 99)
	for _, one := range []struct{ how, command, theirs string }{
		{"in blocks", "yes " + line + " | head -n 200000", "0.26 s, 0.10 s CPU"},
		{"line by line", "yes " + line + " | stdbuf -oL head -n 200000", "0.45 s, 0.21 s CPU"},
	} {
		repo, err := b.repo(ctx, "logs-"+strings.Fields(one.how)[0], fmt.Sprintf(`clone:
  disable: true
steps:
- name: talk
  commands:
  - begin=$(date +%%s.%%N)
  - %s
  - echo; echo $begin; date +%%s.%%N
`, one.command))
		if err != nil {
			return err
		}
		// Right before and after: a runner that waits uses some, too.
		before, err := b.cpu()
		if err != nil {
			return err
		}
		log, err := b.build(ctx, repo, "talk")
		if err != nil {
			return err
		}
		after, err := b.cpu()
		if err != nil {
			return err
		}
		times, err := timesIn(log)
		if err != nil {
			return err
		}
		// The pipeline prints both times at its end, which either runner keeps of a long log.
		took := times[len(times)-1].Sub(times[0])
		b.print("200,000 lines of 100 bytes, "+one.how, fmt.Sprintf("%.2f s, %.2f s CPU", took.Seconds(), (after-before).Seconds()), one.theirs)
	}
	size, err := b.memory(ctx)
	b.print("resident memory, 10 s after these logs", size, "60 to 78 MB")
	return err
}

// cancel measures the time from asking for a cancel to the end of the step's process. The shell that starts the
// process waits for it, so killing the shell alone leaves it. A runner that leaves it is measured once: what stays
// would count as found the next time.
func (b *bench) cancel(ctx context.Context) error {
	mark := fmt.Sprintf("cc-ci-bench-%d", os.Getpid())
	repo, err := b.repo(ctx, "cancel", "clone:\n  disable: true\nsteps:\n- name: sleep\n  commands: [\"sh -c 'sleep 3600; true' "+mark+"\"]\n")
	if err != nil {
		return err
	}
	var took []time.Duration
	for range 5 {
		build, err := b.bed.Drone.NewBuild(ctx, repo, "main", nil)
		if err != nil {
			return err
		}
		// The step runs when its process is there; the server may not know it yet.
		if err := b.processes(ctx, mark, true); err != nil {
			return err
		}
		asked := time.Now()
		if err := b.bed.Drone.Cancel(ctx, repo, build.Number); err != nil {
			return err
		}
		if err := b.processes(ctx, mark, false); errors.Is(err, errStay) {
			b.print("cancel asked for, until the step's processes are gone", "never: they stay", cancelTheirs)
			return kill(mark)
		} else if err != nil {
			return err
		}
		took = append(took, time.Since(asked))
		// So that the next round does not meet this build's end.
		if _, err := b.bed.Drone.WaitBuild(ctx, repo, build.Number, testbed.Done); err != nil {
			return err
		}
	}
	b.print("cancel asked for, until the step's processes are gone", milliseconds(took), cancelTheirs)
	return nil
}

// cancelTheirs is how soon a cancel worked on drone-runner-exec: never, when it came between two of its watches.
const cancelTheirs = "40 to 80 ms, or never"

// repo makes an active repository with a pipeline. Its first commit is pushed before Drone listens, so nothing is
// built yet.
func (b *bench) repo(ctx context.Context, name, rest string) (testbed.Repo, error) {
	// The server takes a platform that is not given for linux on amd64.
	head := fmt.Sprintf("kind: pipeline\ntype: exec\nname: default\nplatform: {os: linux, arch: %s}\n", runtime.GOARCH)
	repo, err := b.user.NewRepo(ctx, testbed.RepoSpec{Name: name, Files: map[string]string{".drone.yml": head + rest}})
	if err != nil {
		return repo, err
	}
	return repo, b.bed.Drone.Activate(ctx, b.user, repo, testbed.Settings{})
}

// milliseconds gives the median and the 90th percentile. It sorts the list that it is given, which must not be empty.
func milliseconds(times []time.Duration) string {
	slices.Sort(times)
	at := func(share float64) int64 { return times[int(share*float64(len(times)-1))].Milliseconds() }
	return fmt.Sprintf("%d ms (p90 %d ms)", at(0.5), at(0.9))
}
