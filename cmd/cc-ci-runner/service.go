package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/kardianos/service"
)

// serviceCommand controls the runner as a service of this host: a systemd unit on Linux, launchd on macOS. Names and
// flags are those of drone-runner-exec's; status is new.
type serviceCommand struct {
	Name   string `default:"cc-ci-runner" help:"The service's name."`
	Desc   string `default:"cc-ci runner (Drone exec runner)" help:"The service's description."`
	Config string `help:"The file with the configuration, a NAME=value a line (/etc/cc-ci-runner/config; for a user ~/.cc-ci-runner/config; a file of drone-runner-exec is found too)."`

	Install   serviceInstall   `cmd:"" help:"Install the service; it starts at boot, a user's at login (at boot after loginctl enable-linger)."`
	Uninstall serviceUninstall `cmd:"" help:"Remove the service."`
	Start     serviceStart     `cmd:"" help:"Start the service."`
	Stop      serviceStop      `cmd:"" help:"Stop the service; running builds end first."`
	Status    serviceStatus    `cmd:"" help:"Print whether the service runs; exits with 1 when it does not."`
	Run       serviceRun       `cmd:"" help:"Run the daemon with the service's configuration (what the service executes)."`
}

type (
	serviceInstall   struct{}
	serviceUninstall struct{}
	serviceStart     struct{}
	serviceStop      struct{}
	serviceStatus    struct{}
	serviceRun       struct{}
)

// unit is the systemd unit that we would write by hand; docs/systemd/ says why each line is there. The template
// language is kardianos/service's. It names no user and has none of the hardening of docs/systemd/: pipelines find the
// rights that they had under drone-runner-exec's unit. TimeoutStopSec= is DRONE_RUNNER_DRAIN_TIMEOUT's default and ten
// minutes.
const unit = `[Unit]
Description={{Description}}
Documentation=https://git.autonomic.zone/recipe-maintainers/cc-ci
Wants=network-online.target
After=network-online.target docker.service

[Service]
Type=notify
NotifyAccess=main
ExecStart={{Path | cmdEscape}}{{range Arguments}} {{. | cmd}}{{end}}
ExecReload=/bin/kill -s USR2 $MAINPID
StateDirectory=cc-ci-runner
StateDirectoryMode=0700
Delegate=yes
KillMode=mixed
TimeoutStartSec=900
TimeoutStopSec=4200
WatchdogSec=120
Restart=always
RestartSec=5
RestartPreventExitStatus=2
OOMPolicy=continue
TasksMax=16384
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
`

// unitFor is the unit of root's manager or of a user's. The latter has no multi-user.target (systemd.special(7)): a service
// that only such a target wants would never start by itself.
func unitFor(root bool) string {
	if root {
		return unit
	}
	return strings.Replace(unit, "WantedBy=multi-user.target", "WantedBy=default.target", 1)
}

// configFile is where the service's configuration lies: as asked, else the first that exists of our own place and
// drone-runner-exec's, else our own place. It is asked at the installation, and the unit names the answer, so a file
// that appears later changes nothing.
func (c *serviceCommand) configFile() string {
	if c.Config != "" {
		return c.Config
	}
	places := []string{"/etc/cc-ci-runner/config", "/etc/drone-runner-exec/config"}
	if os.Getuid() != 0 {
		home := os.Getenv("HOME")
		places = []string{filepath.Join(home, ".cc-ci-runner", "config"), filepath.Join(home, ".drone-runner-exec", "config")}
	}
	for _, place := range places {
		if _, err := os.Stat(place); err == nil {
			return place
		}
	}
	return places[0]
}

// manager is the host's service manager, told about our service. It does nothing on the host yet.
func (c *serviceCommand) manager() (service.Service, error) {
	// Other managers of Linux would get scripts that neither wait for running builds nor delegate a cgroup.
	if platform := service.Platform(); runtime.GOOS == "linux" && platform != "linux-systemd" {
		return nil, fmt.Errorf("systemd does not run on this host: let its own service manager start `cc-ci-runner daemon %s`", c.configFile())
	}
	manager, err := service.New(nothing{}, &service.Config{
		Name:        c.Name,
		DisplayName: c.Name,
		Description: c.Desc,
		Arguments:   []string{"service", "--config", c.configFile(), "run"},
		Option: service.KeyValue{
			"SystemdScript": unitFor(os.Getuid() == 0),
			"KeepAlive":     true,
			"RunAtLoad":     true,
			"UserService":   os.Getuid() != 0,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("find the service manager: %w", err)
	}
	return manager, nil
}

// nothing satisfies service.Interface: `service run` runs the daemon itself and needs no wrapper.
type nothing struct{}

func (nothing) Start(service.Service) error { return nil }
func (nothing) Stop(service.Service) error  { return nil }

// control runs one action and says that it was done. The manager's own errors (no rights, not installed) are shown as
// they are.
func (c *serviceCommand) control(out streams, done string, action func(service.Service) error) error {
	manager, err := c.manager()
	if err != nil {
		return err
	}
	if err := action(manager); err != nil {
		return fmt.Errorf("service %s: %w", c.Name, err)
	}
	_, err = fmt.Fprintf(out.out, "service %s: %s\n", c.Name, done)
	return err
}

// Run installs the service. The configuration must be there first, or the service would fail at every start. It is not
// started: that is a command of its own.
func (*serviceInstall) Run(c *serviceCommand, out streams) error {
	if _, err := os.Stat(c.configFile()); err != nil {
		return fmt.Errorf("cannot read the configuration: %w; write DRONE_RPC_HOST and DRONE_RPC_SECRET into it first", err)
	}
	return c.control(out, "installed, configured by "+c.configFile(), service.Service.Install)
}

// Run removes the service.
func (*serviceUninstall) Run(c *serviceCommand, out streams) error {
	return c.control(out, "removed", service.Service.Uninstall)
}

// Run starts the service.
func (*serviceStart) Run(c *serviceCommand, out streams) error {
	return c.control(out, "started", service.Service.Start)
}

// Run stops the service.
func (*serviceStop) Run(c *serviceCommand, out streams) error {
	return c.control(out, "stopped", service.Service.Stop)
}

// Run prints the service's state. It exits with 1 unless the service runs, so that scripts can ask.
func (*serviceStatus) Run(c *serviceCommand, out streams) error {
	manager, err := c.manager()
	if err != nil {
		return err
	}
	status, err := manager.Status()
	text := map[service.Status]string{service.StatusRunning: "running", service.StatusStopped: "stopped"}[status]
	switch {
	case errors.Is(err, service.ErrNotInstalled):
		text = "not installed"
	case err != nil:
		return fmt.Errorf("service %s: %w", c.Name, err)
	case text == "":
		text = "unknown"
	}
	if _, err := fmt.Fprintf(out.out, "service %s: %s\n", c.Name, text); err != nil {
		return err
	}
	if status != service.StatusRunning {
		return &exitError{code: exitFailed}
	}
	return nil
}

// Run runs the daemon, which obeys signals itself: no manager's library stands between.
func (*serviceRun) Run(ctx context.Context, c *serviceCommand, out streams) error {
	return (&daemonCommand{EnvFile: c.configFile()}).Run(ctx, out)
}
