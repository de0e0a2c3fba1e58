package engine

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// withDocker is an engine whose builds get a Docker socket each, on a real one-node Swarm.
func withDocker(t *testing.T, daemon *swarmtest.Daemon) *Engine {
	t.Helper()
	return withDockerAs(t, "", daemon)
}

// withDockerAs is withDocker with steps that run as other users.
func withDockerAs(t *testing.T, user string, daemon *swarmtest.Daemon) *Engine {
	t.Helper()
	// Steps have a /tmp of their own, so the socket must not lie below it.
	run, err := os.MkdirTemp("/var/tmp", "cc-ci-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(run); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(run, 0o711); err != nil {
		t.Fatal(err)
	}
	return newEngineAs(t, user, func(c *Config) {
		docker, err := swarm.Open(t.Context(), swarm.Config{
			Mode: swarm.ModeProxy, Endpoint: daemon.Host, Policy: proxy.Own, TeardownTimeout: time.Minute,
			Networks: []string{"proxy"}, SocketDir: run, LedgerDir: filepath.Join(t.TempDir(), "ledger"),
			Log: logrus.NewEntry(logrus.New()),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := docker.Close(); err != nil {
				t.Error(err)
			}
		})
		c.Docker, c.HiddenSockets = docker, []string{dockerSocket}
	})
}

// A step talks to Docker by the command that people use; everything it leaves behind is found, named and removed.
func TestDockerObjectsOfABuildAreRemoved(t *testing.T) {
	daemon := docker.Need(t)
	if _, err := exec.LookPath("docker"); err != nil {
		t.Fatal("the docker command is missing: apt-get install docker.io")
	}
	e := withDocker(t, daemon)
	spec := newSpec(e, 1, `
		docker volume create build-data
		printf secret | docker secret create build-secret -
		docker network create --driver overlay build-net
		docker service create --quiet --detach --name build-web --network build-net --mount source=build-data,target=/data `+swarmtest.Image+`
		docker run --detach --name build-run --volume /anonymous `+swarmtest.Image+`
		docker ps --format '{{.Names}}'`)
	setUp(t, e, spec)
	var out buffer
	state, err := e.Run(t.Context(), spec, spec.Steps[0], &out)
	if err != nil || state.ExitCode != 0 {
		t.Fatalf("the step ended with %+v, %v:\n%s", state, err, out.String())
	}
	report, err := e.Destroy(t.Context(), spec.Build)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, item := range report.Leftovers {
		kinds[item.Kind] = true
	}
	for _, kind := range []string{"service", "container", "volume", "network", "secret"} {
		if !kinds[kind] {
			t.Errorf("the report names no %s:\n%s", kind, strings.Join(report.Lines(), "\n"))
		}
	}
	volumes, err := daemon.Client.VolumeList(t.Context(), client.VolumeListOptions{})
	if err != nil || len(volumes.Items) != 0 {
		t.Errorf("volumes are left: %+v, %v", volumes.Items, err)
	}
	services, err := daemon.Client.ServiceList(t.Context(), client.ServiceListOptions{})
	if err != nil || len(services.Items) != 0 {
		t.Errorf("services are left: %+v, %v", services.Items, err)
	}
}

// A build of a repository in DRONE_RUNNER_KEEP deploys for real: what it made is named and stays, also after a sweep.
func TestKeptBuildsKeepTheirDockerObjects(t *testing.T) {
	daemon := docker.Need(t)
	e := withDocker(t, daemon)
	e.config.Keep = func(repo string) bool { return repo == "octo/hello" }
	spec := newSpec(e, 2, "docker volume create kept-data")
	if err := e.Setup(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := daemon.Client.VolumeRemove(context.Background(), "kept-data", client.VolumeRemoveOptions{}); err != nil {
			t.Log(err)
		}
	})
	var out buffer
	if state, err := e.Run(t.Context(), spec, spec.Steps[0], &out); err != nil || state.ExitCode != 0 {
		t.Fatalf("the step ended with %+v, %v:\n%s", state, err, out.String())
	}
	report, err := e.Destroy(t.Context(), spec.Build)
	if err != nil || len(report.Kept) != 1 || report.Kept[0].Name != "kept-data" {
		t.Errorf("the report is %+v, %v", report, err)
	}
	if _, err := e.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	volumes, err := daemon.Client.VolumeList(t.Context(), client.VolumeListOptions{})
	if err != nil || len(volumes.Items) != 1 {
		t.Errorf("the volume is gone: %+v, %v", volumes.Items, err)
	}
}
