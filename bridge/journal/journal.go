// Package journal keeps the bridge's requests in one crash-safe file. Every write is on disk before its call
// returns; writes that wait for the disk together share one fsync.
//
// A request is one JSON value under repository, pull request and comment, so the requests of a pull request lie side
// by side and in the order of their comments. Beside it stand two things that outlive or precede its writes: that the
// comment was seen, which is never forgotten, and the reason why its run is to stop, which others write while the
// request belongs to its own goroutine.
//
// The store is go.etcd.io/bbolt: a file of pages in which a transaction becomes visible by one page's write, after a
// crash whole or not at all. It locks the file, so a second bridge on the same journal does not start.
//
// request.go says what is kept, this file writes and reads it, upkeep.go keeps the file small. The bridge's own order
// is what makes a crash harmless: it stores that it is about to do something before it does it.
package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// ErrClosed is returned by writes after Close; reads then fail with the store's own error.
var ErrClosed = errors.New("journal is closed")

// The buckets, and what is under which key in them. A bucket is made when it is missing, so a journal of an earlier
// version opens.
const (
	bucketRequests = "requests" // repo, pull request, comment (8 bytes each) -> Request
	bucketSeen     = "seen"     // repo, comment -> pull request; kept for ever, so that no replay is ever fresh
	bucketStops    = "stops"    // repo, comment -> Stop
	bucketMarks    = "marks"    // repository's full name -> time up to which its comments were read

	// maxBatch bounds what one fault of the disk takes with it, and how long the first of a batch waits for the last.
	maxBatch = 256
)

// Journal is the store. Its methods may be called from several goroutines. Writes return when they are on disk, which
// takes an fsync, some milliseconds; reads see what was written before they began.
type Journal struct {
	db     *bbolt.DB
	writes chan write    // has no room: who sends has the writer's ear
	closed chan struct{} // closed by the first Close
	once   sync.Once
	done   sync.WaitGroup // the writer
}

// write is a change on its way to the disk; its caller waits for the result.
type write struct {
	apply  func(*bbolt.Tx) error
	result chan error
}

// Open opens or creates the file at path, compacts it when more than half of it is free, and starts the writer;
// the caller must Close it. The directory must exist. A file that another process has open is waited for: five seconds,
// which is time for a bridge that is just being stopped.
func Open(path string) (*Journal, error) {
	if err := compact(path); err != nil {
		return nil, fmt.Errorf("compact journal: %w", err)
	}
	db, err := open(path)
	if err != nil {
		return nil, err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", path, err), db.Close())
	}
	j := &Journal{db: db, writes: make(chan write), closed: make(chan struct{})}
	j.done.Go(j.commit)
	return j, nil
}

