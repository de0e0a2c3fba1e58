package gitea

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Kind is what a hook's body is about. It follows from the signed body alone; headers are not signed.
type Kind int

// The kinds that concern the bridge.
const (
	Other   Kind = iota // anything else
	Comment             // a comment was created on a pull request
	Push                // commits were pushed to a pull request
	Closed              // a pull request was closed or merged
)

// Repo names a repository.
type Repo struct {
	ID    int64
	Owner string
	Name  string
}

// FullName is owner/name, as in Gitea's addresses.
func (r Repo) FullName() string { return r.Owner + "/" + r.Name }

// User is an account; it is compared by id, because logins can be renamed.
type User struct {
	ID    int64
	Login string
}

// Note is a comment. Created and Updated are Gitea's, in whole seconds; they are equal until it is edited.
type Note struct {
	ID       int64
	Author   User
	Imported bool // written on another forge: its author is not who it says
	PR       int64
	Body     string
	Created  time.Time
	Updated  time.Time
}

// Event is what a hook says, all of it signed. It was true when the comment was written or the push came; hooks may
// come late, twice, or in another order.
type Event struct {
	Kind   Kind
	Repo   Repo
	Sender User
	Push   bool // the sender may push to the repository
	PR     int64
	Open   bool
	Head   string // the head commit at the instant of the event; empty when unknown
	Base   int64  // id of the repository that the pull request is for; 0 when unknown
	Note   Note   // for Comment
}

// payload is what the bridge reads of a body. Everything is a pointer or has a harmless zero: Gitea leaves out what a
// deleted user or fork no longer has, and sends null where a conversion failed.
type payload struct {
	Action  string `json:"action"`
	IsPull  bool   `json:"is_pull"`
	Number  int64  `json:"number"`
	Comment *struct {
		ID             int64     `json:"id"`
		User           *account  `json:"user"`
		OriginalAuthor string    `json:"original_author"`
		Body           string    `json:"body"`
		Created        time.Time `json:"created_at"`
		Updated        time.Time `json:"updated_at"`
	} `json:"comment"`
	Issue *struct {
		Number int64  `json:"number"`
		State  string `json:"state"`
	} `json:"issue"`
	Pull *struct {
		Number int64   `json:"number"`
		State  string  `json:"state"`
		Head   *branch `json:"head"`
		Base   *branch `json:"base"`
	} `json:"pull_request"`
	Repository *struct {
		ID          int64    `json:"id"`
		Name        string   `json:"name"`
		Owner       *account `json:"owner"`
		FullName    string   `json:"full_name"`
		Permissions *struct {
			Push bool `json:"push"`
		} `json:"permissions"`
	} `json:"repository"`
	Sender *account `json:"sender"`
}

// account is a user as bodies hold it. Deleted accounts have a negative id or none.
type account struct {
	ID    int64  `json:"id"`
	Login string `json:"login"`
}

// branch is one end of a pull request. A deleted fork has the id -1, and its head stays known.
type branch struct {
	SHA    string `json:"sha"`
	RepoID int64  `json:"repo_id"`
}

// Decode reads a hook's body. Bodies about other things are no error: their Kind is Other. What a deleted fork or
// a deleted user leaves out is left empty.
func Decode(body []byte) (Event, error) {
	var p payload
	if err := json.Unmarshal(body, &p); err != nil {
		return Event{}, fmt.Errorf("decode hook: %w", err)
	}
	var e Event
	if p.Repository == nil || p.Repository.ID <= 0 || p.Sender == nil || p.Sender.ID <= 0 {
		return e, nil
	}
	// The full name, and not owner and name on their own: one field cannot contradict itself.
	owner, name, ok := strings.Cut(p.Repository.FullName, "/")
	if !ok || owner == "" || name == "" || strings.Contains(name, "/") {
		return e, nil
	}
	e.Repo = Repo{ID: p.Repository.ID, Owner: owner, Name: name}
	e.Sender = User(*p.Sender)
	// In Gitea's hooks these are the rights of the sender, with teams and ownership counted.
	e.Push = p.Repository.Permissions != nil && p.Repository.Permissions.Push
	if p.Pull != nil {
		e.PR, e.Open = p.Pull.Number, p.Pull.State == "open"
		if p.Pull.Head != nil {
			e.Head = p.Pull.Head.SHA
		}
		if p.Pull.Base != nil {
			e.Base = p.Pull.Base.RepoID
		}
	}
	// Reviews come as "reviewed" without a comment, comments on code not at all.
	switch {
	case p.Comment != nil && p.Issue != nil:
		p.comment(&e)
	case p.Comment == nil && p.Pull != nil && p.Action == "synchronized":
		e.Kind = Push
	case p.Comment == nil && p.Pull != nil && p.Action == "closed":
		e.Kind = Closed
	}
	return e, nil
}

// comment fills e from a comment that was just created on a pull request; edits and deletions stay Other.
func (p *payload) comment(e *Event) {
	if p.Action != "created" || !p.IsPull || p.Comment.ID <= 0 || p.Comment.User == nil || p.Issue.Number <= 0 {
		return
	}
	if e.PR != 0 && e.PR != p.Issue.Number {
		return // the body contradicts itself
	}
	e.Kind = Comment
	e.PR, e.Open = p.Issue.Number, p.Issue.State == "open"
	e.Note = Note{
		ID: p.Comment.ID, Author: User(*p.Comment.User), Imported: p.Comment.OriginalAuthor != "",
		PR: p.Issue.Number, Body: p.Comment.Body, Created: p.Comment.Created, Updated: p.Comment.Updated,
	}
}
