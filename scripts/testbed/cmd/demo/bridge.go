package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// bridge is a running cc-ci-bridge. Both its addresses were chosen by the kernel; its first lines of log tell them.
type bridge struct {
	*child
	status string // its address for operators
}

// upPattern is the line with which the bridge says that it listens.
var upPattern = regexp.MustCompile(`msg="the bridge is up" listen="([^"]+)" status="([^"]+)"`)

// startBridge builds and starts the bridge between Gitea and Drone, and lets it register its hook on the recipe. The
// order is that of a set-up by hand: the bot logs in to Drone once, the bridge runs, then the hook is registered at
// its address.
func (d *demo) startBridge(ctx context.Context) error {
	program, err := d.bed.BuildProduct(ctx, "cc-ci-bridge")
	if err != nil {
		return err
	}
	token, err := d.bed.Drone.Login(ctx, d.bot)
	if err != nil {
		return err
	}
	// Drone lets the bot start builds of repositories that it has seen the bot's rights on.
	if _, err := d.bed.Drone.Client(ctx, token).RepoListSync(); err != nil {
		return fmt.Errorf("let Drone read the bot's repositories: %w", err)
	}
	// Its own environment, home and state: nothing of the caller's gets in.
	home := filepath.Join(d.bed.Dir, "bridge")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}
	for name, value := range map[string]string{
		"LISTEN": "127.0.0.1:0", "STATUS_LISTEN": "127.0.0.1:0", "STATE_DIR": filepath.Join(home, "state"),
		"GITEA_URL": d.bed.Gitea.URL(), "GITEA_TOKEN": d.bot.Token, "HOOK_SECRETS": rand.Text() + rand.Text(),
		"DRONE_URL": d.bed.Drone.URL(), "DRONE_TOKEN": token, "CI_REPO": d.ci.Slug(), "REPOS": d.recipe.Slug(),
		// On a host only `register` would get the administrator's token, and QUIET would stay as it is.
		"ADMIN_TOKEN": d.maintainer.Token, "QUIET": "0s", // the contributor's push is seconds old here
	} {
		env = append(env, "CC_CI_BRIDGE_"+name+"="+value)
	}
	cmd := exec.Command(program)
	cmd.Env, cmd.Dir = env, home
	running, err := startChild(cmd, filepath.Join(home, "log"))
	if err != nil {
		return fmt.Errorf("start the bridge: %w", err)
	}
	d.bridge = &bridge{child: running}
	up, err := running.await(ctx, upPattern)
	if err != nil {
		return fmt.Errorf("start the bridge: %w", err)
	}
	d.bridge.status = "http://" + up[2]
	// The address to register is the one that the kernel chose, so the daemon had to come first.
	register := exec.CommandContext(ctx, program, "register")
	register.Env = append(env, "CC_CI_BRIDGE_HOOK_URL=http://"+up[1]+"/hook")
	if out, err := register.CombinedOutput(); err != nil {
		return fmt.Errorf("register the bridge's hook: %w: %s", err, out)
	}
	return d.bridge.ready(ctx)
}

// ready waits until the bridge has heard from Gitea: before that a comment would wait, too, but the reader would not
// know what for.
func (b *bridge) ready(ctx context.Context) error {
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.status+"/readyz", nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil && response.Body.Close() == nil && response.StatusCode == http.StatusOK {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-b.done:
			return fmt.Errorf("the bridge ended: %w; its log is %s", b.err, b.log)
		case <-ctx.Done():
			return fmt.Errorf("wait for the bridge: %w", context.Cause(ctx))
		}
	}
}
