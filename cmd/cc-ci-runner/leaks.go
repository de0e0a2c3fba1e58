package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
)

// leaksCommand lists and removes what builds left on this host. It looks through the daemon's own parts, with the
// daemon's configuration, and works beside a running daemon or without one. Run as root it also knows the builds of
// runners that are other users.
type leaksCommand struct {
	Config string `help:"The file with the configuration, as for the daemon." placeholder:"FILE"`
	JSON   bool   `name:"json" help:"Print JSON instead of a table."`
	Remove bool   `help:"Remove what is listed, after asking; never what a living build holds, nor anything without the runner's mark or pattern."`
	Yes    bool   `help:"Do not ask."`
}

// leak is what one build, or one app, left. It is an element of the output of --json.
type leak struct {
	// Name is the build's on this host, or "app" and the stack's.
	Name string `json:"name"`
	// Live says that a running process holds the build's lock, or somebody the app's: it is shown, and never removed.
	Live bool `json:"live"`
	// Since is when the build began, as its ledger says, or the oldest object of an app was made; else when the
	// build's directory changed last; zero if nothing tells. About are labels: repo, number, stage.
	Since time.Time         `json:"since,omitzero"`
	About map[string]string `json:"about,omitempty"`
	Items []leftover.Item   `json:"items"`

	orphan *swarm.Orphan // an app that was deployed without a build's socket
}

// Run prints what is left. It exits with 1 when something is left that nobody uses, and it did not remove it.
func (c *leaksCommand) Run(ctx context.Context, out streams) error {
	d, err := c.open(ctx)
	if err != nil {
		return err
	}
	return errors.Join(c.listAndRemove(ctx, d, out), d.processes.Close(), d.docker.Close())
}

// listAndRemove prints first, so that a person says yes to what stands above the question.
func (c *leaksCommand) listAndRemove(ctx context.Context, d *daemon, out streams) error {
	leaks, err := d.leaks(ctx)
	if err != nil {
		return err
	}
	if err := c.print(out.out, leaks); err != nil {
		return err
	}
	dead := 0
	for _, l := range leaks {
		if !l.Live {
			dead++
		}
	}
	if dead == 0 {
		return nil
	}
	if !c.Remove {
		return &exitError{exitFailed, fmt.Sprintf("%d left behind; cc-ci-runner leaks --remove removes what nobody uses", dead)}
	}
	if !c.Yes && !confirm(out.out, fmt.Sprintf("Remove %d?", dead)) {
		return &exitError{exitFailed, "nothing was removed"}
	}
	return d.removeLeaks(ctx, out.out, leaks)
}

// open makes an engine as the daemon has it. The daemon may be running meanwhile: locks tell its builds from what is
// left. Close processes and docker of what it returns.
func (c *leaksCommand) open(ctx context.Context) (*daemon, error) {
	env := newEnvironment(c.Config)
	env.unneeded = "DRONE_RPC_SECRET" // the server is not asked
	config, _, err := env.load()
	if err != nil {
		hint := ""
		if c.Config == "" {
			hint = "; --config FILE reads the daemon's"
		}
		return nil, &exitError{exitUsage, "the configuration is faulty" + hint + ":\n" + err.Error()}
	}
	// The daemon's log file is the daemon's: root would make one that its user cannot write to.
	config.LogFile = ""
	log, err := newLogging(config, io.Discard)
	if err != nil {
		return nil, err
	}
	d := &daemon{config: config, log: log, metrics: newMetrics()}
	d.limits.set(config)
	return d, d.openEngine(ctx, filepath.Join(config.State, stateName(config)))
}

// leaks are the builds that hold something, and apps that match the configured pattern. It changes nothing. An error
// means that the list is not known, not that it is short: half a list would look clean.
func (d *daemon) leaks(ctx context.Context) ([]leak, error) {
	found, err := d.engine.Find(ctx)
	if err != nil {
		return nil, err
	}
	var orphans []swarm.Orphan
	if d.docker.swarm != nil {
		if orphans, err = d.docker.swarm.Find(ctx, d.engine.Busy); err != nil {
			return nil, err
		}
	}
	var list []leak
	for _, f := range found {
		l := leak{Name: f.Build, Live: f.Live, Items: f.Items}
		for _, o := range orphans {
			if o.Build == f.Build {
				l.Since, l.About = o.Since, o.Labels
			}
		}
		if l.Since.IsZero() {
			l.Since = modified(filepath.Join(d.config.Root, f.Build))
		}
		list = append(list, l)
	}
	for _, o := range orphans {
		if o.Stack != "" {
			list = append(list, leak{Name: "app " + o.Stack, Live: o.Live, Since: o.Since, Items: o.Items, orphan: &o})
		}
	}
	return list, nil
}

// modified is when the directory was last changed; zero when it is not there.
func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// print shows the list as a table, an item a line, or as JSON, in which no leak is an empty list and not null.
func (c *leaksCommand) print(w io.Writer, leaks []leak) error {
	if c.JSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(append([]leak{}, leaks...))
	}
	if len(leaks) == 0 {
		_, err := fmt.Fprintln(w, "nothing is left of any build")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	lines := []string{"BUILD\tREPOSITORY\tAGE\tSTATE\tWHAT"}
	for _, l := range leaks {
		state := "left"
		if l.Live {
			state = "running"
		}
		for _, item := range l.Items {
			lines = append(lines, strings.Join([]string{l.Name, l.About["repo"], age(l.Since), state, item.String()}, "\t"))
		}
	}
	_, err := fmt.Fprintln(table, strings.Join(lines, "\n"))
	return errors.Join(err, table.Flush())
}

// age is how long ago, for people.
func age(since time.Time) string {
	if since.IsZero() {
		return "unknown"
	}
	return time.Since(since).Round(time.Second).String()
}

// confirm asks on the terminal. Everything but a y is a no, the end of the input too.
func confirm(w io.Writer, question string) bool {
	if _, err := fmt.Fprintf(w, "%s [y/N] ", question); err != nil {
		return false
	}
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	return err == nil && strings.EqualFold(strings.TrimSpace(answer), "y")
}

// removeLeaks removes what nobody uses and says what became of it. What cannot be removed is an error, and does not
// keep the rest. The list may be old by now: Destroy waits for a daemon that tears the same build down, and Remove
// refuses an app whose lock somebody has taken.
func (d *daemon) removeLeaks(ctx context.Context, w io.Writer, leaks []leak) error {
	var errs []error
	for _, l := range leaks {
		switch {
		case l.Live:
			continue
		case l.orphan != nil:
			removed, err := d.docker.swarm.Remove(ctx, *l.orphan)
			errs = append(errs, err)
			for _, item := range removed {
				_, err := fmt.Fprintf(w, "%s: removed: %s\n", l.Name, item)
				errs = append(errs, err)
			}
		default:
			report, err := d.engine.Destroy(ctx, l.Name)
			errs = append(errs, err)
			for _, line := range report.Lines() {
				_, err := fmt.Fprintf(w, "%s: %s\n", l.Name, line)
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
