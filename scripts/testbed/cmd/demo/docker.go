package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// docker is a Swarm of one node that belongs to the demo: its daemon has a socket, directories, a network namespace
// and a mount namespace of its own, so that whatever Docker the host has does not notice. It is read past every
// build's socket: what the proof sees must not depend on what is proved. The exported fields are the helper's line of
// JSON.
type docker struct {
	Socket string `json:"socket"`
	Host   string `json:"host"`
	Image  string `json:"image"` // a small image that is there; nothing is pulled

	daemon *child
	client *http.Client
}

// noDocker says why there can be no Docker daemon here, or nothing. It looks at what can be known without trying;
// whether one starts is seen when it does.
func noDocker() string {
	if os.Geteuid() != 0 {
		return "only root can start a Docker daemon"
	}
	var missing []string
	for _, program := range []string{"dockerd", "docker", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		return strings.Join(missing, " and ") + " missing (on Debian: apt-get install docker.io busybox-static)"
	}
	return ""
}

// readyPattern is the line of JSON that the helper writes once its Swarm is ready.
var readyPattern = regexp.MustCompile(`(?m)^\{"socket".*\}$`)

// buildHelper builds the program that runs the daemon, in the directory that is to be its own. It is a program because
// it lives in namespaces that the demo itself does not enter.
func buildHelper(ctx context.Context, dir string) (string, error) {
	root, err := testbed.Root()
	if err != nil {
		return "", err
	}
	home := filepath.Join(dir, "swarm")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return "", err
	}
	program := filepath.Join(home, "swarmtest")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./engine/swarm/swarmtest/cmd/swarmtest")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the Swarm's helper: %w: %s", err, out)
	}
	return program, nil
}

// startDocker starts the helper and waits until the Swarm is ready. Its temporary directory is its own too, so that it
// waits for no other's daemon. It needs root, for the namespaces. The mount namespace is one of Unshareflags, for
// which Go makes all mounts private (syscall's exec_linux.go): what the daemon mounts does not show on the host.
func startDocker(ctx context.Context, program string) (*docker, error) {
	home := filepath.Dir(program)
	cmd := exec.Command(program)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS}
	running, err := startChild(cmd, filepath.Join(home, "log"))
	if err != nil {
		return nil, fmt.Errorf("start the Swarm: %w", err)
	}
	d := &docker{daemon: running}
	if err := d.ready(ctx); err != nil {
		_ = d.daemon.stop() // why it did not get ready is known; that it was interrupted then is no news
		return nil, fmt.Errorf("start the Swarm: %w", err)
	}
	return d, nil
}

// ready reads what the helper tells, and makes the network proxy. Five minutes are for a busy machine; some seconds
// are usual.
func (d *docker) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("it was not ready after five minutes"))
	defer cancel()
	line, err := d.daemon.await(ctx, readyPattern)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(line[0]), d); err != nil {
		return err
	}
	// The host in the addresses (http://docker) is never looked up: every connection goes to the socket.
	d.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", d.Socket)
		},
	}}
	// The network that every recipe shares with the reverse proxy.
	return d.post(ctx, "/networks/create", `{"Name": "proxy", "Driver": "overlay", "Attachable": true, "CheckDuplicate": true}`)
}

// get asks the daemon, past every build's socket, and reads the JSON of its answer. Paths have no version of the API:
// the daemon then takes its newest.
func (d *docker) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return err
	}
	response, err := d.do(request)
	if err != nil {
		return err
	}
	return errors.Join(json.NewDecoder(response.Body).Decode(into), response.Body.Close())
}

// post tells the daemon to make something.
func (d *docker) post(ctx context.Context, path, body string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://docker"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := d.do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// do sends one request; an answer that refuses is an error, with its body closed.
func (d *docker) do(request *http.Request) (*http.Response, error) {
	response, err := d.client.Do(request)
	if err == nil && response.StatusCode >= http.StatusBadRequest {
		err = errors.Join(fmt.Errorf("docker: %s %s: %s", request.Method, request.URL.Path, response.Status), response.Body.Close())
	}
	return response, err
}

// stop ends the daemon with all that runs on it, after the runner, which needs it to tear down.
func (d *docker) stop() error {
	d.client.CloseIdleConnections()
	return d.daemon.stop()
}

// kinds are the kinds of Docker objects that a build can leave, in the order in which they are shown.
var kinds = []string{"services", "tasks", "containers", "networks", "secrets", "configs", "volumes", "anonymous volumes", "images"}

// anonymous are the names that Docker gives to volumes that got none: 64 hex digits.
var anonymous = regexp.MustCompile(`^[0-9a-f]{64}$`)

// objects lists all that the daemon has, by kind, without any filter: a build's labels are the runner's own claim.
// Volumes go by name, as they have no id; all else by id, so that a new object with an old name shows.
func (d *docker) objects(ctx context.Context) (map[string][]string, error) {
	found := map[string][]string{}
	for kind, path := range map[string]string{
		"services": "/services", "tasks": "/tasks", "containers": "/containers/json?all=1", "networks": "/networks",
		"secrets": "/secrets", "configs": "/configs", "images": "/images/json?all=1",
	} {
		var list []struct{ ID string }
		if err := d.get(ctx, path, &list); err != nil {
			return nil, err
		}
		for _, object := range list {
			found[kind] = append(found[kind], object.ID)
		}
	}
	var list struct{ Volumes []struct{ Name string } }
	if err := d.get(ctx, "/volumes", &list); err != nil {
		return nil, err
	}
	for _, volume := range list.Volumes {
		// Kept apart in the report: a volume that nobody named is what clean-ups forget first.
		kind := "volumes"
		if anonymous.MatchString(volume.Name) {
			kind = "anonymous volumes"
		}
		found[kind] = append(found[kind], volume.Name)
	}
	return found, nil
}

// added lists what there is now and was not before, as one line with the count of each kind, and by name. What was
// there before counts for nothing: the network proxy, the image.
func added(before, now map[string][]string) (line string, names []string) {
	var counts []string
	for _, kind := range kinds {
		left := slices.DeleteFunc(slices.Clone(now[kind]), func(name string) bool { return slices.Contains(before[kind], name) })
		// Every kind is named, with a zero too: a proof says what it has looked for.
		counts = append(counts, fmt.Sprintf("%d %s", len(left), kind))
		for _, name := range left {
			names = append(names, strings.TrimSuffix(kind, "s")+" "+name)
		}
	}
	return strings.Join(counts, ", "), names
}
