package gitea

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	sdk "code.gitea.io/sdk/gitea"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/safehttp"
)

// Note reads a comment. Gitea answers 500, for ever, for one whose author's account is gone.
func (c *Client) Note(r Repo, id int64) (Note, error) {
	comment, _, err := c.api.GetIssueComment(r.Owner, r.Name, id)
	if err != nil {
		return Note{}, fmt.Errorf("comment %d: %w", id, err)
	}
	return note(comment), nil
}

// NotesSince lists the comments on a repository's pull requests that were updated since a time, in the order in which
// they were written. Comments on code and reviews are not among them. Of a list that is too long, 10000 comments at a
// server that gives whole pages, it returns the first: then nothing is missing that was last updated before until,
// which is zero otherwise.
func (c *Client) NotesSince(r Repo, since time.Time) (notes []Note, until time.Time, err error) {
	all, err := pages(func(o sdk.ListOptions) ([]*sdk.Comment, *sdk.Response, error) {
		return c.api.ListRepoIssueComments(r.Owner, r.Name, sdk.ListIssueCommentOptions{ListOptions: o, Since: since})
	})
	switch {
	case errors.Is(err, errTooLong) && len(all) > 0:
		// Gitea selects by the time of the update and sorts by that of the creation: what was not read was created
		// after the last that was, and so updated after that too.
		until = all[len(all)-1].Created
	case err != nil:
		return nil, time.Time{}, fmt.Errorf("comments of %s: %w", r.FullName(), err)
	}
	// The list holds the comments of issues too; only those of pull requests have an address of one.
	for _, comment := range all {
		if n := note(comment); n.PR > 0 {
			notes = append(notes, n)
		}
	}
	return notes, until, nil
}

// note translates a comment; a deleted author leaves it without one.
func note(c *sdk.Comment) Note {
	n := Note{ID: c.ID, Body: c.Body, Imported: c.OriginalAuthor != "", Created: c.Created, Updated: c.Updated}
	if c.Poster != nil {
		n.Author = User{ID: c.Poster.ID, Login: c.Poster.UserName}
	}
	if c.PRURL != "" {
		n.PR = number(c.PRURL)
	}
	return n
}

// React adds a reaction to a comment; adding it again changes nothing.
func (c *Client) React(r Repo, comment int64, reaction string) error {
	if _, _, err := c.quick.PostIssueCommentReaction(r.Owner, r.Name, comment, reaction); err != nil {
		return fmt.Errorf("react to comment %d: %w", comment, err)
	}
	return nil
}

// Say adds a comment to a pull request and returns its id. After an error without an answer the comment may exist,
// now or in a moment: look with Find.
func (c *Client) Say(r Repo, pr int64, body string) (int64, error) {
	comment, _, err := c.api.CreateIssueComment(r.Owner, r.Name, pr, sdk.CreateIssueCommentOption{Body: body})
	if err != nil {
		return 0, fmt.Errorf("comment on pull request %d: %w", pr, err)
	}
	return comment.ID, nil
}

// Edit replaces a comment's text. Gitea lets writers edit others' comments, so the caller sees to it that it is the
// bot's.
func (c *Client) Edit(r Repo, comment int64, body string) error {
	if _, _, err := c.api.EditIssueComment(r.Owner, r.Name, comment, sdk.EditIssueCommentOption{Body: body}); err != nil {
		return fmt.Errorf("edit comment %d: %w", comment, err)
	}
	return nil
}

// Delete removes a comment. One that is gone already is no error.
func (c *Client) Delete(r Repo, comment int64) error {
	_, err := c.api.DeleteIssueComment(r.Owner, r.Name, comment)
	if err != nil && safehttp.Status(err) != http.StatusNotFound {
		return fmt.Errorf("delete comment %d: %w", comment, err)
	}
	return nil
}

// Find returns the ids of the account's comments on the pull request that end with the marker, oldest first. The
// account is checked first: anyone can write the marker.
func (c *Client) Find(r Repo, pr int64, author User, marker string) ([]int64, error) {
	// Gitea lists a pull request's comments without paging, however many there are.
	all, err := pages(func(o sdk.ListOptions) ([]*sdk.Comment, *sdk.Response, error) {
		return c.api.ListIssueComments(r.Owner, r.Name, pr, sdk.ListIssueCommentOptions{ListOptions: o})
	})
	if err != nil {
		return nil, fmt.Errorf("comments of pull request %d: %w", pr, err)
	}
	var ids []int64
	for _, comment := range all {
		if comment.Poster != nil && comment.Poster.ID == author.ID && strings.HasSuffix(comment.Body, marker) {
			ids = append(ids, comment.ID)
		}
	}
	return ids, nil
}
