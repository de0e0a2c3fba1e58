package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/drone/drone-go/drone"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// phase is how far a stage has come. Each phase is on disk before the side effect that it announces.
type phase string

const (
	phaseIntent   phase = "intent"   // Accept is about to be called; the stage may not be ours yet
	phaseAccepted phase = "accepted" // the stage is ours; its steps are not known to the server, as far as we know
	phaseRunning  phase = "running"  // the steps are registered, their ids are known; the host may hold parts of it
	phaseEnded    phase = "ended"    // torn down; Stage and Steps hold what the server is to be told
	phaseLost     phase = "lost"     // the entry was damaged; only the server knows more than the stage's id
)

// entry is one stage in flight, as the journal keeps it. It holds no secret.
type entry struct {
	Phase phase `json:"phase"`

	// Build is the stage's name on this host, Root its directory: what a restart has to remove.
	Build string `json:"build"`
	Root  string `json:"root,omitempty"`

	// Repo is the full name of the repository, for what a person reads.
	Repo string `json:"repo,omitempty"`

	// Offered is the version of the stage when it was offered: a stage that was accepted has one more.
	Offered int64 `json:"offered"`

	// Stage is echoed back to the server with every report; its Version is the last one that an answer gave.
	Stage *drone.Stage `json:"stage"`

	// Over says that the server has the final report of the stage.
	Over bool `json:"over,omitempty"`

	// Since is when the stage was offered, in seconds.
	Since int64 `json:"since"`

	// Cancelled says that the server has cancelled the stage: nothing but `killed` may be sent.
	Cancelled bool `json:"cancelled,omitempty"`

	// Steps are in the order of their numbers; the last one is the teardown.
	Steps []*stepEntry `json:"steps,omitempty"`
}

// stepEntry is one registered step.
type stepEntry struct {
	drone.Step

	// Reported says that the server knows how the step ended, or will never take it.
	Reported bool `json:"reported,omitempty"`
}

// journal is the directory that remembers the stages in flight: one file a stage, replaced as a whole and fsynced at
// each change. A lock keeps a second runner out.
type journal struct {
	dir  string
	lock *os.File
}

// errLocked is why a journal cannot be opened twice.
var errLocked = errors.New("another runner uses this state directory: stop it or give this one a DRONE_RUNNER_STATE of its own")

// openJournal makes the directory, takes its lock and removes what an interrupted write left.
func openJournal(dir string) (*journal, error) {
	for _, d := range []string{dir, filepath.Join(dir, "stages"), filepath.Join(dir, "spool"), filepath.Join(dir, "damaged")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make the state directory: %w", err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the state directory's lock: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errLocked
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), lock.Close())
	}
	j := &journal{dir: dir, lock: lock}
	if err := j.removeHalfWritten(); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

// Close gives the lock back. It says so instead of only closing the file: a process that is being started at this very
// moment has a copy of the file until it runs its program.
func (j *journal) Close() error {
	return errors.Join(unix.Flock(int(j.lock.Fd()), unix.LOCK_UN), j.lock.Close())
}

func (j *journal) stages() string { return filepath.Join(j.dir, "stages") }

func (j *journal) path(stage int64) string {
	return filepath.Join(j.stages(), strconv.FormatInt(stage, 10)+".json")
}

// spool is the directory of a stage's spooled logs.
func (j *journal) spool(stage int64) string {
	return filepath.Join(j.dir, "spool", strconv.FormatInt(stage, 10))
}

func (j *journal) removeHalfWritten() error {
	files, err := filepath.Glob(filepath.Join(j.stages(), "*.tmp"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			return fmt.Errorf("remove a half-written journal file: %w", err)
		}
	}
	return nil
}

// save writes the entry so that after a crash either the old or the new one is there, whole.
func (j *journal) save(e *entry) error {
	data, err := encode(e)
	if err != nil {
		return err
	}
	return j.write(e.Stage.ID, data)
}

