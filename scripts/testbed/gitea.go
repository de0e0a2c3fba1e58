package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Gitea is a running Gitea server. It keeps its address and data over a Restart.
type Gitea struct {
	*Server
	Admin *User // the site administrator

	url string
	dir string
}

// URL is the server's address, without a slash at its end.
func (g *Gitea) URL() string { return g.url }

// giteaConfig is an installed Gitea on the loopback address that talks to nobody but its webhooks' receivers there
// (ALLOWED_HOST_LIST; by default Gitea refuses loopback). It waits for a busy database, where it would refuse a right
// password after half a second. It delivers webhooks one by one and side by side: a slow receiver must not hold up the
// other tests on the same servers.
//
// Of git's hooks it has only the one that tells Gitea of a push: each starts the whole program, and the others guard
// branches that nobody here protects.
//
// Passwords are hashed a thousand times and not, as by default, fifty thousand times: every git command of a test
// shows one. The verbs are the data directory, the port and the static files.
const giteaConfig = `APP_NAME = testbed
RUN_MODE = prod
I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
WORK_PATH = %[1]s

[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = %[2]d
ROOT_URL = http://127.0.0.1:%[2]d/
STATIC_ROOT_PATH = %[3]s
DISABLE_SSH = true
OFFLINE_MODE = true
LFS_START_SERVER = false

[database]
DB_TYPE = sqlite3
PATH = %[1]s/gitea.db
SQLITE_JOURNAL_MODE = WAL
SQLITE_TIMEOUT = 30000

[security]
INSTALL_LOCK = true
SECRET_KEY = testbed
PASSWORD_HASH_ALGO = pbkdf2$1000$10

[service]
DISABLE_REGISTRATION = true

[webhook]
ALLOWED_HOST_LIST = loopback

[actions]
ENABLED = false

[packages]
ENABLED = false

[indexer]
ISSUE_INDEXER_TYPE = db

[cron]
ENABLED = false

[cron.update_checker]
ENABLED = false

[queue]
BATCH_LENGTH = 1
MAX_WORKERS = 8

[mailer]
ENABLED = false

[session]
PROVIDER = memory

[log]
MODE = console
LEVEL = Warn

[repository]
DEFAULT_BRANCH = main

[git.config]
core.hooksPath = %[1]s/hooks
`

// postReceive is that hook. Gitea's own are a script for each repository that calls it in the same way.
const postReceive = "#!/bin/sh\nexec '%s' hook --config '%s' post-receive\n"

// startGitea writes the configuration, starts the server and makes the administrator's account.
func startGitea(ctx context.Context, binaries Binaries, dir string) (*Gitea, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "app.ini")
	content := fmt.Sprintf(giteaConfig, dir, port, binaries.GiteaStatic)
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		return nil, err
	}
	hook := filepath.Join(dir, "hooks", "post-receive")
	if err := os.Mkdir(filepath.Dir(hook), 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(hook, fmt.Appendf(nil, postReceive, binaries.Gitea, config), 0o700); err != nil {
		return nil, err
	}
	// The health address asks the database, too: an answer means that the API works.
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	g := &Gitea{url: url, dir: dir, Server: &Server{
		name: "gitea", program: binaries.Gitea, args: []string{"web", "--config", config}, dir: dir,
		// Memory for time: its hook is a whole Gitea that starts with each push.
		env:     append(baseEnv(dir), "GOGC=400"),
		logPath: filepath.Join(dir, "gitea.log"), health: url + "/api/healthz",
	}}
	if err := g.Start(ctx); err != nil {
		return nil, err
	}
	if err := g.createAdmin(ctx, config); err != nil {
		return nil, errors.Join(err, g.Stop(ctx))
	}
	return g, nil
}

// createAdmin makes the first account with the gitea command; all others are made by the API. (An account named admin
// is not to be had: the name is reserved.)
func (g *Gitea) createAdmin(ctx context.Context, config string) error {
	g.Admin = &User{Name: "root1", Email: "root1@example.org", Password: password(), gitea: g}
	cmd := exec.CommandContext(ctx, g.program, "--config", config, "admin", "user", "create", "--admin",
		"--username", g.Admin.Name, "--password", g.Admin.Password, "--email", g.Admin.Email,
		"--must-change-password=false")
	// The command opens the server's database beside it; the password is a throw-away one, and may be seen in a list
	// of processes.
	cmd.Dir, cmd.Env = g.dir, g.env
	if err := run(cmd); err != nil {
		return fmt.Errorf("create the administrator: %w", err)
	}
	return g.Admin.complete(ctx)
}
