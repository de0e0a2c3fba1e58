package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"
)

// crashed runs a runner whose step prints without end until its spool has a tail, kills it, and returns its spool.
func crashed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s := newServer(t)
	s.fail("batch", 503)
	runner := exec.Command(os.Args[0])
	runner.Env = append(os.Environ(), roleEnv+"=runner", sizeEnv+"=100000000000", serverEnv+"="+s.URL, dirEnv+"="+dir)
	runner.Stderr = os.Stderr
	stdout, err := runner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := runner.Start(); err != nil {
		t.Fatal(err)
	}
	at := place{dir, 7}
	deadline := time.Now().Add(time.Minute)
	for {
		segments, err := at.segments()
		if err != nil {
			t.Fatal(err)
		}
		if len(segments) > 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("only segments %v after a minute", segments)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := runner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = stdout.Close()
	_ = runner.Wait() // it was killed
	return dir
}

// TestResumeAfterKill: the next process uploads what a killed one left, in order, with what was cut said, and the step
// that outlived it cannot be confused with it.
func TestResumeAfterKill(t *testing.T) {
	t.Parallel()
	dir, s := crashed(t), newServer(t)
	if err := Resume(context.Background(), dir, s); err != nil {
		t.Fatal(err)
	}
	lines := s.stored(7)
	if len(lines) == 0 {
		t.Fatal("nothing was uploaded")
	}
	checkCut(t, lines, lines[len(lines)-1].Number+1)
	if got := cost(lines); got > DefaultLimit+300 {
		t.Errorf("%d bytes uploaded", got)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if err := Resume(context.Background(), dir, s); err != nil {
		t.Errorf("resumed again: %v", err)
	}
}

// TestResumeOfTornSpools: whatever the last bytes on disk are, every whole line before them is uploaded.
func TestResumeOfTornSpools(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, Config{Dir: dir, Sink: newServer(t)})
	write(t, l, "one\ntwo + 2\n"+strings.Repeat("x", maxLine+5)+"\nlast\n")
	if !l.end() {
		t.Fatal("the log was closed before")
	}
	<-l.done
	whole, err := os.ReadFile(place{dir, 7}.path(0))
	if err != nil {
		t.Fatal(err)
	}
	header := bytes.IndexByte(whole, '\n') + 1
	for _, tail := range []string{"", "\x00\x00\x00\x00", "5 0 torn\x00", "nonsense\n", "5\n", " \n"} {
		for _, size := range []int{0, header - 2, header, header + 3, header + 10, len(whole) - 3, len(whole)} {
			torn := t.TempDir()
			if err := os.WriteFile(place{torn, 7}.path(0), append(slices.Clone(whole[:size]), tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			s := newServer(t)
			if err := Resume(context.Background(), torn, s); err != nil {
				t.Errorf("cut at %d, then %q: %v", size, tail, err)
			}
			want := bytes.Count(whole[min(header, size):size], []byte("\n"))
			if got := len(s.stored(7)); got != want && size == len(whole) || got < want-1 {
				t.Errorf("cut at %d, then %q: %d lines, want %d", size, tail, got, want)
			}
		}
	}
}

// TestResumeKeepsWhatTheServerRefuses and does not hold up the rest.
func TestResumeKeepsWhatTheServerRefuses(t *testing.T) {
	t.Parallel()
	dir, away, s := t.TempDir(), newServer(t), newServer(t)
	away.fail("upload", 502)
	for step := range int64(3) {
		l := open(t, Config{Dir: dir, StepID: 10 + step, Sink: away})
		write(t, l, fmt.Sprintf("step %d\n", step))
		if err := l.Close(context.Background()); err == nil {
			t.Fatal("the upload to a broken server succeeded")
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.uploads[11] = nil
	s.uploads[10] = []*drone.Line{{}} // refused: it is there already
	s.mu.Unlock()
	if err := Resume(context.Background(), dir, s); err == nil {
		t.Error("what the server refused is no error")
	}
	if left, err := listSpools(dir); err != nil || !slices.Equal(left, []int64{10}) {
		t.Errorf("left %v, %v", left, err)
	}
	if got := text(s.stored(11)) + text(s.stored(12)); got != "step 1\nstep 2\n" {
		t.Errorf("stored %q", got)
	}
}

// TestResumeOfNothing is no error: a stage may crash before its first step.
func TestResumeOfNothing(t *testing.T) {
	t.Parallel()
	if err := Resume(context.Background(), filepath.Join(t.TempDir(), "none"), newServer(t)); err != nil {
		t.Error(err)
	}
}

// TestOpenAfterCrash: a log that a crash left without a line is begun anew, one with lines is not written over.
func TestOpenAfterCrash(t *testing.T) {
	t.Parallel()
	dir, s := t.TempDir(), newServer(t)
	for _, text := range []string{"", "a line\n"} {
		l := open(t, Config{Dir: dir, Sink: s})
		write(t, l, text)
		if !l.end() {
			t.Fatal("the log was closed before")
		}
		<-l.done
	}
	if _, err := Open(t.Context(), Config{Dir: dir, StepID: 7, Sink: s}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a log with a line was opened again: %v", err)
	}
	if err := Resume(t.Context(), dir, s); err != nil || len(s.stored(7)) != 1 {
		t.Errorf("%d lines were stored, %v", len(s.stored(7)), err)
	}
}

// TestNothingOnDiskShowsASecret: the spool is the runner's alone and holds masked bytes only, also while the step runs
// and whatever it prints.
func TestNothingOnDiskShowsASecret(t *testing.T) {
	t.Parallel()
	const canary = "canary-5f2c9d7e"
	dir, s := filepath.Join(t.TempDir(), "spool"), newServer(t)
	s.fail("upload", 500)
	l := open(t, Config{Dir: dir, Sink: s, Masker: NewMasker([]string{canary})})
	l.Note("with %s", canary)
	for i := range len(canary) {
		write(t, l, canary[:i], canary[i:], " "+canary[:i], "\n"+canary[i:]+"\n", canary)
	}
	err := l.Close(context.Background())
	if err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("close: %v", err)
	}
	files := 0
	walk := func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[entry.IsDir()]; info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if entry.IsDir() {
			return nil
		}
		files++
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(canary)) {
			t.Errorf("%s shows the secret", path)
		}
		return err
	}
	if err := filepath.WalkDir(dir, walk); err != nil || files == 0 {
		t.Errorf("%d files, %v", files, err)
	}
	if strings.Contains(text(s.live()), canary) {
		t.Error("the live log shows the secret")
	}
}
