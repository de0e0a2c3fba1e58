package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
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

// SetMark stores the time up to which a repository's comments were read.
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

// Marks returns the full names of the repositories that have a mark.
func (j *Journal) Marks() ([]string, error) {
	var names []string
	err := j.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketMarks)).ForEach(func(k, _ []byte) error {
			names = append(names, string(k))
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read marks: %w", err)
	}
	return names, nil
}

// Prune forgets final requests received before the given time and returns how many. Their keys stay seen.
func (j *Journal) Prune(before time.Time) (int, error) {
	pruned := 0
	err := j.update(func(tx *bbolt.Tx) error {
		pruned = 0
		var old [][]byte // deleted afterwards: a bucket must not change under its own iteration
		requests := tx.Bucket([]byte(bucketRequests))
		err := requests.ForEach(func(k, v []byte) error {
			var r Request
			if err := json.Unmarshal(v, &r); err != nil {
				return nil // an unreadable entry is kept for a person to look at
			}
			if r.State.Final() && r.Received.Before(before) {
				old = append(old, append([]byte(nil), k...))
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, k := range old {
			if err := requests.Delete(k); err != nil {
				return err
			}
		}
		pruned = len(old)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("prune journal: %w", err)
	}
	return pruned, nil
}

// compact rewrites a file of which more than half is free. The rename is the only moment that counts: a crash
// before it leaves the old file, a crash after it the new one.
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