// open opens the store itself, with its buckets.
func open(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 5 * time.Second, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("journal %s belongs to another bridge that runs: end that one, or give this one its own state directory", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{bucketRequests, bucketSeen, bucketStops, bucketMarks} {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare journal: %w", err), db.Close())
	}
	return db, nil
}

// Close waits for the writes under way and closes the file. Writes that come later get ErrClosed.
func (j *Journal) Close() error {
	j.once.Do(func() { close(j.closed) })
	j.done.Wait()
	return j.db.Close()
}

// commit is the only writer: whatever waits when the disk is free goes into the next transaction.
func (j *Journal) commit() {
	for {
		var batch []write
		select {
		case w := <-j.writes:
			batch = append(batch, w)
		case <-j.closed:
			return
		}
		// Nobody is waited for: a lone write goes to the disk at once, and under load the disk's own slowness fills the
		// next batch.
		for more := true; more && len(batch) < maxBatch; {
			select {
			case w := <-j.writes:
				batch = append(batch, w)
			default:
				more = false
			}
		}
		// bbolt syncs the file before Update returns; only then is anybody told.
		err := j.db.Update(func(tx *bbolt.Tx) error {
			for _, w := range batch {
				if err := w.apply(tx); err != nil {
					return err
				}
			}
			return nil
		})
		for _, w := range batch {
			w.result <- err
		}
	}
}

// update runs apply in a transaction and returns once it is on disk. An error of one fails its whole batch, so
// apply returns the disk's errors only.
func (j *Journal) update(apply func(*bbolt.Tx) error) error {
	w := write{apply: apply, result: make(chan error, 1)}
	select {
	case j.writes <- w:
		return <-w.result
	case <-j.closed:
		return ErrClosed
	}
}

// Accept stores a request that was never seen before and reports whether it was fresh. One that is not fresh changes
// nothing, whatever has become of the first.
func (j *Journal) Accept(r Request) (fresh bool, err error) {
	value, err := json.Marshal(r)
	if err != nil {
		return false, fmt.Errorf("encode request %s: %w", r.Key, err)
	}
	// Looking and storing are one transaction: of many replays at once exactly one is fresh.
	err = j.update(func(tx *bbolt.Tx) error {
		seen := tx.Bucket([]byte(bucketSeen))
		if seen.Get(pair(r.Key)) != nil {
			fresh = false
			return nil
		}
		fresh = true
		if err := seen.Put(pair(r.Key), number(r.PR)); err != nil {
			return err
		}
		return tx.Bucket([]byte(bucketRequests)).Put(place(r), value)
	})
	if err != nil {
		return false, fmt.Errorf("store request %s: %w", r.Key, err)
	}
	return fresh, nil
}

// Save stores a request's new state. A final state also forgets its stop. The whole request is replaced, so only one
// goroutine may save it; a final one is never saved again, on which Prune rests.
func (j *Journal) Save(r Request) error {
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode request %s: %w", r.Key, err)
	}
	err = j.update(func(tx *bbolt.Tx) error {
		if r.State.Final() {
			if err := tx.Bucket([]byte(bucketStops)).Delete(pair(r.Key)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte(bucketRequests)).Put(place(r), value)
	})
	if err != nil {
		return fmt.Errorf("store request %s: %w", r.Key, err)
	}
	return nil
}

// Stop stores the reason why a run must end; an earlier reason stays: people are told what ended the run, not what
// would have ended it as well. One that comes after the end does nothing, until Prune forgets it with its request.
func (j *Journal) Stop(key Key, stop Stop) error {
	value, err := json.Marshal(stop)
	if err != nil {
		return fmt.Errorf("encode stop of %s: %w", key, err)
	}
	err = j.update(func(tx *bbolt.Tx) error {
		stops := tx.Bucket([]byte(bucketStops))
		if stops.Get(pair(key)) != nil {
			return nil
		}
		return stops.Put(pair(key), value)
	})
	if err != nil {
		return fmt.Errorf("store stop of %s: %w", key, err)
	}
	return nil
}

// Stopped returns the reason why the run must end, or nil.
func (j *Journal) Stopped(key Key) (*Stop, error) {
	var stop *Stop
	err := j.db.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket([]byte(bucketStops)).Get(pair(key))
		if value == nil {
			return nil
		}
		stop = new(Stop)
		return json.Unmarshal(value, stop)
	})
	if err != nil {
		return nil, fmt.Errorf("read stop of %s: %w", key, err)
	}
	return stop, nil
}

// Seen reports whether the comment was ever accepted.
func (j *Journal) Seen(key Key) (bool, error) {
	seen := false
	err := j.db.View(func(tx *bbolt.Tx) error {
		seen = tx.Bucket([]byte(bucketSeen)).Get(pair(key)) != nil
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("look for request %s: %w", key, err)
	}
	return seen, nil
}

// Live returns every request that is not final, in the order of its comments. It reads the whole journal: it is for a
// start and for what is done every few minutes.
func (j *Journal) Live() ([]Request, error) {
	live, err := j.scan(nil)
	if err != nil {
		return nil, err
	}
	live = slices.DeleteFunc(live, func(r Request) bool { return r.State.Final() })
	slices.SortFunc(live, func(a, b Request) int { return int(a.Comment - b.Comment) })
	return live, nil
}

// Pull returns the requests of one pull request, in the order of their comments.
func (j *Journal) Pull(repo, pr int64) ([]Request, error) {
	return j.scan(append(number(repo), number(pr)...))
}

// scan reads the requests whose place begins with prefix. A value that cannot be read fails it: going on without a
// request could start its build twice.
func (j *Journal) scan(prefix []byte) ([]Request, error) {
	var found []Request
	err := j.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket([]byte(bucketRequests)).Cursor()
		for k, v := c.Seek(prefix); k != nil && len(k) >= len(prefix) && string(k[:len(prefix)]) == string(prefix); k, v = c.Next() {
			var r Request
			if err := json.Unmarshal(v, &r); err != nil {
				return fmt.Errorf("decode request %x: %w", k, err)
			}
			found = append(found, r)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return found, nil
}

// place sorts requests by repository, pull request and comment.
func place(r Request) []byte {
	return slices.Concat(number(r.Repo), number(r.PR), number(r.Comment))
}

// pair is a comment's key where its pull request does not matter.
func pair(k Key) []byte { return slices.Concat(number(k.Repo), number(k.Comment)) }

// number sorts as it counts: big-endian, and ids are never negative.
func number(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
