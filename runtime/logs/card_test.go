package logs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestReadCard reads a card and nothing else, whatever a step puts in its place.
func TestReadCard(t *testing.T) {
	t.Parallel()
	const good = `{"schema":"https://example.com/card.json","data":{"passed":3,"token":"hunter2"}}`
	outside := filepath.Join(t.TempDir(), "outside.json")
	if err := os.WriteFile(outside, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	link := func(target string) func(string) error {
		return func(name string) error { return os.Symlink(target, name) }
	}
	file := func(data string) func(string) error {
		return func(name string) error { return os.WriteFile(name, []byte(data), 0o600) }
	}
	for name, c := range map[string]struct {
		make func(name string) error
		want string // in the error; empty for a card
	}{
		"card": {file(good), ""},
		"link inside": {func(name string) error {
			return errors.Join(file(good)(name+".real"), os.Symlink("card.json.real", name))
		}, ""},
		"none":            {func(string) error { return nil }, "no such file"},
		"link outside":    {link(outside), "escapes"},
		"relative link":   {link("../../../../../../../../../../../etc/passwd"), "escapes"},
		"pipe":            {func(name string) error { return syscall.Mkfifo(name, 0o600) }, "not a regular file"},
		"directory":       {func(name string) error { return os.Mkdir(name, 0o700) }, "not a regular file"},
		"device":          {link("/dev/zero"), "escapes"},
		"too large":       {file(`{"schema":"s","data":"` + strings.Repeat("x", maxCard) + `"}`), "larger than"},
		"not JSON":        {file("schema: x"), "not the JSON of a card"},
		"two values":      {file(good + good), "not the JSON of a card"},
		"without schema":  {file(`{"data":{}}`), `"schema"`},
		"without data":    {file(`{"schema":"s"}`), `"data"`},
		"data is null":    {file(`{"schema":"s","data":null}`), `"data"`},
		"empty":           {file(""), "not the JSON of a card"},
		"of another kind": {file(`[1]`), "not the JSON of a card"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			workspace := t.TempDir()
			path := filepath.Join(workspace, "card.json")
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			card, err := ReadCard(path, filepath.Dir(workspace), workspace, NewMasker([]string{"hunter2"}))
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v, %v, want an error with %q", card, err, c.want)
				}
				if errors.Is(err, fs.ErrNotExist) != (name == "none") {
					t.Errorf("%v is taken for an absent card", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if card.Schema != "https://example.com/card.json" || string(card.Data) != `{"passed":3,"token":"******"}` {
				t.Errorf("got %q, %s", card.Schema, card.Data)
			}
		})
	}
}

// TestReadCardOutsideTheWorkspace: the path itself is not trusted either.
func TestReadCardOutsideTheWorkspace(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	workspace := filepath.Join(parent, "workspace")
	if err := os.Mkdir(workspace, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(parent, "card.json"), []byte(`{"schema":"s","data":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(parent, "card.json"), "../card.json", "/etc/passwd", ""} {
		if card, err := ReadCard(path, parent, workspace, nil); err == nil {
			t.Errorf("%q gave %v", path, card)
		}
	}
}

// TestReadCardInALinkedWorkspace: the directories above the workspace are the steps' own, up to the build's. A link in the
// place of one must not have the runner open a file of the host.
func TestReadCardInALinkedWorkspace(t *testing.T) {
	t.Parallel()
	host := filepath.Join(t.TempDir(), "src")
	if err := errors.Join(os.Mkdir(host, 0o700), os.WriteFile(host+"/card.json", []byte(`{"schema":"s","data":{}}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"drone/src": host, "drone": filepath.Dir(host)} {
		root := t.TempDir()
		path := filepath.Join(root, link)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.Symlink(target, path)); err != nil {
			t.Fatal(err)
		}
		workspace := filepath.Join(root, "drone", "src")
		if card, err := ReadCard(filepath.Join(workspace, "card.json"), root, workspace, nil); err == nil {
			t.Errorf("%s is a link: read %v", link, card)
		}
	}
}
