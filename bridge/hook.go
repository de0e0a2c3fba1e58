package bridge

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/drone"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/gitea"
	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// MaxHook is the longest body of a hook that is read. A command's body has some 16 kB, but Gitea bounds neither
// comments nor descriptions, and a body holds the pull request's description twice. A command under a description
// that is too long gets 413 here and is found by catchUp.
const MaxHook = 1 << 20

// answer is what a hook's sender is told; the text is also the metric's label, so it is one of a fixed set.
type answer struct {
	code int
	text string
}

// The answers that doctor knows the bridge by.
var (
	nothing  = answer{http.StatusOK, "nothing to do"}
	unsigned = answer{http.StatusUnauthorized, "signature does not fit"}
)

// Handler serves POST /hook for Gitea, POST /drone for Drone, and GET /healthz. It may serve before Run is called, and
// after Run has ended. Time and the number of connections are bounded by the server that it is given to.
func (b *Bridge) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hook", b.serve(b.hook))
	mux.HandleFunc("POST /drone", b.serve(b.hint))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n") // a client that is gone needs no answer
	})
	return mux
}

// serve reads the body that the two hooks have in common and writes the answer. Gitea waits five seconds for it
// (DELIVER_TIMEOUT) and handles hooks of one batch one after the other, so a slow answer delays other receivers too.
func (b *Bridge) serve(handle func(http.Header, []byte) answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a, start := answer{}, time.Now()
		body, err := body(w, r)
		switch {
		case errors.Is(err, errType):
			a = answer{http.StatusUnsupportedMediaType, "send application/json"}
		case isTooLong(err):
			a = answer{http.StatusRequestEntityTooLarge, "body is too long"}
		case err != nil:
			a = answer{http.StatusBadRequest, "body is unreadable"}
		default:
			start = time.Now() // a slow sender's time is not ours
			a = handle(r.Header, body)
		}
		b.metrics.hooks.WithLabelValues(a.text).Inc()
		b.metrics.reply.Observe(time.Since(start).Seconds())
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(a.code)
		_, _ = io.WriteString(w, a.text+"\n") // a client that is gone needs no answer
	}
}

// errType stands for bodies that are not said to be JSON, whatever they hold.
var errType = errors.New("not JSON")

// body reads a JSON body of at most MaxHook bytes. Form bodies are refused: Gitea signs their decoded content.
func body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return nil, errType
	}
	// A length that is declared is believed before a byte is read; MaxBytesReader sees to those that lie.
	if r.ContentLength > MaxHook {
		return nil, &http.MaxBytesError{Limit: MaxHook}
	}
	return io.ReadAll(http.MaxBytesReader(w, r.Body, MaxHook))
}

// isTooLong reports whether a body was cut off at MaxHook.
func isTooLong(err error) bool {
	var tooLong *http.MaxBytesError
	return errors.As(err, &tooLong)
}

// hook judges a body from Gitea. Nothing is read from it before its signature fits. What it is about follows from the
// body: a valid body under another event's header would otherwise mean something else.
func (b *Bridge) hook(header http.Header, body []byte) answer {
	if !gitea.Verify(b.Secrets, body, header.Get(gitea.SignatureHeader)) {
		return unsigned
	}
	e, err := gitea.Decode(body)
	if err != nil {
		return answer{http.StatusBadRequest, "body is not a hook"}
	}
	// Gitea calls anything but 2xx a failed delivery and shows it in red to the repository's owner, so what is none of
	// the bridge's business is answered with 200.
	if e.Kind == gitea.Other || !narrows(header) {
		return nothing
	}
	if e.Kind == gitea.Comment {
		return b.comment(e)
	}
	if rule := b.foreign(e); rule != "" {
		return answer{http.StatusOK, rule}
	}
	return b.pullHook(e)
}

// foreign names the rule by which a pull request is none of the bridge's business, or nothing. One hook's secret may
// serve many repositories, so that a body is signed does not mean that its repository is served.
func (b *Bridge) foreign(e gitea.Event) string {
	switch {
	case !b.Allows(e.Repo.Owner, e.Repo.Name):
		return "repository is not on the list"
	case e.Base != 0 && e.Base != e.Repo.ID: // where it is unknown, authorise asks
		return "pull request is for another repository"
	}
	return ""
}

// narrows reports whether the unsigned event header, if there is one, agrees that this may be about a pull
// request. It can only make the bridge do less. A comment on a pull request comes as issue_comment; what comes as
// pull_request_comment is a review.
func narrows(header http.Header) bool {
	switch header.Get("X-Gitea-Event") {
	case "", "issue_comment", "pull_request", "pull_request_sync":
		return true
	}
	return false
}

