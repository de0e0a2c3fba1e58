package runtime

import (
	"bytes"
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

// phase is how far a stage has come. Each phase is safe on disk before the side effect that it announces. What a
// restart does about each is in Runner.clear and reporter.claim; why the journal is as it is, in
// docs/decisions/0003-journal.md.
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

	// Stage is echoed back to the server with every report, because the server stores what it is sent, down to the
	// labels; its Version is the last one that an answer gave. Its Steps are nil: see Steps below.
	Stage *drone.Stage `json:"stage"`

	// Over says that the server has the final report of the stage.
	Over bool `json:"over,omitempty"`

	// Unsure says that the registration of the steps may still be under way on the server: who sent it was killed, or
	// stopped meanwhile.
	Unsure bool `json:"unsure,omitempty"`

	// Leak is what the host still holds of a stage that is lost, as its error will say it; empty for nothing.
	Leak string `json:"leak,omitempty"`

	// Since is when the stage was offered, in seconds.
	Since int64 `json:"since"`

	// Cancelled says that the server has cancelled the stage: nothing but `killed` may be sent. It never becomes false
	// again.
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

// journal is the directory that remembers the stages in flight: one file a stage, of which each line is the whole entry
// and the last whole line counts. A lock keeps a second runner out.
type journal struct {
	dir  string
	lock *os.File

	mu     sync.Mutex // guards broken
	broken bool       // the last entry could not be written
}

// errLocked is why a journal cannot be opened twice.
var errLocked = errors.New("another runner uses this state directory: stop it or give this one a DRONE_RUNNER_STATE of its own")

// openJournal makes the directory, takes its lock and removes what an interrupted write left.
func openJournal(dir string) (*journal, error) {
	// 0700: an entry names repositories, and a spool holds logs.
	for _, d := range []string{dir, filepath.Join(dir, "stages"), filepath.Join(dir, "spool"), filepath.Join(dir, "damaged")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("make the state directory: %w", err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the state directory's lock: %w", err)
	}
	// The kernel gives the lock back when the process ends, however it ends; a file with a PID in it can be wrong.
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

// removeHalfWritten clears away what a crash during replace left: the file that was to be replaced is still whole.
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

// replace makes the entry the only line of its file. After a crash either the old or the new file is there, whole.
func (j *journal) replace(stage int64, line []byte) error {
	path := j.path(stage)
	// Synced before the rename: a file system may bring the new name to the disk before the data (see fsync(2)).
	err := writeFile(path+".tmp", os.O_CREATE|os.O_TRUNC, line, true)
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err == nil {
		err = syncDir(j.stages())
	}
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// add appends a line. Unless it is synced, it outlives this process but may be lost with the whole machine.
func (j *journal) add(stage int64, line []byte, synced bool) error {
	if err := writeFile(j.path(stage), os.O_APPEND, line, synced); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// unfit says why no stage can be taken: an entry could not be written, and what is tried since then cannot be either.
func (j *journal) unfit() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.broken {
		return ""
	}
	// More than an entry, so that a disk with a last few bytes does not pass. A crash leaves a name that the next start
	// clears away.
	probe := filepath.Join(j.stages(), "probe.tmp")
	err := writeFile(probe, os.O_CREATE|os.O_TRUNC, make([]byte, 64<<10), true)
	if fault := os.Remove(probe); !errors.Is(fault, fs.ErrNotExist) {
		err = errors.Join(err, fault)
	}
	if err != nil {
		return fmt.Sprintf("the journal cannot be written: %v", err)
	}
	j.broken = false
	return ""
}

// breaks notes that an entry could not be written.
func (j *journal) breaks() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.broken = true
}

// encode makes a line of the journal; its end is what tells a whole line from one that a crash has cut.
func encode(e *entry) ([]byte, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode the journal entry: %w", err)
	}
	return append(data, '\n'), nil
}

// remove forgets the stage: its spooled logs first, so that no file is ever left without an entry that names it.
func (j *journal) remove(stage int64) error {
	if err := os.RemoveAll(j.spool(stage)); err != nil {
		return fmt.Errorf("remove the spooled logs: %w", err)
	}
	// Not synced: an entry that comes back with the machine is found to have ended on the server.
	if err := os.Remove(j.path(stage)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the journal entry: %w", err)
	}
	return nil
}

// damage is a journal file that could not be read and was set aside.
type damage struct {
	stage int64 // from the file's name; 0 if that is no number
	path  string
	err   error
}

// load reads every entry. A file that cannot be read is moved to the directory `damaged` and named, never fatal: one
// stage is not worth a runner that does not start.
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

// readEntry reads the last line that is whole: the one after it may be cut, where a crash met the writing of it.
func readEntry(path string, id int64) (*entry, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	var e *entry
	for i := len(lines) - 1; i >= 0; i-- {
		var fault error
		if e, fault = decode(lines[i], id); fault == nil {
			return e, nil
		}
		err = errors.Join(err, fault)
	}
	return nil, err
}

// decode reads a line. What does not describe the stage in full is refused: a restart acts on it.
func decode(line []byte, id int64) (*entry, error) {
	e := new(entry)
	if err := json.Unmarshal(line, e); err != nil {
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

// writeFile writes in one call, so that a line is in the file whole or, after a crash, is its last one and cut.
func writeFile(path string, flags int, data []byte, synced bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && synced {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes a file's name as safe as its content: fsync of a file does not cover the directory that names it.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// record is a journal entry that is in use: every change of it is in its file before the call returns, so that the end
// of this process loses nothing. What must outlive the whole machine is synced. Who only reads the entry does not wait
// for the disk, and changes that come while one is written are written together. It is safe for concurrent use; the
// functions that it is given must not call it again.
type record struct {
	journal *journal // nil keeps nothing on disk
	log     *logrus.Entry

	mu      sync.Mutex
	entry   *entry
	changes int

	disk    sync.Mutex // taken before mu
	written int        // how many of the changes are in the file
	synced  int        // and how many of them are safe
	size    int        // of the file; 0: it is to be replaced
}

// maxJournalFile is the size at which a file is replaced by its last line. An entry is a few KiB, so most stages never
// come there.
const maxJournalFile = 1 << 20

// change applies f to the entry and syncs it. An error means that the change is made but not on disk.
func (r *record) change(f func(*entry)) error { return r.put(f, true) }

// note changes the entry without a sync: after a crash of the machine, an older state of it is enough. An fsync for
// each step's begin, end and report would be much of what the runner adds to the time of a small build.
func (r *record) note(f func(*entry)) { r.complain(r.put(f, false)) }

// keep is change for those who go on whether or not it is on disk.
func (r *record) keep(f func(*entry)) { r.complain(r.put(f, true)) }

// complain says what could not be written: the stage goes on, but a crash now would forget it.
func (r *record) complain(err error) {
	if err != nil {
		r.log.WithError(err).Error("the journal cannot be written; a crash of the runner now would lose this stage")
	}
}

// put applies f and returns when it is written, or safe; another caller may have done that for it meanwhile.
func (r *record) put(f func(*entry), synced bool) error {
	mine := r.apply(f)
	if r.journal == nil {
		return nil
	}
	r.disk.Lock()
	defer r.disk.Unlock()
	if r.synced >= mine || !synced && r.written >= mine {
		return nil
	}
	return r.save(synced)
}

// apply makes the change and returns which one it is.
func (r *record) apply(f func(*entry)) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.entry)
	r.changes++
	return r.changes
}

// save writes the entry as it is now, and with it the changes of all who wait for disk meanwhile. The caller holds
// disk.
func (r *record) save(synced bool) error {
	r.mu.Lock()
	now, stage := r.changes, r.entry.Stage.ID
	line, err := encode(r.entry)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	before := r.size
	r.size = 0 // after an error, half a line may stand at the end of the file
	if before == 0 || before+len(line) > maxJournalFile {
		before, synced = 0, true
		err = r.journal.replace(stage, line)
	} else {
		err = r.journal.add(stage, line, synced)
	}
	if err != nil {
		r.journal.breaks()
		return err
	}
	r.written, r.size = now, before+len(line)
	if synced {
		r.synced = now
	}
	return nil
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
