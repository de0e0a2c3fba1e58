package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/reapertest"
)

func TestWorkspacesConform(t *testing.T) {
	reapertest.Run(t, func(t *testing.T) reapertest.Subject {
		w := &Workspaces{Parent: t.TempDir()}
		return reapertest.Subject{
			Reaper: w,
			Names:  [2]string{BuildName("http://a", 1), BuildName("http://a", 2)},
			Make: func(_ context.Context, build string) error {
				dir := filepath.Join(w.Root(build), "drone", "src")
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return err
				}
				return os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600)
			},
		}
	})
}

// The builds of another user's runner in a shared directory may be running: its locks cannot be seen.
func TestWorkspacesOfOthersAreNotListed(t *testing.T) {
	w := &Workspaces{Parent: t.TempDir(), Owns: func(uid int) bool { return uid == os.Geteuid() }}
	name := BuildName("http://a", 1)
	if err := os.Mkdir(w.Root(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if builds, err := w.Builds(t.Context()); err != nil || len(builds) != 1 {
		t.Errorf("of our own: %v, %v", builds, err)
	}
	w.Owns = func(uid int) bool { return uid != os.Geteuid() }
	if builds, err := w.Builds(t.Context()); err != nil || len(builds) != 0 {
		t.Errorf("of another user: %v, %v", builds, err)
	}
}

// The old runner left such a workspace behind when it was not root: Go's module cache is read-only.
func TestWorkspaceWithReadOnlyDirectoriesIsRemoved(t *testing.T) {
	w := &Workspaces{Parent: t.TempDir()}
	build := BuildName("http://a", 1)
	deep := filepath.Join(w.Root(build), "home", "go", "pkg", "mod")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(deep, "file.go"), nil, 0o400); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{deep, filepath.Dir(deep)} {
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
	}
	if err := makeRemovable(w.Root(build)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(deep)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the mode is %v, want 0700", info.Mode().Perm())
	}
	if _, err := w.Teardown(t.Context(), build); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(w.Root(build)); !os.IsNotExist(err) {
		t.Errorf("the workspace is still there: %v", err)
	}
}

// Whoever still lives in the workspace can put a link in a directory's place at any moment; root must not follow it.
func TestLinksAreNotMadeRemovable(t *testing.T) {
	root, victim := filepath.Join(t.TempDir(), "root"), t.TempDir()
	dir, link := filepath.Join(root, "dir"), filepath.Join(root, "link")
	err := errors.Join(os.MkdirAll(filepath.Join(dir, "below"), 0o755), os.Symlink(victim, link), os.Chmod(victim, 0o711))
	if err != nil {
		t.Fatal(err)
	}
	over, swapped := make(chan struct{}), make(chan error)
	go func() {
		for {
			err := errors.Join(os.Rename(dir, root+"/x"), os.Rename(link, dir), os.Rename(root+"/x", link))
			select {
			case <-over:
				swapped <- err
				return
			default:
			}
			if err != nil {
				swapped <- err
				return
			}
		}
	}()
	for range 3000 {
		if err := makeRemovable(root); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	close(over)
	if err := <-swapped; err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(victim); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("a directory outside of the workspace has the mode %v, %v", info.Mode(), err)
	}
}

// Nothing but builds' directories may ever be taken for one: the parent is often /tmp.
func TestOnlyBuildNamesAreWorkspaces(t *testing.T) {
	w := &Workspaces{Parent: t.TempDir()}
	names := map[string]bool{
		BuildName("https://drone.example.org", 42): true,
		"cc-ci-0123abcd-7":                         true,
		"cc-ci-0123abcx-7":                         false,
		"cc-ci-7":                                  false,
		"cc-ci-backup":                             false,
		"drone-0123456789abcdef":                   false,
		"cc-ci-0123abcd-7.old":                     false,
	}
	for name := range names {
		if err := os.Mkdir(filepath.Join(w.Parent, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	builds, err := w.Builds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, build := range builds {
		found[build] = true
	}
	for name, want := range names {
		if found[name] != want {
			t.Errorf("%s: taken for a build's directory: %v, want %v", name, found[name], want)
		}
	}
}

// A file of the build must not lead the removal out of the workspace.
func TestTeardownDoesNotFollowLinks(t *testing.T) {
	w := &Workspaces{Parent: t.TempDir()}
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.Mkdir(outside, 0o500); err != nil {
		t.Fatal(err)
	}
	build := BuildName("http://a", 1)
	if err := os.Mkdir(w.Root(build), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(w.Root(build), "link")); err != nil {
		t.Fatal(err)
	}
	if err := makeRemovable(w.Root(build)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Teardown(t.Context(), build); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o500 {
		t.Errorf("the directory outside was touched: %v, %v", info, err)
	}
}
