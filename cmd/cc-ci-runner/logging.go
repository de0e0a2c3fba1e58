package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/drone/runner-go/logger/history"
	"github.com/sirupsen/logrus"
	"gopkg.in/natefinch/lumberjack.v2"
)

// logging is the daemon's own log: to stderr, to DRONE_LOG_FILE if set, and the newest lines (the library keeps 250)
// to the dashboard. What steps write never comes here: that is runtime/logs'.
type logging struct {
	// entry is handed to all parts; each adds its own fields.
	entry  *logrus.Entry
	recent *history.Hook
	file   *lumberjack.Logger
}

// newLogging opens the log. An error is about DRONE_LOG_FILE. Close it when nobody logs any more.
func newLogging(config *Config, stderr io.Writer) (*logging, error) {
	logger := logrus.New()
	logger.SetOutput(stderr)
	// systemd's journal and files are the readers: no colours, and the full time, of which logrus would show only the
	// seconds since the start on a terminal.
	logger.SetFormatter(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true})
	switch {
	case config.Trace:
		logger.SetLevel(logrus.TraceLevel)
	case config.Debug:
		logger.SetLevel(logrus.DebugLevel)
	}
	l := &logging{entry: logrus.NewEntry(logger), recent: history.New()}
	logger.AddHook(l.recent)
	if config.LogFile == "" {
		return l, nil
	}
	// lumberjack opens at the first line, long after anybody looks: try now.
	file, err := os.OpenFile(config.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("DRONE_LOG_FILE: %w", err)
	}
	if err := file.Close(); err != nil {
		return nil, fmt.Errorf("DRONE_LOG_FILE: %w", err)
	}
	l.file = &lumberjack.Logger{
		Filename:   config.LogFile,
		MaxAge:     config.LogFileMaxAge,
		MaxBackups: config.LogFileMaxBackups,
		MaxSize:    config.LogFileMaxSize,
		Compress:   true,
	}
	logger.SetOutput(both{stderr, l.file})
	return l, nil
}

// Close closes the log file, if there is one. Lines that come later open it again.
func (l *logging) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// both writes to two writers; unlike io.MultiWriter, a full disk under the one does not silence the other.
type both [2]io.Writer

func (b both) Write(p []byte) (int, error) {
	_, err0 := b[0].Write(p)
	_, err1 := b[1].Write(p)
	return len(p), errors.Join(err0, err1)
}
