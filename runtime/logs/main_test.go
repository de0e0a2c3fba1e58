package logs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary plays two other processes: a runner with one step, and the step.
const (
	roleEnv   = "CC_CI_LOGS_TEST_ROLE"
	sizeEnv   = "CC_CI_LOGS_TEST_SIZE"
	serverEnv = "CC_CI_LOGS_TEST_SERVER"
	dirEnv    = "CC_CI_LOGS_TEST_DIR"
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(roleEnv) {
	case "runner":
		err = playRunner()
	case "step":
		err = playStep()
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// playStep prints so many bytes of numbered lines.
func playStep() error {
	size, err := strconv.Atoi(os.Getenv(sizeEnv))
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(os.Stdout, 64<<10)
	filler := string(sampleLog(120))
	filler = strings.ReplaceAll(filler, "\n", " ")
	for n, i := 0, 0; n < size; i++ {
		length := 60 + i%60
		written, err := fmt.Fprintf(out, "%d %s\n", i, filler[:length])
		if err != nil {
			return err
		}
		n += written
	}
	return out.Flush()
}

// playRunner logs one step whose output comes through a pipe, and says on stdout how it went.
func playRunner() error {
	ctx := context.Background()
	s := &server{client: newClient()}
	s.url = os.Getenv(serverEnv)
	masker := NewMasker(randomSecrets(20))
	l, err := Open(ctx, Config{Dir: os.Getenv(dirEnv), StepID: 7, Name: "big", Sink: s, Masker: masker})
	if err != nil {
		return err
	}
	step := exec.Command(os.Args[0])
	step.Env = append(os.Environ(), roleEnv+"=step")
	step.Stdout, step.Stderr = l, os.Stderr
	start := time.Now()
	if err := step.Run(); err != nil {
		return err
	}
	took := time.Since(start)
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return err
	}
	fmt.Printf("%d %d\n", took.Milliseconds(), (used.Utime.Nano()+used.Stime.Nano())/1e6)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil { // until the server is back
		return err
	}
	if err := l.Close(ctx); err != nil {
		return err
	}
	peak, err := peakMemory()
	fmt.Println(peak)
	return err
}

// peakMemory is the most that this process had resident, in KiB, without what its parent had before it.
func peakMemory() (int, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	return strconv.Atoi(strings.Fields(rest)[0])
}

// outcome is what a runner says about a step.
type outcome struct {
	milliseconds, cpuMilliseconds, peakKiB int
}

// runOutage lets a step of another process print so many bytes while the server answers nothing, then brings the
// server back and waits for the upload.
func runOutage(t testing.TB, s *server, size int) outcome {
	t.Helper()
	s.fail("batch", 0)
	s.fail("upload", 503)
	runner := exec.Command(os.Args[0])
	runner.Env = append(os.Environ(), roleEnv+"=runner", sizeEnv+"="+strconv.Itoa(size),
		serverEnv+"="+s.URL, dirEnv+"="+t.TempDir())
	runner.Stderr = os.Stderr
	stdin, err := runner.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := runner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := runner.Start(); err != nil {
		t.Fatal(err)
	}
	var o outcome
	if _, err := fmt.Fscan(stdout, &o.milliseconds, &o.cpuMilliseconds); err != nil {
		t.Fatal(err)
	}
	s.heal("batch")
	s.heal("upload")
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscan(stdout, &o.peakKiB); err != nil {
		t.Fatal(err)
	}
	if err := runner.Wait(); err != nil {
		t.Fatal(err)
	}
	return o
}

// full is how often a repeated test runs: a tenth of its count, less under the slow race detector, unless
// CC_CI_TEST_FULL is set.
func full(t testing.TB, count int) int {
	t.Helper()
	switch {
	case os.Getenv("CC_CI_TEST_FULL") != "":
		return count
	case raced:
		return count / 50
	}
	return count / 10
}
