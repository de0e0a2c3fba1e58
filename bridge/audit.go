package bridge

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// audit writes one JSON line for each decision. A crash between the line and the journal repeats the line: a decision
// may be written twice, never not at all. The file is not synced: a power cut may take its last lines, while the
// journal, which is, keeps their outcomes.
type audit struct {
	mu   sync.Mutex
	out  io.Writer
	torn bool // the last write left a part of its line behind
}

// entry is one line of the audit log: enough to say later who had what run and why, without any other file. The text
// is a parsed command, so it holds no secret and no line break.
type entry struct {
	Time     time.Time `json:"time"`
	Decision string    `json:"decision"`
	Rule     string    `json:"rule"`
	User     string    `json:"user"`
	UserID   int64     `json:"user_id"`
	Repo     string    `json:"repo"`
	PR       int64     `json:"pr"`
	Comment  int64     `json:"comment"`
	Text     string    `json:"text"`
	SHA      string    `json:"sha,omitempty"`
	Recipe   string    `json:"recipe,omitempty"`
	Build    int64     `json:"build,omitempty"`
}

// write appends the line for a request. It may be called from several goroutines. Whoever gets an error must not act
// on the decision: what cannot be written down is not done.
func (a *audit) write(r *journal.Request, decision, rule string) error {
	line, err := json.Marshal(entry{
		Time: time.Now().UTC(), Decision: decision, Rule: rule, User: r.Login, UserID: r.Author,
		Repo: r.Owner + "/" + r.Name, PR: r.PR, Comment: r.Comment, Text: r.Text,
		SHA: r.SHA, Recipe: r.Recipe, Build: r.Build,
	})
	if err != nil {
		return fmt.Errorf("encode audit line: %w", err)
	}
	line = append(line, '\n')
	// One Write for each line: no other's comes in between. A disk that fills up may still take a part of it.
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := a.out.Write(line)
	if err != nil {
		a.torn = a.torn || n > 0
		return fmt.Errorf("write audit line: %w", err)
	}
	a.torn = false
	return nil
}
