package engine

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// dockerSocket is where tools that ignore DOCKER_HOST look.
const dockerSocket = "/run/docker.sock"

// users is a range of users that exist nowhere.
const users = "61300-61309"

// hostSocket makes sure that there is something where tools look for Docker's socket, for the build's to be bound over.
func hostSocket(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(dockerSocket, os.O_CREATE|os.O_EXCL, 0o600)
	if os.IsExist(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dockerSocket); err != nil {
			t.Error(err)
		}
	})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// runStep runs a build's only step and returns its output; the step must succeed.
func runStep(t *testing.T, e *Engine, spec *Spec) string {
	t.Helper()
	setUp(t, e, spec)
	var out buffer
	state, err := e.Run(t.Context(), spec, spec.Steps[0], &out)
	if err != nil || state.ExitCode != 0 {
		t.Fatalf("the step ended with %+v, %v:\n%s", state, err, out.String())
	}
	return out.String()
}

// A step that is not root uses Docker by both ways to the socket, mounts its workspace, and does not become root by
// what a container, where it is root, leaves there.
func TestStepsOfAnotherUserUseDocker(t *testing.T) {
	daemon := docker.Need(t)
	hostSocket(t)
	e := withDockerAs(t, users, daemon)
	spec := newSpec(e, 3, `
		[ "$(id -u)" -ge 61300 ] && [ "$(id -G)" = "$(id -g)" ]
		docker run --name by-variable --volume "$PWD:/w" `+swarmtest.Image+` sh -c 'echo seen >/w/file'
		cat file
		env -u DOCKER_HOST docker run --name by-path `+swarmtest.Image+` true
		docker ps -a --format '{{.Names}}'
		cp /usr/bin/id .
		docker run --rm --volume "$PWD:/w" `+swarmtest.Image+` sh -c 'chown 0:0 /w/id && chmod 4755 /w/id'
		[ -u id ] && [ "$(stat -c %u id)" = 0 ] && echo "as root: $(./id -u)"
		ls "$(dirname "${DOCKER_HOST#unix://}")/pins" 2>&1 || true
		docker run --rm --volume /:/host `+swarmtest.Image+` true 2>&1 || true`)
	out := runStep(t, e, spec)
	for _, want := range []string{"seen", "by-variable", "by-path", "as root: 613", "Permission denied", "rule host-mounts:"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the step's output:\n%s", want, out)
		}
	}
	report, err := e.Destroy(t.Context(), spec.Build)
	if err != nil || len(report.Leftovers) != 2 {
		t.Errorf("the report is %+v, %v", report, err)
	}
}

// An app is deployed and removed, or left, the way abra does it, by both ways to the socket.
func TestAppsOfAbra(t *testing.T) {
	daemon := docker.Need(t)
	hostSocket(t)
	ctx := t.Context()
	made, err := daemon.Client.NetworkCreate(ctx, "proxy", client.NetworkCreateOptions{Driver: "overlay", Attachable: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := daemon.Client.NetworkRemove(context.Background(), made.ID, client.NetworkRemoveOptions{}); err != nil {
			t.Error(err)
		}
	})
	const deploy = `
		export ABRA_DIR=$PWD
		abra app new shop.example.org
		abra app secret insert shop.example.org pw v1 s3cret
		abra app deploy shop.example.org -n -C
		until docker service ls --format '{{.Name}} {{.Replicas}}' | grep -q 'shop_example_org_app 1/1'; do sleep 0.2; done
	`
	const undeploy = `
		abra app undeploy shop.example.org -n
		abra app volume remove shop.example.org -f -n
		abra app secret remove shop.example.org --all -n
		while [ -n "$(docker ps -aq)" ]; do sleep 0.2; done`
	// A name becomes a part of a path, and docker takes a comma in that of a compose file for two files.
	for name, c := range map[string]struct {
		way, script string
		left        []string
	}{
		"removed by DOCKER_HOST": {"", deploy + undeploy, nil},
		"removed by the path":    {"1", deploy + undeploy, nil},
		"left by the path": {"1", deploy, []string{"service shop_example_org_app", "service shop_example_org_db",
			"network shop_example_org_internal", "secret shop_example_org_pw_v1", "config shop_example_org_conf_v1", "volume shop_example_org_data"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := withDockerAs(t, users, daemon)
			spec := newSpec(e, 4, c.script)
			spec.Steps[0].Env["ABRA_SOCKET"] = c.way
			spec.Files = recipe(t, spec)
			spec.Steps[0].Env["PATH"] = filepath.Join(spec.Root, "bin") + ":" + os.Getenv("PATH")
			runStep(t, e, spec)
			report, err := e.Destroy(ctx, spec.Build)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.left {
				if !slices.ContainsFunc(report.Lines(), func(l string) bool { return strings.Contains(l, want) }) {
					t.Errorf("the report does not name %s:\n%s", want, strings.Join(report.Lines(), "\n"))
				}
			}
			if c.left == nil && len(report.Leftovers) > 0 {
				t.Errorf("after the app was removed the report still has:\n%s", strings.Join(report.Lines(), "\n"))
			}
			nothingLeft(t, daemon)
		})
	}
}

// recipe is the stand-in for abra and a recipe, as files of the build.
func recipe(t *testing.T, spec *Spec) []*File {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return []byte(strings.ReplaceAll(string(data), "IMAGE", swarmtest.Image))
	}
	dir := filepath.Join(spec.Workspace, "recipes", "custom-html")
	return []*File{
		{Path: filepath.Join(spec.Root, "bin", "abra"), Mode: 0o755, Data: read("abra")},
		{Path: filepath.Join(dir, "compose.yml"), Mode: 0o644, Data: read("recipe/compose.yml")},
		{Path: filepath.Join(dir, "conf"), Mode: 0o644, Data: []byte("conf")},
	}
}

// nothingLeft looks at the daemon for services, secrets, configs and volumes.
func nothingLeft(t *testing.T, daemon *swarmtest.Daemon) {
	t.Helper()
	ctx, c := t.Context(), daemon.Client
	services, err := c.ServiceList(ctx, client.ServiceListOptions{})
	if err != nil || len(services.Items) > 0 {
		t.Errorf("services %v, %v", services.Items, err)
	}
	secrets, err := c.SecretList(ctx, client.SecretListOptions{})
	if err != nil || len(secrets.Items) > 0 {
		t.Errorf("secrets %v, %v", secrets.Items, err)
	}
	configs, err := c.ConfigList(ctx, client.ConfigListOptions{})
	if err != nil || len(configs.Items) > 0 {
		t.Errorf("configs %v, %v", configs.Items, err)
	}
	volumes, err := c.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil || len(volumes.Items) > 0 {
		t.Errorf("volumes %v, %v", volumes.Items, err)
	}
}
