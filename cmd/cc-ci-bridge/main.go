// Command cc-ci-bridge turns the comment !testme on a Gitea pull request into a Drone build and brings the result
// back.
//
// What it does is in package bridge. Here are the settings (config.go, the only reader of the environment), the
// wiring and the end of the daemon (serve.go, capped.go), and the commands that are run by hand (tools.go). It exits
// with 0 when it has done what it was asked or was told to stop, with 2 for settings or arguments that cannot be
// used, and with 1 for anything else.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the linker (-X main.version=...), which takes a variable only.
var version = ""

// cli is the command line.
type cli struct {
	Version  kong.VersionFlag `help:"Print the version and exit."`
	Serve    serveCmd         `cmd:"" default:"1" help:"Receive hooks and run the builds they ask for (default)."`
	Register registerCmd      `cmd:"" help:"Create or repair the hook on the configured repositories; takes HOOK_URL and ADMIN_TOKEN."`
	Doctor   doctorCmd        `cmd:"" help:"Check tokens, rights, hooks, the CI repository and the clock; changes nothing, exits with 1 if something is wrong."`
	Replay   replayCmd        `cmd:"" help:"Sign a saved hook body with the first secret and post it to the bridge."`
}

// errConfig marks errors of the settings, which exit with 2: a service manager need not start the program again.
type errConfig struct{ error }

// Unwrap returns the settings' faults.
func (e errConfig) Unwrap() error { return e.error }

// settings loads the configuration for the commands. Each needs all of it to be right, also what it does not use
// itself: a doctor that starts where the daemon would not is of no help.
func settings() (*config, error) {
	cfg, err := load()
	if err != nil {
		return nil, errConfig{err}
	}
	return cfg, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "cc-ci-bridge: %v\n", err)
	if errors.As(err, new(errConfig)) {
		os.Exit(2)
	}
	os.Exit(1)
}

// run parses the command line and runs the command until it ends or ctx does. Asking for help or the version ends the
// process, by kong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var c cli
	parser, err := kong.New(&c, kong.Name("cc-ci-bridge"), kong.Writers(stdout, stderr),
		kong.Description("Gitea comments to Drone builds and back. Settings come from the environment, as CC_CI_BRIDGE_NAME: see docs/configuration.md. Wrong settings exit with 2."),
		kong.Vars{"version": versionText()}, kong.BindTo(ctx, (*context.Context)(nil)), kong.BindTo(stdout, (*io.Writer)(nil)))
	if err != nil {
		return fmt.Errorf("command line: %w", err)
	}
	command, err := parser.Parse(args)
	if err != nil {
		return errConfig{fmt.Errorf("%w; cc-ci-bridge --help shows what there is", err)}
	}
	return command.Run(stdio{stdout, stderr})
}

// stdio is where a command writes.
type stdio struct{ out, err io.Writer }

// versionText is the linker's word, or else what Go has recorded.
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
