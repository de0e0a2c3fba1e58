package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/safehttp"
)

// registerCmd makes the hooks right. It may be run as often as one likes; what is right stays untouched.
type registerCmd struct {
	Rotate bool `help:"Replace right hooks too, so that the first of the configured secrets is used."`
}

// Run registers the hook on every repository or organisation of the allow-list.
func (r registerCmd) Run(std stdio) error {
	cfg, err := settings()
	if err != nil {
		return err
	}
	var f faults
	f.check(cfg.AdminToken != "", "ADMIN_TOKEN", "set it, or its _FILE: hooks take an administrator of the repository")
	f.check(cfg.HookURL != "", "HOOK_URL", "set it to the address under which Gitea reaches the bridge, ending in /hook")
	if len(f) > 0 {
		return errConfig{f[0]}
	}
	admin, err := cfg.admin()
	if err != nil {
		return err
	}
	// One place's trouble ends it: whoever runs it again after mending finds the finished ones unchanged.
	hook := gitea.Hook{URL: cfg.HookURL, Secret: string(cfg.hookSecrets()[0])}
	for _, entry := range cfg.Repos {
		lines, err := admin.Register(entry, hook, r.Rotate)
		for _, line := range lines {
			if _, err := fmt.Fprintln(std.out, line); err != nil {
				return err
			}
		}
		if err != nil {
			return advise(err)
		}
	}
	return nil
}

// advise adds what to do about the refusals that administrators' tokens meet.
func advise(err error) error {
	switch safehttp.Status(err) {
	case http.StatusUnauthorized:
		return fmt.Errorf("%w; set %sADMIN_TOKEN to a token that Gitea knows", err, prefix)
	case http.StatusForbidden:
		return fmt.Errorf("%w; the administrator's token lacks a scope or a right, docs/bridge.md#set-up lists them", err)
	case http.StatusNotFound:
		return fmt.Errorf("%w; mend %sREPOS, or take a token whose account sees it", err, prefix)
	}
	return err
}

// admin is a client with the administrator's token, or the bot's when there is none: with that doctor sees the hooks
// of those repositories that the bot administers.
func (c *config) admin() (*gitea.Client, error) {
	server, err := url.Parse(c.GiteaURL)
	if err != nil {
		return nil, errConfig{err}
	}
	token := c.AdminToken
	if token == "" {
		token = c.GiteaToken
	}
	return gitea.New(server, token, apiTimeout)
}

// doctorCmd looks at everything outside that must be right.
type doctorCmd struct{}

// Run prints what doctor finds.
func (doctorCmd) Run(std stdio) error {
	cfg, err := settings()
	if err != nil {
		return err
	}
	settings, err := cfg.bridge()
	if err != nil {
		return err
	}
	admin, err := cfg.admin()
	if err != nil {
		return err
	}
	return bridge.Doctor(std.out, settings, bridge.HookCheck{Client: admin, URL: cfg.HookURL})
}

// replayCmd posts a saved body. It is for trying a bridge out: the address should be the bridge's own, because
// whoever gets the signed body can use it in turn.
type replayCmd struct {
	File string `arg:"" help:"The body of a hook, as Gitea sent it."`
	URL  string `help:"Where to post it; CC_CI_BRIDGE_HOOK_URL is the default."`
}

// Run signs the body with the first secret, posts it and prints the answer.
func (r replayCmd) Run(ctx context.Context, std stdio) error {
	cfg, err := settings()
	if err != nil {
		return err
	}
	// A saved body is a comment of long ago: the bridge takes it only while it is younger than MAX_AGE, and only once.
	if r.URL == "" {
		r.URL = cfg.HookURL
	}
	if r.URL == "" {
		return errConfig{fmt.Errorf("%sHOOK_URL: set it, or give --url", prefix)}
	}
	if !isServer(r.URL) {
		return errConfig{fmt.Errorf("--url: %q is no http or https address", r.URL)}
	}
	body, err := os.ReadFile(r.File)
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Gitea-Event", "issue_comment")
	req.Header.Set(gitea.SignatureHeader, gitea.Sign(cfg.hookSecrets()[0], body))
	// A redirect is no bridge's answer.
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("post body: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 200)) // the bridge's own answers are a few words
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	answer := fmt.Sprintf("%s: %s", resp.Status, strconv.QuoteToASCII(strings.TrimSpace(string(text))))
	if resp.StatusCode >= 300 {
		return fmt.Errorf("the bridge answered %s", answer)
	}
	_, err = fmt.Fprintln(std.out, answer)
	return err
}
