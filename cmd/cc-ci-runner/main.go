// Command cc-ci-runner takes builds from a Drone server and runs their steps natively on this host, as
// drone-runner-exec does; each build is contained, torn down and checked for leftovers.
//
// This package is what makes a program of the packages below it, and decides nothing about builds itself. main.go is
// the command line, with a file for each command. daemon.go makes the daemon's parts and ends them; config.go reads
// its settings; docker.go, endpoint.go, metrics.go, logging.go and systemd.go are its faces to the outside; prepare.go
// is the one way from a stage to its Spec, for the daemon, exec and compile.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/process"
)

// version is set by the linker (-X main.version=…), as the flake does; a plain go build has no number to show.
var version = "dev"

// The exit codes. A build that a signal ended exits with 128 and the signal's number, as shells do. The units name
// exitUsage in RestartPreventExitStatus=: a fault of the configuration is still there at the next start.
const (
	exitOK     = 0
	exitFailed = 1 // the pipeline failed, the file has problems, or the daemon cannot go on
	exitUsage  = 2 // wrong flags, or a faulty configuration
)

func main() {
	// The binary is also the small stub that prepares a step's process. It comes first: a stub's arguments are no
	// command line, and each step waits for it.
	if handled, code := process.Main(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// cli is the command line. daemon, exec, compile and service take what drone-runner-exec's commands of these names
// take, so that a unit or a script written for it still works; `withargs` lets the daemon's file stand without the
// word daemon.
type cli struct {
	Version kong.VersionFlag `help:"Print the version and exit."`

	Daemon  daemonCommand  `cmd:"" default:"withargs" help:"Take builds from a Drone server and run them (the default command)."`
	Exec    execCommand    `cmd:"" help:"Run one pipeline of a file on this host, without a server."`
	Compile compileCommand `cmd:"" help:"Print as JSON what exec would run; secrets are left out."`
	Lint    lintCommand    `cmd:"" help:"Check pipeline files; exits with 1 when there are problems."`
	Service serviceCommand `cmd:"" help:"Install, remove or control the runner as a service of this host."`
	Leaks   leaksCommand   `cmd:"" help:"List what builds left on this host, and remove it; exits with 1 when something is left."`
	Doctor  doctorCommand  `cmd:"" help:"Check the configuration, the server and this host, and say what to do."`
}

// streams are what commands write to.
type streams struct{ out, err io.Writer }

// exitError carries an exit code out of a command; any other error exits with exitFailed. An empty text prints nothing
// more: the command has said it all.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

// run is the program: it parses the arguments, runs a command and returns the exit code. Nothing below it ends the
// process, so every deferred teardown runs.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var commands cli
	out := streams{stdout, stderr}
	exited := -1
	parser, err := kong.New(&commands,
		kong.Name("cc-ci-runner"),
		kong.Description("The maintained Drone exec runner for a Docker Swarm host.\n\n"+
			"The daemon is configured by environment variables; see docs/configuration.md."),
		kong.Vars{"version": "cc-ci-runner " + version},
		kong.Writers(stdout, stderr),
		// kong would end the process at --help, and go on parsing where it cannot.
		kong.Exit(func(code int) { exited = code }),
		kong.UsageOnError(),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(out),
	)
	if err != nil {
		return fail(stderr, err)
	}
	parsed, err := parser.Parse(words(args))
	if exited >= 0 {
		return exited // --help or --version did its work
	}
	if err != nil {
		// To the parser a misspelt command is the daemon's file, and the word behind it one too many.
		text := err.Error()
		if len(args) > 1 && !isCommand(parser, args[0]) {
			text = fmt.Sprintf("there is no command %q", args[0])
		}
		return fail(stderr, &exitError{exitUsage, text + "; see cc-ci-runner --help"})
	}
	return fail(stderr, parsed.Run())
}

// words turns help and version, which would be files with the daemon's configuration, into flags. A file of such a
// name can still be given as ./help.
func words(args []string) []string {
	switch {
	case len(args) > 0 && args[0] == "help":
		return append(slices.Clone(args[1:]), "--help")
	case len(args) == 1 && args[0] == "version":
		return []string{"--version"}
	}
	return args
}

// isCommand says whether the first argument is what it has to be: a command, a flag, or the daemon's file.
func isCommand(parser *kong.Kong, first string) bool {
	known := func(node *kong.Node) bool { return node.Name == first }
	if strings.HasPrefix(first, "-") || slices.ContainsFunc(parser.Model.Children, known) {
		return true
	}
	_, err := os.Stat(first)
	return err == nil
}

// fail prints an error and returns the exit code that goes with it.
func fail(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	code := exitFailed
	var exit *exitError
	if errors.As(err, &exit) {
		code = exit.code
	}
	if text := err.Error(); text != "" {
		// Nothing is left to try when even the error stream is closed.
		_, _ = fmt.Fprintln(stderr, "cc-ci-runner:", text)
	}
	return code
}
