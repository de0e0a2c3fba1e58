package journal

import (
	"fmt"
	"time"
)

// State is how far a request has come. Its words are in files on disk and must keep their meaning.
type State string

// The states of a request, in order; Reported and Refused are final.
const (
	Received   State = "received"   // signed, fsynced, acknowledged
	Authorised State = "authorised" // the author may, the commit is pinned
	Triggering State = "triggering" // a build may exist at the CI server
	Triggered  State = "triggered"  // the build's number is known
	Reported   State = "reported"   // the result is on the pull request
	Refused    State = "refused"    // no build; the answer, if any, is on the pull request
)

// Final reports whether nothing remains to be done.
func (s State) Final() bool { return s == Reported || s == Refused }

// Key identifies a request for ever: one comment is one request. Both ids are Gitea's and signed; the delivery's own
// id is neither signed nor kept when a hook is sent again.
type Key struct {
	Repo    int64 `json:"repo"`
	Comment int64 `json:"comment"`
}

// String is the key as it appears in markers and as the build's TESTME_ID. What was written with another form would
// not be found again.
func (k Key) String() string { return fmt.Sprintf("%d-%d", k.Repo, k.Comment) }

// Request is one command, from the comment to the answer. Its names in JSON are in files on disk; a field that is new
// is empty in old ones and must mean then what held before. The times are this host's but for Created, which is
// Gitea's.
type Request struct {
	Key
	State State  `json:"state"`
	Owner string `json:"owner"`
	Name  string `json:"name"`
	PR    int64  `json:"pr"`

	Author   int64     `json:"author"` // user id; logins can be renamed
	Login    string    `json:"login"`
	Text     string    `json:"text"` // the whole trimmed comment: one printable ASCII line
	Created  time.Time `json:"created"`
	Received time.Time `json:"received"`
	Push     bool      `json:"push,omitempty"`     // the signed payload says that the author may push
	CatchUp  bool      `json:"catch_up,omitempty"` // found by API: nothing of it is signed
	Crowded  bool      `json:"crowded,omitempty"`  // the queue was full when it came

	Recipe string `json:"recipe,omitempty"`
	SHA    string `json:"sha,omitempty"`   // the pinned commit
	Newer  string `json:"newer,omitempty"` // the head when the commit was pinned, if that was another
	Named  bool   `json:"named,omitempty"` // the author named the commit

	ReplyID int64 `json:"reply_id,omitempty"`
	// ReplyDoubted says that an earlier reply may appear: it was asked for, but not found when this one was made.
	ReplyDoubted bool `json:"reply_doubted,omitempty"`

	Asked   time.Time `json:"asked,omitzero"`  // when the CI server was first asked for a build
	Again   bool      `json:"again,omitempty"` // a build may exist beside the known one: its reply was lost, and it was looked for in vain or not found out
	Build   int64     `json:"build,omitempty"`
	Running bool      `json:"running,omitempty"` // the reply says running

	// Cancels is how many runs a !cancel was about to stop. A repeated try may find them ended, by the first one.
	Cancels int `json:"cancels,omitempty"`

	Outcome *Outcome `json:"outcome,omitempty"`
}

// Outcome is the decision that ends a request; once it is in the journal only its delivery remains. It is never
// replaced by another, so what people were told stays true.
type Outcome struct {
	At       time.Time     `json:"at"`
	Rule     string        `json:"rule"`             // short name of what decided, for the audit log and metrics
	Status   string        `json:"status"`           // success, failure, killed, error, or none for an answer without a run
	Text     string        `json:"text,omitempty"`   // for people; empty means no comment
	Shared   bool          `json:"shared,omitempty"` // the answer goes into the pull request's one notice
	Step     string        `json:"step,omitempty"`   // the first step that failed
	Duration time.Duration `json:"duration,omitempty"`
}

// Stop asks a run to end early; the first reason stays.
type Stop struct {
	Rule string `json:"rule"` // superseded, cancelled or closed
	Text string `json:"text"`
}
