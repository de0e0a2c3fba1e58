package bridge

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/drone"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/safehttp"
)

// maxSkew is how far two clocks may differ before comments are judged wrongly: Grace and MaxAge compare Gitea's times
// with this host's, and Grace is 30 seconds by default.
const maxSkew = 30 * time.Second

// knockTime bounds the call to the hook's address.
const knockTime = 10 * time.Second

// doctor prints one line for each thing it looked at: ok, FAIL for what must be mended, note for what cannot be known
// from here or may be meant so. It goes on after a fault, so that one run shows everything.
type doctor struct {
	out  io.Writer
	bad  int
	fail error // of writing
}

// say prints a line; the first that cannot be written is remembered.
func (d *doctor) say(mark, format string, args ...any) {
	if _, err := fmt.Fprintf(d.out, mark+" "+format+"\n", args...); err != nil && d.fail == nil {
		d.fail = err
	}
}

func (d *doctor) ok(format string, args ...any)   { d.say("ok  ", format, args...) }
func (d *doctor) note(format string, args ...any) { d.say("note", format, args...) }
func (d *doctor) bug(format string, args ...any) {
	d.bad++
	d.say("FAIL", format, args...)
}

// HookCheck is how Doctor looks at hooks: with an administrator's client, if there is one.
type HookCheck struct {
	Client *gitea.Client
	URL    string // empty: hooks are not checked
}

// Doctor checks everything that the bridge needs from outside and prints what it finds, with what to do. It
// changes nothing. The error says how many things are wrong.
func Doctor(out io.Writer, cfg Config, hooks HookCheck) error {
	d := &doctor{out: out}
	if d.gitea(&cfg) {
		d.people(&cfg)
		for _, entry := range cfg.Repos {
			d.entry(&cfg, entry, hooks)
		}
	}
	if hooks.URL != "" {
		d.reach(hooks.URL)
		d.knock(&cfg, hooks.URL)
	}
	if access, ok := d.drone(&cfg); ok {
		d.pipeline(&cfg, access)
	}
	if d.fail != nil {
		return d.fail
	}
	if d.bad > 0 {
		return fmt.Errorf("%d problem(s) found", d.bad)
	}
	return nil
}

// gitea asks who the server and the bot are, and reports whether there is a Gitea to ask more of. Foreign words, here
// and below, go through plain: they end up in a terminal.
func (d *doctor) gitea(cfg *Config) bool {
	version, err := cfg.Gitea.Version()
	switch code := safehttp.Status(err); {
	case code == http.StatusUnauthorized:
		d.bug("Gitea refuses the bot's token: make a new one and set GITEA_TOKEN to it")
		return false
	case code == http.StatusNotFound || safehttp.Foreign(err):
		d.bug("what answers at GITEA_URL is not Gitea: %v", err)
		return false
	case err != nil:
		d.bug("Gitea does not answer: %v", err)
		return false
	}
	d.ok("Gitea answers, version %s", plain(version, 40))
	if skew, err := cfg.Gitea.Skew(); err != nil {
		d.bug("Gitea's clock is not known: %v", err)
	} else if skew > maxSkew || skew < -maxSkew {
		d.bug("Gitea's clock is %s ahead of this host's: set both by NTP", skew)
	} else {
		d.ok("clocks agree within %s", maxSkew)
	}
	// The account is what the loop guard rests on: without it the daemon never becomes ready.
	self, err := cfg.Gitea.Self()
	if err != nil {
		d.bug("the token cannot read its own account, it needs the scope read:user: %v", err)
		return true
	}
	d.ok("the bot is %s (id %d)", plain(self.Login, 64), self.ID)
	return true
}

