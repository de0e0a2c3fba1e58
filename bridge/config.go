package bridge

import (
	"io"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/drone"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// How authors are checked, and what happens when commits came after the comment. A collaborator may be one who only
// reads, and owners and members of teams are none (go-gitea/gitea#30926): that rule is for who had it before.
const (
	AccessWrite        = "write"        // may write the repository's code
	AccessCollaborator = "collaborator" // is listed as a collaborator
	AccessList         = "list"         // is listed by name or in a listed team

	PolicyPinned = "pinned" // run the commit that the comment was about
	PolicyRefuse = "refuse" // run nothing and say so
)

// Config is what a Bridge is made of. Nothing in it has a default: the program's settings do, and tests choose their
// own. It is not checked either: that is done where the settings are read, and must not change while the bridge runs.
type Config struct {
	Gitea    *gitea.Client    // with the bot's token
	Drone    *drone.Client    // with the token of the bot's account there
	Journal  *journal.Journal // closed by whoever opened it, after Run
	Log      *logrus.Entry
	Audit    io.Writer // one JSON line per decision, one Write per line
	Registry prometheus.Registerer

	Secrets     [][]byte // any of them may have signed a hook
	DroneSecret string   // of Drone's webhook; empty switches the hint off

	Repos   []string            // allowed: owner, or owner/name
	Recipes map[string][]string // by full name; a repository without an entry is a recipe of its own name
	Access  string              // one of the Access constants; any other lets nobody in
	Users   []string            // for AccessList
	Teams   []string            // for AccessList, as organisation/team
	Policy  string              // one of the Policy constants

	MaxAge   time.Duration // older comments are answered, not run
	Quiet    time.Duration // a stranger's push this close before a comment asks for the commit by name
	Record   time.Duration // how long after a push Gitea may take to have it on record
	Deadline time.Duration // a run that takes longer is cancelled
	GiveUp   time.Duration // an unreachable server is asked for so long before the author is told
	Settle   time.Duration // how long a build whose reply was lost is looked for before it is asked for again
	Twins    time.Duration // how long after the first demand a second build is looked for, even if the run has ended
	Poll     time.Duration // first interval of asking for a build's state
	PollMax  time.Duration // last interval
	CatchUp  time.Duration // interval of reading comments whose hook was lost
	Grace    time.Duration // younger comments are left to their hook
	Keep     time.Duration // finished requests are kept so long

	Queue      int // requests alive at the same time; more are answered, not run
	UserBurst  int // commands of one user, refilled one a UserEvery
	UserEvery  time.Duration
	PullBurst  int // runs of one pull request, refilled one a PullEvery
	PullEvery  time.Duration
	RepoBurst  int // runs of one repository, refilled one a RepoEvery
	RepoEvery  time.Duration
	RetryFirst time.Duration // first wait after a failed call; it doubles up to RetryMax
	RetryMax   time.Duration
}

// Allows reports whether a repository is on the allow-list. The names come from a signed body or from Gitea. Its
// names do not differ by case, so neither do these.
func (c *Config) Allows(owner, name string) bool {
	return slices.ContainsFunc(c.Repos, func(entry string) bool {
		return strings.EqualFold(entry, owner) || strings.EqualFold(entry, owner+"/"+name)
	})
}

// recipes are the names that may be built for a repository. They come from the configuration alone: a name out of a
// comment or a pull request's tree never reaches the build.
func (c *Config) recipes(owner, name string) []string {
	for full, recipes := range c.Recipes {
		if strings.EqualFold(full, owner+"/"+name) {
			return recipes
		}
	}
	return []string{strings.ToLower(name)}
}