func encode(e *entry) ([]byte, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode the journal entry: %w", err)
	}
	return data, nil
}

func (j *journal) write(stage int64, data []byte) error {
	path := j.path(stage)
	if err := writeSynced(path+".tmp", data); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return syncDir(j.stages())
}

// remove forgets the stage: its spooled logs first, so that no file is ever left without an entry that names it.
func (j *journal) remove(stage int64) error {
	if err := os.RemoveAll(j.spool(stage)); err != nil {
		return fmt.Errorf("remove the spooled logs: %w", err)
	}
	if err := os.Remove(j.path(stage)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the journal entry: %w", err)
	}
	return syncDir(j.stages())
}

// damage is a journal file that could not be read and was set aside.
type damage struct {
	stage int64 // from the file's name; 0 if that is no number
	path  string
	err   error
}

// load reads every entry. A file that cannot be read is moved to the directory `damaged` and named, never fatal.
func (j *journal) load() ([]*entry, []damage, error) {
	files, err := os.ReadDir(j.stages())
	if err != nil {
		return nil, nil, fmt.Errorf("read the journal: %w", err)
	}
	var entries []*entry
	var damaged []damage
	for _, f := range files {
		path := filepath.Join(j.stages(), f.Name())
		// A name that is no number gives 0, which no stage has.
		id, _ := strconv.ParseInt(strings.TrimSuffix(f.Name(), ".json"), 10, 64)
		e, err := readEntry(path, id)
		if err == nil {
			entries = append(entries, e)
			continue
		}
		aside := filepath.Join(j.dir, "damaged", f.Name())
		damaged = append(damaged, damage{stage: id, path: aside, err: errors.Join(err, os.Rename(path, aside))})
	}
	return entries, damaged, nil
}

func readEntry(path string, id int64) (*entry, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	e := new(entry)
	if err := json.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("decode the journal entry: %w", err)
	}
	if e.Stage == nil || id == 0 || e.Stage.ID != id || e.Build == "" || e.Phase == "" {
		return nil, errors.New("the journal entry does not describe the stage that its name says")
	}
	for _, s := range e.Steps {
		if s == nil {
			return nil, errors.New("the journal entry has an empty step")
		}
	}
	return e, nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// record is a journal entry that is in use: every change of it is on disk before change returns. Who only reads it does
// not wait for the disk, and changes that come while one is written are written together.
type record struct {
	journal *journal // nil keeps nothing on disk
	log     *logrus.Entry

	mu      sync.Mutex
	entry   *entry
	changes int

	disk    sync.Mutex // taken before mu
	written int        // how many of the changes are on disk
}

// change applies f to the entry and writes it. An error means that the change is made but not on disk.
func (r *record) change(f func(*entry)) error {
	mine := r.apply(f)
	if r.journal == nil {
		return nil
	}
	r.disk.Lock()
	defer r.disk.Unlock()
	if r.written >= mine {
		return nil
	}
	return r.save()
}

// apply makes the change and returns which one it is.
func (r *record) apply(f func(*entry)) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.entry)
	r.changes++
	return r.changes
}

// save writes the entry as it is now. The caller holds disk.
func (r *record) save() error {
	r.mu.Lock()
	now, stage := r.changes, r.entry.Stage.ID
	data, err := encode(r.entry)
	r.mu.Unlock()
	if err == nil {
		err = r.journal.write(stage, data)
	}
	if err == nil {
		r.written = now
	}
	return err
}

// note changes the entry. What cannot be written is said: the stage goes on, but a crash now would forget it.
func (r *record) note(f func(*entry)) {
	if err := r.change(f); err != nil {
		r.log.WithError(err).Error("the journal cannot be written; a crash of the runner now would lose this stage")
	}
}

// read calls f with the entry locked; f must not keep it.
func (r *record) read(f func(*entry)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.entry)
}

// remove forgets the entry.
func (r *record) remove() error {
	r.disk.Lock()
	defer r.disk.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.journal.remove(r.entry.Stage.ID)
}