// comment accepts a command into the journal. Each answer has a text of its own, which Gitea shows to who looks at
// the hook's deliveries: it names no account and no repository. Everything that needs a call, also the answer to the
// author, comes after 202, from the job.
func (b *Bridge) comment(e gitea.Event) answer {
	if _, ok := Parse(e.Note.Body); !ok {
		return answer{http.StatusOK, "not a command"} // most comments: not worth a line in the audit log
	}
	r := request(e.Repo, e.Note)
	r.Push, r.SHA, r.Crowded = e.Push, e.Head, b.crowded()
	if rule := b.refuse(e); rule != "" {
		if err := b.audit.write(&r, "refused", rule); err != nil {
			b.Log.WithError(err).Error("audit log")
			return answer{http.StatusServiceUnavailable, "audit log is not writable"}
		}
		b.metrics.decisions.WithLabelValues("refused", rule).Inc()
		return answer{http.StatusOK, "refused"}
	}
	// The head is missing when Gitea failed to describe the pull request, which it then leaves out of the body.
	if !shaPattern.MatchString(r.SHA) {
		r.SHA = "" // found by API, as for a comment whose hook was lost
	}
	// Gitea sends each hook once, whatever the answer. One that the journal could not take is found again by catchUp.
	fresh, err := b.accept(r)
	if err != nil {
		b.Log.WithError(err).Error("journal")
		return answer{http.StatusServiceUnavailable, "journal is not writable"}
	}
	if !fresh {
		return answer{http.StatusOK, "seen before"}
	}
	return answer{http.StatusAccepted, "accepted"}
}

// refuse names the rule by which a signed command goes no further, or nothing. These authors are not answered: either
// the comment is not theirs, or whoever may write here could make the bot talk about old comments without end.
func (b *Bridge) refuse(e gitea.Event) string {
	self := b.self.Load()
	if rule := b.foreign(e); rule != "" {
		return rule
	}
	switch {
	case e.Sender.ID != e.Note.Author.ID:
		return "sender is not the author"
	case e.Note.Imported:
		return "comment was imported"
	case self != nil && e.Note.Author.ID == self.ID: // before the bot is known, standing asks this
		return "author is the bot"
	case !e.Open:
		return "pull request is closed"
	case time.Since(e.Note.Created) > b.MaxAge:
		return "comment is too old"
	}
	return ""
}

// request is a comment as the journal keeps it. Created is by Gitea's clock, Received by this host's.
func request(repo gitea.Repo, n gitea.Note) journal.Request {
	return journal.Request{
		Key: journal.Key{Repo: repo.ID, Comment: n.ID}, State: journal.Received,
		Owner: repo.Owner, Name: repo.Name, PR: n.PR,
		Author: n.Author.ID, Login: n.Author.Login, Text: text(n.Body),
		Created: n.Created, Received: time.Now(),
	}
}

// pullHook ends the runs that a push or the closing of their pull request makes pointless. If the journal cannot take
// the stops, lookAtPulls makes up for it: Gitea does not send the hook again.
func (b *Bridge) pullHook(e gitea.Event) answer {
	if err := b.pullChanged(e.Repo.ID, e.PR, gitea.Pull{Open: e.Kind != gitea.Closed, Head: e.Head}); err != nil {
		b.Log.WithError(err).Error("journal")
		return answer{http.StatusServiceUnavailable, "journal is not writable"}
	}
	return answer{http.StatusAccepted, "accepted"}
}

// pullChanged stores a stop for each run that the pull request's new state ends. A push ends runs that had begun
// before it; a run that began after it knows it as Newer and goes on, as its author was told. A run whose build is just
// being asked for is not ended by a push: lookAtPulls comes to it once the build is there.
func (b *Bridge) pullChanged(repo, pr int64, now gitea.Pull) error {
	requests, err := b.Journal.Pull(repo, pr)
	if err != nil {
		return err
	}
	for _, r := range requests {
		var stop journal.Stop
		switch {
		case r.State.Final() || r.Outcome != nil || r.Recipe == "": // ended, ending, or not yet known to be a run
			continue
		case !now.Open:
			stop = journal.Stop{Rule: "closed", Text: "the pull request was closed"}
		case r.State == journal.Triggered && now.Head != "" && now.Head != r.SHA && now.Head != r.Newer:
			stop = journal.Stop{Rule: "superseded", Text: fmt.Sprintf("superseded by a push of %s", code(short(now.Head), 40))}
		default:
			continue
		}
		if err := b.end(r.Key, stop); err != nil {
			return err
		}
	}
	return nil
}

// hint judges a body from Drone: it only makes a job look sooner. Drone sends its first hook from within the request
// that creates the build and waits for the answer, so nothing here may wait for a job. It reads no status and never
// repeats.
func (b *Bridge) hint(header http.Header, body []byte) answer {
	if err := drone.Verify(b.DroneSecret, header, body, time.Now()); err != nil {
		return unsigned
	}
	id, err := drone.Hint(body)
	if err != nil {
		return answer{http.StatusBadRequest, "body is not a hook"}
	}
	// Builds of others carry no id, and one of a finished request wakes nobody: both are as good an answer.
	var key journal.Key
	if n, err := fmt.Sscanf(id, "%d-%d", &key.Repo, &key.Comment); n == 2 && err == nil {
		b.nudge(key)
	}
	return answer{http.StatusNoContent, "hint"}
}
