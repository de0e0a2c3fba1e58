package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// Mark returns the time up to which a repository's comments were read; zero when never.
func (j *Journal) Mark(repo string) (time.Time, error) {
	var mark time.Time
	err := j.db.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket([]byte(bucketMarks)).Get([]byte(repo))
		if value == nil {
			return nil
		}
		return mark.UnmarshalText(value)
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("read mark of %s: %w", repo, err)
	}
	return mark, nil
}

// SetMark stores the time up to which a repository's comments were read. Repositories are told apart by name here, so
// one that was renamed is read like a new one.
func (j *Journal) SetMark(repo string, mark time.Time) error {
	value, err := mark.MarshalText()
	if err != nil {
		return fmt.Errorf("encode mark of %s: %w", repo, err)
	}
	err = j.update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucketMarks)).Put([]byte(repo), value) })
	if err != nil {
		return fmt.Errorf("store mark of %s: %w", repo, err)
	}
	return nil
}

// Prune forgets final requests received before the given time, with their stops, and returns how many. Their keys stay seen: 24 bytes
// for each comment that was ever a command. Freed pages are used again; the file gets smaller when it is opened next.
func (j *Journal) Prune(before time.Time) (int, error) {
	old, err := j.old(before)
	if err != nil {
		return 0, fmt.Errorf("prune journal: %w", err)
	}
	pruned := 0
	for some := range slices.Chunk(old, maxBatch) {
		err := j.update(func(tx *bbolt.Tx) error {
			for _, k := range some {
				if err := tx.Bucket([]byte(bucketRequests)).Delete(k); err != nil {
					return err
				}
				// A stop that came after the end: the place is repository, pull request and comment, the pair the
				// first and the last.
				if err := tx.Bucket([]byte(bucketStops)).Delete(slices.Concat(k[:8], k[16:])); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return pruned, fmt.Errorf("prune journal: %w", err)
		}
		pruned += len(some)
	}
	return pruned, nil
}

// old returns the places of the requests that Prune forgets. It only reads: the writer, which every hook waits for,
// must not be kept by the whole journal's decoding. What it finds stays true, because a final request never changes.
func (j *Journal) old(before time.Time) ([][]byte, error) {
	var old [][]byte
	err := j.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketRequests)).ForEach(func(k, v []byte) error {
			var r Request
			if err := json.Unmarshal(v, &r); err != nil {
				return nil // an unreadable entry is kept for a person to look at
			}
			if r.State.Final() && r.Received.Before(before) {
				old = append(old, slices.Clone(k)) // k is the store's own memory, for the transaction only
			}
			return nil
		})
	})
	return old, err
}

// compact rewrites a file of which more than half is free, if it has a megabyte at least. It is done before anybody
// uses the journal, and a fault of it keeps the bridge from starting, as any fault of the file does. The rename is
// the only moment that counts: a crash before it leaves the old file, a crash after it the new one.
func compact(path string) error {
	const worthwhile = 1 << 20
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || (err == nil && info.Size() < worthwhile) {
		return nil
	}
	if err != nil {
		return err
	}
	db, err := open(path)
	if err != nil {
		return err
	}
	// bbolt gives freed pages to later writes and never back to the disk, so a pruned journal keeps its largest size.
	free := int64(db.Stats().FreePageN) * int64(db.Info().PageSize)
	if free < info.Size()/2 {
		return db.Close()
	}
	fresh := path + ".compact"
	err = copyTo(db, fresh)
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// copyTo writes what a store holds into a new file.
func copyTo(db *bbolt.DB, path string) error {
	// What a crash left of an earlier try is worth nothing.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	to, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	err = bbolt.Compact(to, db, 1<<16)
	return errors.Join(err, to.Sync(), to.Close())
}

// syncDir puts the names in a directory on disk: without it a power cut may undo the rename, and with it every request
// that was stored in the new file since.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