// people looks up who is listed: a misspelt name lets nobody in, and nobody would say so. Teams need a scope and a
// membership that nothing else needs, so a token may be right in everything but this.
func (d *doctor) people(cfg *Config) {
	if cfg.Access != AccessList {
		return
	}
	for _, name := range cfg.Users {
		switch _, err := cfg.Gitea.Account(name); {
		case safehttp.Status(err) == http.StatusNotFound:
			d.bug("there is no account %s: mend USERS", name)
		case err != nil:
			d.bug("listed account: %v", err)
		default:
			d.ok("%s may start runs", name)
		}
	}
	for _, name := range cfg.Teams {
		switch id, err := cfg.Gitea.Team(name); {
		case err != nil:
			d.bug("listed team: the token needs the scope read:organization, and the bot must be in the organisation: %v", err)
		case id == 0:
			d.bug("there is no team %s: mend TEAMS", name)
		default:
			d.ok("members of %s may start runs", name)
		}
	}
}

// entry checks one entry of the allow-list: the bot's rights in each of its repositories, and its hooks. Hooks can be
// read by administrators only, so what the bot's own token is refused is a note and no fault.
func (d *doctor) entry(cfg *Config, entry string, hooks HookCheck) {
	owner, name, full := strings.Cut(entry, "/")
	repos := []gitea.Repo{{Owner: owner, Name: name}}
	if !full {
		var err error
		if repos, err = cfg.Gitea.Repos(owner); err != nil {
			d.bug("%s: the repositories cannot be listed: %v", entry, err)
			return
		}
	}
	for _, r := range repos {
		d.rights(cfg, r)
	}
	if hooks.URL == "" {
		d.note("%s: hooks were not checked, no hook address is configured", entry)
		return
	}
	// The secret cannot be read back from Gitea: a wrong one shows in the bridge's metric of answered hooks.
	places, err := hooks.Client.Drift(entry, gitea.Hook{URL: hooks.URL})
	switch {
	case safehttp.Status(err) == http.StatusForbidden || safehttp.Status(err) == http.StatusNotFound:
		d.note("%s: hooks were not checked, that takes an administrator's token", entry)
		return
	case err != nil:
		d.bug("%s: hooks cannot be read: %v", entry, err)
		return
	}
	// An organisation has one hook for all its repositories, a user one in each.
	for place, drift := range places {
		if len(drift) > 0 {
			d.bug("%s: %s; run register", place, strings.Join(drift, ", "))
			continue
		}
		d.ok("%s: the hook is right", place)
	}
}

// rights checks what the bot may do in a repository. That it is no administrator is a note: the bridge then has other
// ways to learn what authors may, which know less. Missing scopes are looked for in each repository, with calls that
// cannot change anything.
func (d *doctor) rights(cfg *Config, r gitea.Repo) {
	push, admin, err := cfg.Gitea.MayPush(r.Owner, r.Name)
	switch {
	case err != nil:
		d.bug("%s: the bot cannot read the repository: %v", r.FullName(), err)
		return
	case !push:
		d.bug("%s: the bot may not write, so it cannot set commit statuses; make it a collaborator with write", r.FullName())
	default:
		d.ok("%s: the bot may write", r.FullName())
	}
	if push && !admin && cfg.Access == AccessWrite {
		d.note("%s: the bot is no administrator, so authors' rights are confirmed by teams and assignees", r.FullName())
	}
	if why := cfg.Gitea.BlindToTeams(r); why != "" && cfg.Access == AccessWrite {
		d.note("%s: who may write only as a member of a team may be refused: %s", r.FullName(), why)
	}
	for _, scope := range cfg.Gitea.MissingScopes(r) {
		d.bug("%s: the token lacks the scope %s", r.FullName(), scope)
	}
}

// reach looks whether Gitea may call the hook's address. It cannot be asked; but by default it calls no private one.
// The name is resolved here, and Gitea may see another address: so this never makes a fault.
func (d *doctor) reach(hook string) {
	u, err := url.Parse(hook)
	if err != nil {
		d.bug("the hook's address is none: %v", err)
		return
	}
	addresses, err := net.LookupIP(u.Hostname())
	if err != nil {
		d.note("the hook's host %s has no address here: %v", plain(u.Hostname(), 100), err)
		return
	}
	for _, ip := range addresses {
		if ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() {
			d.note("the hook's address %s is private: Gitea calls it only if ALLOWED_HOST_LIST allows that ([webhook] in app.ini, [security] from 1.27)", ip)
			return
		}
	}
	d.ok("the hook's host has a public address, which Gitea calls by default")
}

