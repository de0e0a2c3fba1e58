package testbed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// modulePath is the product's module: its go.mod marks the root of the repository.
const modulePath = "git.autonomic.zone/recipe-maintainers/cc-ci"

// Binaries are the servers' programs, ready to start. They lie in the cache and are shared: nobody may change them.
type Binaries struct {
	Gitea       string // the gitea program
	GiteaStatic string // templates, locales and public files, which Gitea reads at run time
	Drone       string // the drone-server program
}

// recipe says how one wrapper module turns into a directory of the cache. A wrapper module holds no code but the
// versions, replacements and sums with which the server builds: go install PROGRAM@VERSION takes no replacements.
type recipe struct {
	name, pkg string
	flags     []string
	env       []string
	finish    func(ctx context.Context, module, out string) error // what a build adds beside the program; may be nil
}

// giteaRecipe names the version, because the source does not hold it, and clients ask Gitea for it. SQLite wants cgo
// here; Gitea's documentation has it built with the second tag, which lets a connection wait for another's lock.
func giteaRecipe() recipe {
	return recipe{
		name: "gitea", pkg: "code.gitea.io/gitea",
		flags:  []string{"-tags=sqlite sqlite_unlock_notify", "-ldflags=-s -w -X main.Version=1.26.1"},
		finish: copyGiteaStatic,
	}
}

// droneRecipe has no build tags: with Drone's `oss` there is no API for runners (/rpc/v2 answers 404). Without, the
// server is under the Drone Non-Commercial licence, which is why it is built here and never passed on.
func droneRecipe() recipe {
	// The compiler's warnings about SQLite's C code are of no use here.
	return recipe{
		name: "drone", pkg: "github.com/drone/drone/cmd/drone-server",
		flags: []string{"-ldflags=-s -w"}, env: []string{"CGO_CFLAGS=-O2 -w"},
	}
}

// Root returns the repository's root: the nearest directory at or above the working directory that holds the product's
// go.mod. Tests run in their package's directory, so it works from all of them.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		// The name counts: this module has a go.mod, too.
		if err == nil && strings.HasPrefix(string(data), "module "+modulePath+"\n") {
			return dir, nil
		}
		if filepath.Dir(dir) == dir {
			return "", errors.New("the repository was not found: run this inside a clone of cc-ci")
		}
		dir = filepath.Dir(dir)
	}
}

// BuildServers returns the servers' programs and builds those that the cache does not hold, which takes minutes (on
// two cores about six), a network and 3 GB of Go's caches. Progress goes to log. Several processes may call it at
// once: one builds, the others wait for it.
func BuildServers(ctx context.Context, log io.Writer) (Binaries, error) {
	root, err := Root()
	if err != nil {
		return Binaries{}, err
	}
	// git is what Gitea runs and tests push with, gcc compiles SQLite.
	if err := needTools("git", "gcc"); err != nil {
		return Binaries{}, err
	}
	gitea, err := cached(ctx, log, root, giteaRecipe())
	if err != nil {
		return Binaries{}, err
	}
	drone, err := cached(ctx, log, root, droneRecipe())
	if err != nil {
		return Binaries{}, err
	}
	return Binaries{
		Gitea:       filepath.Join(gitea, "gitea"),
		GiteaStatic: filepath.Join(gitea, "static"),
		Drone:       filepath.Join(drone, "drone"),
	}, nil
}

// cached returns the cache directory of a recipe and fills it first when it is missing. A directory that is there is
// whole and never changes, so it is used without the lock. Those of older versions stay: the cache is the user's to
// empty.
func cached(ctx context.Context, log io.Writer, root string, r recipe) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	module := filepath.Join(root, "scripts", "testbed", r.name)
	key, err := r.key(module)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "cc-ci", "testbed", r.name+"-"+key)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	return dir, r.build(ctx, log, module, dir)
}

// key names a build by everything that decides its outcome: the modules' versions, the flags and the toolchain. The
// first 16 hex digits are enough to tell apart what one machine builds.
func (r recipe) key(module string) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", err
		}
		sum.Write(data)
	}
	sum.Write([]byte(fmt.Sprintln(r.pkg, r.flags, r.env, runtime.Version(), runtime.GOARCH)))
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// build compiles into a temporary directory and renames it, so that a cache directory is always whole. The two lie
// beside each other, since a rename does not cross file systems.
func (r recipe) build(ctx context.Context, log io.Writer, module, dir string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+r.name+"-")
	if err != nil {
		return err
	}
	err = phase(ctx, log, r.name+": download and compile (minutes, once)", func() error {
		args := append([]string{"build", "-o", filepath.Join(tmp, r.name)}, r.flags...)
		cmd := exec.CommandContext(ctx, "go", append(args, r.pkg)...)
		cmd.Dir = module
		// The caller's GOFLAGS and workspace are for other modules.
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "CGO_ENABLED=1")
		cmd.Env = append(cmd.Env, r.env...)
		return run(cmd)
	})
	// Whatever fails, what was written so far goes: nobody would look for it.
	if err == nil && r.finish != nil {
		err = r.finish(ctx, module, tmp)
	}
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("build %s: %w", r.name, err), os.RemoveAll(tmp))
	}
	return nil
}

// copyGiteaStatic copies what Gitea reads at run time out of its module, with an empty manifest in place of the
// front end, which is not built: forms, API, webhooks and git over HTTP work without it.
func copyGiteaStatic(ctx context.Context, module, out string) error {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "code.gitea.io/gitea")
	cmd.Dir = module
	listed, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("find gitea's module: %w", err)
	}
	source := strings.TrimSpace(string(listed))
	// A copy, because the module cache may be emptied, and the manifest is put into it.
	static := filepath.Join(out, "static")
	for _, name := range []string{"templates", "options", "public"} {
		if err := copyTree(filepath.Join(source, name), filepath.Join(static, name)); err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
	}
	manifest := filepath.Join(static, "public", "assets", ".vite", "manifest.json")
	if err := os.MkdirAll(filepath.Dir(manifest), 0o755); err != nil {
		return err
	}
	return os.WriteFile(manifest, []byte("{}"), 0o644)
}

// copyTree copies files and makes them writable: modules are read-only, and so could not be removed from the cache.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o644)
	})
}

// lockFile waits for an exclusive lock between processes. The lock goes with the process that holds it, so a killed
// build blocks nobody. It asks again and again, because a flock(2) that waits cannot be ended with a context.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			// Closing the file releases the lock; nothing was written that could be lost.
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return nil, errors.Join(fmt.Errorf("wait for %s: %w", path, err), file.Close())
		}
	}
}
