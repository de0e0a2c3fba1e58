package main

import (
	"fmt"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"
)

// notify tells systemd, if it started us ($NOTIFY_SOCKET; sd_notify(3)). A failure costs nothing but the message.
func notify(log *logrus.Entry, state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		log.WithError(err).Warn("systemd could not be told")
	}
}

// notifyReady is sent when configuration, containment and state are good. It never waits for the server.
func notifyReady(log *logrus.Entry) {
	notify(log, systemd.SdNotifyReady+"\nSTATUS=removing what an earlier run left, if anything")
}

// notifyDraining must not say STOPPING: `systemctl reload` would then wait for the whole drain.
func notifyDraining(log *logrus.Entry) { notify(log, "STATUS=draining") }

// notifyStopping asks for the time that the drain may take: systemd would kill the runner after TimeoutStopSec=, and
// builds with it.
func notifyStopping(log *logrus.Entry, need time.Duration) {
	notify(log, fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d\nSTATUS=draining", systemd.SdNotifyStopping, need.Microseconds()))
}

// statusInterval is how soon systemd's status line follows a change. A watchdog's time may shorten it.
const statusInterval = 5 * time.Second

// tellSystemd keeps the status line up to date and feeds the watchdog, until done. The watchdog goes hungry when the main
// loop does not come round any more; then systemd restarts the runner.
func (d *daemon) tellSystemd(done <-chan struct{}) {
	patience, err := systemd.SdWatchdogEnabled(false)
	interval := statusInterval
	// sd_watchdog_enabled(3) recommends a sign every half of the time; a third leaves room for a busy machine.
	if err == nil && patience > 0 {
		interval = min(interval, patience/3)
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for said := ""; ; {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		progress := d.runner.Progress()
		if patience > 0 && (progress.IsZero() || time.Since(progress) < patience/2) { // before it begins, the host is swept
			notify(d.log.entry, systemd.SdNotifyWatchdog)
		}
		// Only changes are sent: each message wakes systemd up.
		if now := d.sentence(progress.IsZero()); now != said {
			notify(d.log.entry, "STATUS="+now)
			said = now
		}
	}
}

// sentence is the runner's state for `systemctl status`. Without the patience of /readyz: a person who looks wants to
// know of a server that has just gone.
func (d *daemon) sentence(starting bool) string {
	status := d.runner.Status()
	builds := fmt.Sprintf("%d of %d builds running", len(status.Running), status.Capacity)
	if status.Undelivered > 0 {
		builds += fmt.Sprintf(", %d ended without the server knowing it", status.Undelivered)
	}
	switch reason := d.unready(status, 0); {
	case starting:
		return "removing what an earlier run left"
	case reason != "":
		return reason + "; " + builds
	}
	return builds
}
