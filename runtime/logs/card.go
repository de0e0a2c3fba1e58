package logs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/drone/drone-go/drone"
)

// maxCard bounds a card's file, in bytes. Cards are a few hundred bytes; the server keeps them in its database.
const maxCard = 1 << 20

// ReadCard reads the card that a step wrote to path, the value of DRONE_CARD_PATH, which lies in the workspace. Where
// there is none the error is fs.ErrNotExist. A step can write anything there, and other processes can change it
// meanwhile: only a regular file of bounded size that lies in the workspace, links followed, is read. The workspace is a
// path below root, the build's directory: it is the steps' as well, who may put a link in its place. Secrets in the card
// are masked.
func ReadCard(path, root, workspace string, masker *Masker) (*drone.CardInput, error) {
	data, err := readInside(path, root, workspace)
	if err != nil {
		return nil, fmt.Errorf("read card: %w", err)
	}
	if masker != nil {
		data = []byte(masker.Mask(string(data)))
	}
	card := &drone.CardInput{}
	if err := json.Unmarshal(data, card); err != nil {
		return nil, fmt.Errorf("read card: not the JSON of a card: %w", err)
	}
	if card.Schema == "" || len(card.Data) == 0 || string(card.Data) == "null" {
		return nil, errors.New(`read card: a card has "schema" and "data"`)
	}
	return card, nil
}

// readInside reads a file in a directory below root, without waiting for a pipe and without leaving the directory. os.Root
// resolves each part of the path below the directory's own descriptor, so a link that is exchanged meanwhile leads
// nowhere else; the directory itself is opened in the same way.
func readInside(path, root, dir string) (data []byte, err error) {
	name := path // os.Root takes relative names only, and refuses those that lead out
	if filepath.IsAbs(path) {
		if name, err = filepath.Rel(dir, path); err != nil {
			return nil, err
		}
	}
	inside, err := openBelow(root, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, inside.Close()) }()
	// Opening a pipe without O_NONBLOCK would wait for a writer that never comes.
	file, err := inside.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	if data, err = io.ReadAll(io.LimitReader(file, maxCard+1)); err != nil {
		return nil, err
	}
	if len(data) > maxCard {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxCard)
	}
	return data, nil
}

// openBelow opens a directory below root. Root's own path is trusted.
func openBelow(root, dir string) (*os.Root, error) {
	name, err := filepath.Rel(root, dir)
	if err != nil {
		return nil, err
	}
	outer, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	inner, err := outer.OpenRoot(name)
	return inner, errors.Join(err, outer.Close())
}