// knock posts a signed body that asks for nothing to the hook's address, as Gitea would. Only the bridge knows what to
// answer, and only one with the same secret does.
func (d *doctor) knock(cfg *Config, hook string) {
	body := []byte("{}")
	req, err := http.NewRequest(http.MethodPost, hook, bytes.NewReader(body))
	if err != nil {
		d.bug("the hook's address is none: %v", err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(gitea.SignatureHeader, gitea.Sign(cfg.Secrets[0], body))
	client := &http.Client{Timeout: knockTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		d.note("nobody answers at the hook's address from here; is the bridge running? %v", err)
		return
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 100))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		d.note("the answer from the hook's address cannot be read: %v", err)
		return
	}
	switch answer := strings.TrimSpace(string(text)); {
	case resp.StatusCode == nothing.code && answer == nothing.text:
		d.ok("the bridge answers at the hook's address and knows the first secret")
	case resp.StatusCode == unsigned.code && answer == unsigned.text:
		d.bug("the bridge at the hook's address does not know the first of HOOK_SECRETS: restart it with the same settings")
	default:
		d.bug("what answers at the hook's address with status %d is not the bridge: mend HOOK_URL, which ends in /hook, or the proxy before it", resp.StatusCode)
	}
}

// pipeline looks whether there is anything to build. Without the file Drone answers 500 to every demand, after 45
// seconds. Whether the pipeline takes the event custom is not read out of it: that is for Drone to say.
func (d *doctor) pipeline(cfg *Config, at drone.Access) {
	if _, err := cfg.Gitea.Repo(at.Owner, at.Name); err != nil {
		d.note("the CI repository's pipeline was not looked for, the bot cannot read it at Gitea: %v", err)
		return
	}
	found, err := cfg.Gitea.HasFile(at.Owner, at.Name, at.Branch, at.File)
	switch {
	case err != nil:
		d.bug("the CI repository's pipeline cannot be read: %v", err)
	case !found:
		d.bug("the CI repository has no %s on branch %s: there is nothing to build", plain(at.File, 100), plain(at.Branch, 100))
	default:
		d.ok("the CI repository has %s on branch %s; it must accept the event custom", plain(at.File, 100), plain(at.Branch, 100))
	}
}

// drone checks the bot's account there, and reports whether the CI repository may be asked about. Drone answers 404
// for what an account may not see. It learns of rights at Gitea when the account logs in, and asks again for what is
// older than an hour.
func (d *doctor) drone(cfg *Config) (access drone.Access, ok bool) {
	access, err := cfg.Drone.Check()
	code := safehttp.Status(err)
	switch {
	case code == http.StatusUnauthorized:
		d.bug("Drone refuses the bot's token: take it from the bot's account page and set DRONE_TOKEN to it")
	case safehttp.Foreign(err) || (code == http.StatusNotFound && access.Login == ""):
		d.bug("what answers at DRONE_URL is not Drone: %v", err)
	case code == http.StatusNotFound:
		d.bug("Drone: %s does not see the CI repository; mend CI_REPO, or give it write there and let it log in once", plain(access.Login, 64))
	case err != nil:
		d.bug("Drone: %v", err)
	case !access.Active:
		d.bug("Drone: the CI repository is not active; activate it in Drone")
	case !access.Write:
		d.bug("Drone: %s may not start builds of the CI repository; give it write there and let it log in once", plain(access.Login, 64))
	default:
		d.ok("Drone: %s may start builds of the CI repository", plain(access.Login, 64))
		return access, true
	}
	return access, false
}
