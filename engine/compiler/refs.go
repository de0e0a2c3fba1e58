package compiler

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/drone/drone-go/drone"
)

// remote is where the clone fetches from: HTTP, for which the server sends credentials, before SSH, for which the
// runner's own user must have a key.
func remote(repo *drone.Repo) string {
	if repo.HTTPURL != "" {
		return repo.HTTPURL
	}
	return repo.SSHURL
}

// checkRemote refuses addresses that git could take for an option or hand to a helper program (gitremote-helpers(7)).
func checkRemote(remote string) error {
	switch {
	case remote == "":
		return fmt.Errorf("clone: the repository has no address: give one (--repo-http), or set `clone: {disable: true}`")
	case strings.HasPrefix(remote, "-"), strings.ContainsFunc(remote, isControl), remoteHelper.MatchString(remote):
		return fmt.Errorf("clone: the repository's address %q is refused", remote)
	}
	return nil
}

// remoteHelper is an address that names a program to fetch with, as in `ext::sh -c ...`.
var remoteHelper = regexp.MustCompile(`^[^/\[]*::`)

// remoteSecret is the password or the token inside of an address, which logs must not show.
func remoteSecret(remote string) string {
	u, err := url.Parse(remote)
	if err != nil || u.User == nil {
		return ""
	}
	password, _ := u.User.Password()
	if strings.HasPrefix(u.Scheme, "http") && loginIsToken(password) {
		return u.User.Username()
	}
	return password
}

// commitID are the full and the shortened names of commits, SHA-1 and SHA-256.
var commitID = regexp.MustCompile(`^[0-9a-fA-F]{7,64}$`)

// checkCommit refuses what is no commit's name; an empty one means the tip of what was fetched.
func checkCommit(commit string) error {
	if commit != "" && !commitID.MatchString(commit) {
		return fmt.Errorf("clone: %q is no commit", commit)
	}
	return nil
}

// checkRef applies git's rules for the names of references (git check-ref-format), and refuses a leading dash, so
// that no name can be an option, a pattern or a pair of names. What these rules allow beside that (`;`, `$`, quotes,
// backticks) means nothing without a shell.
func checkRef(kind, name string) error {
	bad := name == "" || name == "@" || strings.HasPrefix(name, "-") || strings.HasSuffix(name, ".") ||
		strings.Contains(name, "..") || strings.Contains(name, "@{") ||
		strings.ContainsAny(name, " ~^:?*[\\") || strings.ContainsFunc(name, isControl)
	for part := range strings.SplitSeq(name, "/") {
		bad = bad || part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock")
	}
	if bad {
		return fmt.Errorf("clone: %q is no valid name of a %s", name, kind)
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
