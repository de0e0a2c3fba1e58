package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// owner is whom files belong to.
type owner struct{ uid, gid int }

// writeFiles makes each file anew, below root and nowhere else: a step that planted a link in its directories cannot
// make the runner write outside. A file that is there already is an error. A nil owner leaves the files the
// runner's.
func writeFiles(root string, files []*File, to *owner) error {
	return inRoot(root, files, func(dir *os.Root, name string, file *File) error {
		if err := dir.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("write %s: %w", file.Path, err)
		}
		f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(file.Mode))
		if err != nil {
			return fmt.Errorf("write %s: %w", file.Path, err)
		}
		_, err = f.Write(file.Data)
		if to != nil {
			err = errors.Join(err, f.Chown(to.uid, to.gid))
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("write %s: %w", file.Path, err)
		}
		return nil
	})
}

// removeFiles removes the files that are still there.
func removeFiles(root string, files []*File) error {
	return inRoot(root, files, func(dir *os.Root, name string, file *File) error {
		if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s after the step: %w", file.Path, err)
		}
		return nil
	})
}

// inRoot calls do for each file with its name below root, and joins the errors.
func inRoot(root string, files []*File, do func(dir *os.Root, name string, file *File) error) error {
	if len(files) == 0 {
		return nil
	}
	dir, err := os.OpenRoot(root)
	if err != nil {
		return fmt.Errorf("open the build's directory: %w", err)
	}
	var errs []error
	for _, file := range files {
		name, err := filepath.Rel(root, file.Path)
		if err != nil {
			errs = append(errs, fmt.Errorf("find %s below the build's directory: %w", file.Path, err))
			continue
		}
		errs = append(errs, do(dir, name, file))
	}
	return errors.Join(append(errs, dir.Close())...)
}
