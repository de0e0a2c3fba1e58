package runtime

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runner "github.com/drone/runner-go/client"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/client"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// victimEnv makes the test binary a runner on this directory, until it is killed.
const victimEnv = "RUNTIME_TEST_VICTIM"

// victim is a runner in a process of its own. The server's address and secret are in its environment.
func victim(dir string) int {
	logger := logrus.New()
	logger.SetLevel(logrus.DebugLevel)
	log := logrus.NewEntry(logger)
	err := func() error {
		cfg, err := victimConfig(dir, os.Getenv("VICTIM_HOST"), os.Getenv("VICTIM_SECRET"), log)
		if err != nil {
			return err
		}
		r, err := New(cfg)
		if err != nil {
			return err
		}
		r.setTiming(fast())
		if err := r.Recover(context.Background()); err != nil {
			return err
		}
		return r.Run(context.Background())
	}()
	fmt.Println(err)
	return 1
}

func victimConfig(dir, address, secret string, log *logrus.Entry) (Config, error) {
	h, err := newHost(filepath.Join(dir, "host"), "http://"+address+dir, log)
	if err != nil {
		return Config{}, err
	}
	api, err := client.New(client.Config{Proto: "http", Host: address, Secret: secret, Timing: fastClient(), Log: log})
	return Config{
		Server: api, Address: h.address, Engine: h, Prepare: h.prepare, Machine: "tester",
		Filter:   runner.Filter{Kind: "pipeline", Type: "exec", OS: "linux", Arch: goarch()},
		Capacity: 1, State: filepath.Join(dir, "state"), Log: log,
	}, err
}

// startVictim starts a runner that can be killed.
func startVictim(t *testing.T, srv *runtimetest.Server, dir string, log *safeBuffer) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"="+dir, "VICTIM_HOST="+srv.Host, "VICTIM_SECRET="+srv.Secret)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // most have been killed by then
		_ = cmd.Wait()
	})
	return cmd
}

// Killed at any moment and started again, the runner leaves nothing on the host and no stage open on the server, and
// runs no step twice.
func TestKill(t *testing.T) {
	t.Parallel()
	for i := range times(50) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(2, uint64(i)))
			srv := runtimetest.NewServer(t, runtimetest.Poll(3*time.Second))
			dir, marks, log := t.TempDir(), t.TempDir(), &safeBuffer{}
			cmd := startVictim(t, srv, dir, log)
			mark := func(name string) string { return "echo x >>" + filepath.Join(marks, name) + "; sleep 0.2" }
			job := srv.Enqueue(runtimetest.Job{Config: pipeline(t, testStep{Name: "a", Sh: mark("a") + "; sleep 1000 &"},
				testStep{Name: "b", Sh: mark("b")}, testStep{Name: "c", Sh: mark("c")})})
			srv.WaitRequests(runtimetest.Accept, 1)
			time.Sleep(time.Duration(rnd.Int64N(int64(1500 * time.Millisecond))))
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // it was killed

			second := startVictim(t, srv, dir, log)
			stage := srv.WaitDone(job.Stage)
			if stage.Status != "success" && stage.Error != restartedText {
				t.Errorf("the stage is %s: %q", stage.Status, stage.Error)
			}
			h := &host{dir: filepath.Join(dir, "host")}
			eventually(t, "host and journal are empty", func() bool {
				files, err := os.ReadDir(filepath.Join(dir, "state", "stages"))
				return err == nil && len(files) == 0 && len(h.left(t)) == 0
			})
			for _, s := range srv.Stage(job.Stage).Steps {
				if s.Status == "running" || s.Status == "pending" && s.ID != 0 && !registeredTwice(srv, job.Stage) {
					t.Errorf("step %s is %s", s.Name, s.Status)
				}
			}
			for _, name := range []string{"a", "b", "c"} {
				data, err := os.ReadFile(filepath.Join(marks, name))
				if err == nil && string(data) != "x\n" {
					t.Errorf("step %s ran %d times", name, strings.Count(string(data), "x"))
				}
			}
			// The runner that took over works.
			next := srv.Enqueue(runtimetest.Job{Config: pipeline(t, testStep{Name: "a", Sh: "true"})})
			if stage := srv.WaitDone(next.Stage); stage.Status != "success" {
				t.Errorf("the next stage is %s: %q", stage.Status, stage.Error)
			}
			_ = second
			if t.Failed() {
				t.Logf("the runners said:\n%s", log)
			}
		})
	}
}

// registeredTwice tells whether the runner was killed between the registration of the steps and the note of their
// ids, which nobody can ask for: then the steps stay pending in a stage that has ended.
func registeredTwice(srv *runtimetest.Server, stage int64) bool {
	for _, r := range srv.Requests(runtimetest.StepRunning, runtimetest.StepFinal) {
		if r.Step().StageID == stage {
			return false
		}
	}
	return true
}
