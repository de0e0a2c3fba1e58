package bridge

import (
	"fmt"
	"strings"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// Everything that people read is written here. No comment's text is ever repeated; names that come from outside
// go through code.

// helpText is Markdown, like every text here; docs/bridge.md has the same list.
const helpText = "Commands, each alone in a comment on an open pull request:\n\n" +
	"- `!testme` runs the tests on the commit that is the head right now\n" +
	"- `!testme <commit>` runs them on that commit of the pull request (7 to 64 hex digits)\n" +
	"- `!testme <recipe> [<commit>]` picks the recipe where the repository holds several\n" +
	"- `!retest [<recipe>]` runs what failed last again, on the present head\n" +
	"- `!cancel` ends every run of this pull request\n" +
	"- `!testme ?` shows this"

// text is the line that a comment consists of. Different ways to space the same words are the same command, so a
// comment is compared in this form.
func text(body string) string { return strings.Join(strings.Fields(body), " ") }

// short is a commit's hash as people write it.
func short(sha string) string { return sha[:min(len(sha), 10)] }

// code puts foreign text into an inline code span: printable ASCII without backticks, at most limit bytes. Inside
// a span neither markup, nor links, nor mentions are live.
func code(s string, limit int) string { return "`" + plain(s, limit) + "`" }

// plain keeps printable ASCII without backticks, on one line.
func plain(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '`' {
			return '_'
		}
		return r
	}, strings.TrimSpace(s))
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	if s == "" {
		return "-" // an empty code span would show its backticks
	}
	return s
}

// marker is the invisible last line by which the bot finds its own comment again. Gitea drops HTML comments when it
// shows the text, and keeps them in the source.
func marker(name string) string { return "<!-- cc-ci:" + name + " -->" }

// subject says which recipe at which commit.
func subject(r *journal.Request) string {
	return fmt.Sprintf("%s at %s", code(r.Recipe, 64), code(short(r.SHA), 40))
}

// movedText says that the branch has moved, if it has and the author may not know.
func movedText(r *journal.Request) string {
	if r.Newer == "" || r.Named {
		return ""
	}
	return fmt.Sprintf("\n\nThe branch moved to %s after the comment; this run is about %s only.",
		code(short(r.Newer), 40), code(short(r.SHA), 40))
}

// queuedText is the comment of a run that has no build yet.
func queuedText(r *journal.Request) string {
	return fmt.Sprintf("⏳ %s: queued.%s", subject(r), movedText(r))
}

// runningText is the comment of a run whose build has begun.
func runningText(r *journal.Request, link string) string {
	return fmt.Sprintf("🔄 %s: running, see [build %d](%s).%s", subject(r), r.Build, link, movedText(r))
}

// resultText is a finished run's comment. A run that ended before there was a build has neither a link nor a duration.
func resultText(r *journal.Request, o *journal.Outcome, link string) string {
	icon := "❌"
	switch o.Status {
	case statusSuccess:
		icon = "✅"
	case statusKilled:
		icon = "⏹"
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s: **%s**", icon, subject(r), o.Status)
	if o.Duration > 0 {
		fmt.Fprintf(&s, " after %s", o.Duration.Round(time.Second))
	}
	if o.Step != "" {
		fmt.Fprintf(&s, " in step %s", code(o.Step, 100))
	}
	if r.Build != 0 {
		fmt.Fprintf(&s, ", see [build %d](%s)", r.Build, link)
	}
	s.WriteString(".")
	if o.Text != "" {
		fmt.Fprintf(&s, "\n\n%s", sentence(o.Text))
	}
	s.WriteString(movedText(r))
	return s.String()
}

// sentence begins with a capital and ends with a stop. Its text is one of the bridge's own, ASCII and not empty.
func sentence(s string) string {
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

// describe is a commit status's description, at most 140 bytes. Gitea shows it as plain text, so foreign words need no
// code span.
func describe(o *journal.Outcome) string {
	s := o.Status
	if o.Step != "" {
		s += " in " + plain(o.Step, 60)
	}
	if o.Duration > 0 {
		s += " after " + o.Duration.Round(time.Second).String()
	}
	return s
}
