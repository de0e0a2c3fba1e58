package main

import (
	"fmt"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"
)

// notify tells systemd, if it started us. A failure costs nothing but the message.
func notify(log *logrus.Entry, state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		log.WithError(err).Warn("systemd could not be told")
	}
}

// notifyReady is sent when configuration, containment and state are good. It never waits for the server.
func notifyReady(log *logrus.Entry) {
	notify(log, systemd.SdNotifyReady+"\nSTATUS=waiting for builds")
}

// notifyDraining must not say STOPPING: `systemctl reload` would then wait for the whole drain.
func notifyDraining(log *logrus.Entry) {
	notify(log, "STATUS=draining: running builds end, then the runner does")
}

// notifyStopping asks for the time that the drain may take.
func notifyStopping(log *logrus.Entry, need time.Duration) {
	notify(log, fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d\nSTATUS=stopping: running builds end", systemd.SdNotifyStopping, need.Microseconds()))
}

// watchdog feeds systemd's watchdog as long as alive returns: a runner whose locks are stuck is restarted.
func watchdog(done <-chan struct{}, alive func()) {
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	ticker := time.NewTicker(interval / 3)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			alive()
			// systemd notices a missing message by itself.
			_, _ = systemd.SdNotify(false, systemd.SdNotifyWatchdog)
		}
	}
}
