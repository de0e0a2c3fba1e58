package compiler

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

// tokenPassword is what stands for a password where the login is the token: Drone's server writes it so for GitHub and
// Gitea (service/netrc), after what GitHub once documented for HTTPS.
const tokenPassword = "x-oauth-basic"

// loginIsToken says that the login beside such a password is what must not be known.
func loginIsToken(password string) bool { return password == tokenPassword || password == "" }

// credentials checks the clone's credentials and keeps them out of the logs.
func (c *compilation) credentials() error {
	c.mask(remoteSecret(remote(c.in.Repo)))
	netrc := c.in.Netrc
	if netrc == nil || netrc.Machine == "" {
		return nil
	}
	for _, word := range []string{netrc.Machine, netrc.Login, netrc.Password} {
		if strings.ContainsFunc(word, func(r rune) bool { return unicode.IsSpace(r) || isControl(r) }) {
			return fmt.Errorf("clone: the credentials for %q hold a space, which a netrc file cannot", netrc.Machine)
		}
	}
	// On GitHub and Gitea the server sends the user's token as the login.
	if loginIsToken(netrc.Password) {
		c.mask(netrc.Login)
	} else {
		c.mask(netrc.Password)
	}
	switch {
	case c.in.Options.NetrcAllSteps:
		c.spec.Files = append(c.spec.Files, c.netrcFile())
	case c.pipeline.Clone.Disable:
		c.spec.Warnings = append(c.spec.Warnings, "the git credentials are given to the automatic clone only, and it is "+
			"disabled here: the runner's DRONE_NETRC_CLONE_ONLY=false gives them to every step")
	}
	return nil
}

// mask keeps a value out of every log of the stage.
func (c *compilation) mask(value string) {
	if value != "" {
		c.spec.Mask = append(c.spec.Mask, value)
	}
}

// netrcFile is read by curl inside of git. Its words are checked above: a line end would add an entry. It lies in the
// build's own home, not in that of the steps' user.
func (c *compilation) netrcFile() *engine.File {
	n := c.in.Netrc
	return &engine.File{
		Path: filepath.Join(c.spec.Home, ".netrc"),
		Mode: 0o600,
		Data: fmt.Appendf(nil, "machine %s login %s password %s\n", n.Machine, n.Login, n.Password),
	}
}

// giveNetrc lets the clone step, and no other, see the credentials: they are those of whoever activated the repository,
// and open all of that person's repositories. The old runner left them to every step, those of a fork's pull request too.
func (c *compilation) giveNetrc(clone *engine.Step) {
	if n := c.in.Netrc; n == nil || n.Machine == "" || c.in.Options.NetrcAllSteps {
		return
	}
	clone.Files = append(clone.Files, c.netrcFile())
	clone.Notes = append(clone.Notes, "the git credentials in ~/.netrc are removed after this step; "+
		"the runner's DRONE_NETRC_CLONE_ONLY=false keeps them for the steps that follow")
}
