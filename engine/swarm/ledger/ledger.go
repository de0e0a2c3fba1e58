// Package ledger writes down, one line at a time, what a build made on the Docker host.
//
// Labels are the proof of whose an object is. The ledger holds what cannot be labelled (anonymous volumes, pulled
// images, names of images), says which builds had a socket, and survives a crash of the runner. It is not synced to the
// disk line by line: a crash of the host may lose the last lines, and a volume named there is then found by nobody.
//
// engine/swarm opens a build's ledger and removes it when nothing of the build is left; engine/swarm/proxy adds to it.
// The file is lines of JSON, a Header and then Entries, so that jq can read it.
package ledger

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const suffix = ".jsonl"

// maxLine bounds a line, in bytes. Names come from builds, and one that is too long must not make the rest unreadable.
const maxLine = 1 << 20

// Header is a ledger's first line: whose it is.
type Header struct {
	Build   string            `json:"build"`
	Labels  map[string]string `json:"labels,omitempty"`
	Started time.Time         `json:"started"`

	// Keep marks a build whose objects are meant to stay, for the process that recovers a crash.
	Keep bool `json:"keep,omitempty"`
}

// Entry is one object that the build made, or tried to. It is a hint: who removes something looks whose it is first.
type Entry struct {
	// Kind is leftover.Item's word, or one of two that are no objects: `stack` for the name of a stack of which the build
	// made a service, and `node` for the id of one on which a service of the build ran before the build removed it.
	Kind string `json:"kind"`
	Name string `json:"name,omitempty"`
	ID   string `json:"id,omitempty"`

	// Note says what the kind does not: `anonymous` of a volume, `pulled` or `tag` of an image.
	Note string `json:"note,omitempty"`
}

// Ledger is the open ledger of one build. Its methods may be called at the same time.
type Ledger struct {
	mu      sync.Mutex // guards what is written: the file, entries and names
	file    *os.File
	header  Header
	entries map[Entry]bool
	names   map[[2]string]bool // kind and name, kind and id
	torn    bool               // the last line was cut short, by a full disk for one
}

// Open starts the build's ledger, or goes on with the one that is there, whose header then stands. The caller closes it.
// It makes the directory, which only the runner may enter.
func Open(dir string, header Header) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open ledger of %s: %w", header.Build, err)
	}
	old, entries, err := Read(dir, header.Build)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, openErr := os.OpenFile(path(dir, header.Build), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if openErr != nil {
		return nil, fmt.Errorf("open ledger of %s: %w", header.Build, openErr)
	}
	l := &Ledger{file: f, header: header, entries: map[Entry]bool{}, names: map[[2]string]bool{}}
	if err == nil {
		l.header = old
		for _, e := range entries {
			l.remember(e)
		}
		if err := l.mend(); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return l, nil
	}
	if err := l.line(header); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

// Add writes an entry down before it returns. The same entry twice is one line. One that Read could not take is an error.
func (l *Ledger) Add(e Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.entries[e] {
		return nil
	}
	if err := l.line(e); err != nil {
		return err
	}
	l.remember(e)
	return nil
}

// Knows says whether an object of this kind was written down under this name or id.
func (l *Ledger) Knows(kind, ref string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.names[[2]string{kind, ref}]
}

// Header is the ledger's first line.
func (l *Ledger) Header() Header { return l.header }

// Close closes the file; it stays on the disk until Remove.
func (l *Ledger) Close() error { return l.file.Close() }

func (l *Ledger) remember(e Entry) {
	l.entries[e] = true
	for _, ref := range []string{e.Name, e.ID} {
		if ref != "" {
			l.names[[2]string{e.Kind, ref}] = true
		}
	}
}

// line appends one line with one write, so that a crash leaves whole lines.
func (l *Ledger) line(v any) error {
	b, err := json.Marshal(v)
	if err == nil && len(b) >= maxLine {
		err = errors.New("the line is too long")
	}
	if err == nil && l.torn { // or this line would be a part of that one, and as unreadable
		err = l.mend()
	}
	if err == nil {
		_, err = l.file.Write(append(b, '\n'))
		l.torn = err != nil
	}
	if err != nil {
		return fmt.Errorf("write ledger of %s: %w", l.header.Build, err)
	}
	return nil
}

// mend ends a last line that was cut short, so that the next one is whole.
func (l *Ledger) mend() error {
	info, err := l.file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	last := make([]byte, 1)
	if _, err := l.file.ReadAt(last, info.Size()-1); err != nil || last[0] == '\n' {
		return err
	}
	_, err = l.file.Write([]byte{'\n'})
	return err
}

// Read returns what a build's ledger holds; the error is fs.ErrNotExist when it has none. A last line that a crash
// cut short is passed over: the object it would have named carries the label.
func Read(dir, build string) (Header, []Entry, error) {
	f, err := os.Open(path(dir, build))
	if err != nil {
		return Header{}, nil, fmt.Errorf("read ledger of %s: %w", build, err)
	}
	header := Header{Build: build}
	var entries []Entry
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	for first := true; lines.Scan(); first = false {
		var e Entry
		switch {
		case first:
			_ = json.Unmarshal(lines.Bytes(), &header) // cut short too: the name is known, the rest helps only people
		case json.Unmarshal(lines.Bytes(), &e) == nil:
			entries = append(entries, e)
		}
	}
	if err := errors.Join(lines.Err(), f.Close()); err != nil {
		return header, entries, fmt.Errorf("read ledger of %s: %w", build, err)
	}
	header.Build = build
	return header, entries, nil
}

// Builds names the builds that have a ledger; without a directory, none.
func Builds(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		return nil, fmt.Errorf("list ledgers: %w", err)
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), suffix)
	}
	return files, nil
}

// Remove deletes a build's ledger; to delete none is no error.
func Remove(dir, build string) error {
	if err := os.Remove(path(dir, build)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove ledger of %s: %w", build, err)
	}
	return nil
}

// path is where a build's ledger lies; a name is never a path.
func path(dir, build string) string {
	return filepath.Join(dir, strings.ReplaceAll(build, "/", "_")+suffix)
}
