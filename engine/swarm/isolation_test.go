package swarm_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// victim makes one object of each kind for another build, and a container of the host's.
func victim(t *testing.T, h *host) *job {
	t.Helper()
	v := h.attach("cc-ci-test-victim", nil)
	v.do("run", "-d", "--name", "victim", "-v", "victimvol:/data", swarmtest.Image)
	v.do("network", "create", "-d", "overlay", "--attachable", "victimnet")
	wantInput(t, v, "s3cret", "", "secret", "create", "victimsecret", "-")
	wantInput(t, v, "conf", "", "config", "create", "victimconfig", "-")
	v.do("service", "create", "--detach", "--name", "victimsvc", "--secret", "victimsecret", swarmtest.Image)
	v.do("commit", "victim", "victimimage:1")
	h.running("victimsvc", 1)
	h.direct("run", "-d", "--name", "infra", "-v", "infravol:/data", swarmtest.Image)
	t.Cleanup(func() { h.direct("rm", "-f", "infra"); h.direct("volume", "rm", "infravol") })
	return v
}

// hostileUser runs the hostile build's steps.
const hostileUser = 61234

// TestIsolation lets a hostile build, whose steps are not root, try everything that would let it see, change or leave.
func TestIsolation(t *testing.T) {
	h := newHost(t, nil)
	v := victim(t, h)
	j := h.attach("cc-ci-test-hostile", func(b *swarm.Build) { b.UID, b.GID = hostileUser, hostileUser })
	j.do("run", "-d", "--name", "mine", swarmtest.Image)
	if err := os.Symlink("/", filepath.Join(j.workspace, "root")); err != nil {
		t.Fatal(err)
	}
	for _, try := range hostile(j, h.direct("node", "ls", "-q")) {
		t.Run(strings.Join(try.args, " "), func(t *testing.T) {
			out, err := j.in(t).try(try.args...)
			if err == nil || !strings.Contains(out, "rule "+try.rule+":") || !strings.Contains(out, "DRONE_RUNNER_DOCKER_") {
				t.Errorf("%v, %q; want it refused by the rule %s, and the variable named", err, out, try.rule)
			}
		})
	}
	t.Run("the victim's socket", func(t *testing.T) {
		for _, socket := range []string{v.socket, strings.TrimPrefix(h.d.Host, "unix://")} {
			if out, err := runAs(t, hostileUser, "unix://"+socket, "", "ps"); err == nil || !strings.Contains(out, "permission denied") {
				t.Errorf("another build's user gets to %s: %v, %s", socket, err, out)
			}
		}
	})
	t.Run("the victim is unharmed", func(t *testing.T) {
		v.in(t).do("exec", "victim", "true")
		h.direct("exec", "infra", "true")
		h.running("victimsvc", 1)
	})
	t.Run("lists show own objects only", func(t *testing.T) { wantNoTrace(t, j.in(t)) })
	t.Run("raw calls", func(t *testing.T) { rawTries(t, j.in(t)) })
	t.Run("files", func(t *testing.T) { fileTries(t, j.in(t)) })
}

// attempt is a docker command and the rule that forbids it.
type attempt struct {
	rule string
	args []string
}

// hostile is what a build tries with the docker command.
func hostile(j *job, node string) []attempt {
	run := func(args ...string) []string {
		return append(append([]string{"run", "--rm"}, args...), swarmtest.Image, "true")
	}
	svc := func(args ...string) []string {
		return append(append([]string{"service", "create", "--detach"}, args...), swarmtest.Image)
	}
	const theirs = "label=cc-ci.build=cc-ci-test-victim"
	return []attempt{
		{"privileged", run("--privileged")},
		{"privileged", []string{"exec", "--privileged", "mine", "true"}},
		{"host-namespaces", run("--pid=host")}, {"host-namespaces", run("--ipc=host")},
		{"host-namespaces", run("--uts=host")},
		{"host-namespaces", run("--userns=host")},
		{"host-namespaces", run("--cgroupns=host")},
		{"host-namespaces", run("--network=host")},
		{"host-namespaces", svc("--network=host")},
		{"devices", run("--device=/dev/null")},
		{"devices", run("--device-cgroup-rule=b *:* rwm")},
		{"capabilities", run("--cap-add=SYS_ADMIN")}, {"capabilities", run("--cap-add=ALL")},
		{"capabilities", svc("--cap-add=SYS_PTRACE")},
		{"security-options", run("--security-opt=seccomp=unconfined")},
		{"security-options", run("--security-opt=systempaths=unconfined")},
		{"cgroup-parent", run("--cgroup-parent=/")},
		{"log-driver", run("--log-driver=syslog")},
		{"host-mounts", run("-v", "/:/host")},
		{"host-mounts", run("-v", "/etc/shadow:/s")},
		{"host-mounts", run("-v", j.workspace+"/../../../../../..:/host")},
		{"host-mounts", run("-v", j.workspace+"/root:/host")},
		{"host-mounts", run("-v", j.workspace+"/root/etc:/host")},
		{"host-mounts", run("-v", j.workspace+":/w:rshared")},
		{"host-mounts", run("--mount", "type=bind,source=/,target=/host")},
		{"host-mounts", svc("--mount", "type=bind,source=/,target=/host")},
		{"mount-templates", svc("--mount", "type=volume,source={{.Service.Name}},target=/x")},
		{"volume-options", []string{"volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/"}},
		{"volume-options", run("--mount", "type=volume,source=v,target=/x,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/")},
		{"own-objects", run("-v", "victimvol:/x")},
		{"own-objects", run("-v", "infravol:/x")},
		{"own-objects", run("--mount", "type=volume,source=victimvol,target=/x")},
		{"own-objects", svc("--mount", "type=volume,source=victimvol,target=/x")},
		{"own-objects", []string{"volume", "create", "victimvol"}},
		{"own-objects", run("--volumes-from=victim")},
		{"own-objects", run("--pid=container:victim")},
		{"own-objects", run("--network=container:victim")},
		{"own-objects", run("--link=victim:v")},
		{"networks", run("--network=victimnet")},
		{"networks", svc("--network=victimnet")},
		{"networks", []string{"network", "connect", "victimnet", "mine"}},
		{"networks", []string{"network", "create", "proxy"}},
		{"network-options", []string{"network", "create", "-d", "macvlan", "-o", "parent=eth0", "n"}},
		{"network-options", []string{"network", "create", "-o", "com.docker.network.bridge.name=docker0", "n"}},
		{"own-objects", []string{"exec", "victim", "true"}},
		{"own-objects", []string{"ps", "--filter", theirs}}, {"own-objects", []string{"service", "ls", "--filter", theirs}},
		{"own-objects", []string{"logs", "victim"}},
		{"own-objects", []string{"inspect", "--type=container", "victim"}},
		{"own-objects", []string{"rm", "-f", "victim"}},
		{"own-objects", []string{"rm", "-f", "infra"}},
		{"own-objects", []string{"stop", "victim"}},
		{"own-objects", []string{"cp", "victim:/etc/passwd", "-"}},
		{"own-objects", []string{"export", "victim"}},
		{"own-objects", []string{"commit", "victim", "stolen"}},
		{"own-objects", []string{"volume", "rm", "victimvol"}},
		{"own-objects", []string{"network", "rm", "victimnet"}},
		{"networks", []string{"network", "inspect", "victimnet"}},
		{"own-objects", []string{"service", "rm", "victimsvc"}},
		{"own-objects", []string{"service", "scale", "--detach", "victimsvc=0"}},
		{"own-objects", []string{"service", "logs", "victimsvc"}},
		{"own-objects", []string{"secret", "rm", "victimsecret"}},
		{"own-objects", []string{"config", "inspect", "victimconfig"}},
		{"own-objects", []string{"tag", swarmtest.Image, "victimimage:1"}},
		{"own-objects", []string{"rmi", "victimimage:1"}},
		{"own-objects", []string{"rmi", "-f", swarmtest.ImageVolume}},
		{"swarm", []string{"swarm", "join-token", "worker"}},
		{"swarm", []string{"swarm", "unlock-key"}},
		{"swarm", []string{"swarm", "leave", "-f"}},
		{"swarm", []string{"swarm", "update", "--task-history-limit=1"}},
		{"nodes", []string{"node", "update", "--availability=drain", node}},
		{"plugins", []string{"plugin", "install", "--grant-all-permissions", "x/y"}},
	}
}

// wantNoTrace looks for the victim in every list.
func wantNoTrace(t *testing.T, j *job) {
	for _, args := range [][]string{
		{"ps", "-a"}, {"volume", "ls"}, {"network", "ls"}, {"service", "ls"}, {"secret", "ls"}, {"config", "ls"},
		{"system", "df", "-v"}, {"node", "ps", "self"},
	} {
		out := j.do(args...)
		if args[0] == "system" { // images may be seen by all
			_, out, _ = strings.Cut(out, "Containers space usage")
		}
		if strings.Contains(out, "victim") || strings.Contains(out, "infra") {
			t.Errorf("docker %s shows %s", strings.Join(args, " "), out)
		}
	}
}

// call makes one API call as a program would that is not the docker command.
func (j *job) call(method, path, contentType, body string) (int, string) {
	j.t.Helper()
	conn, err := net.Dial("unix", j.socket)
	if err != nil {
		j.t.Fatal(err)
	}
	transport := &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives: true,
	}
	req, err := http.NewRequest(method, "http://docker", strings.NewReader(body))
	if err != nil {
		j.t.Fatal(err)
	}
	req.URL.Opaque = path
	req.Header.Set("Content-Type", contentType)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		j.t.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		j.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		j.t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// rawTries are what no docker command would send.
func rawTries(t *testing.T, j *job) {
	const js = "application/json"
	for name, try := range map[string]struct {
		method, path, body string
		status             int
	}{
		"two spellings of a field": {"POST", "/v1.41/containers/create", `{"Image":"` + swarmtest.Image +
			`","HostConfig":{},"hostconfig":{"Privileged":true}}`, 400},
		"another spelling of a field": {"POST", "/v1.41/containers/create", `{"Image":"` + swarmtest.Image +
			`","hostCONFIG":{"privileged":true}}`, 403},
		"a letter that folds to s": {"POST", "/v1.41/containers/create", `{"Image":"` + swarmtest.Image +
			`","hoſtconfig":{"privileged":true}}`, 403},
		"unmasked paths": {"POST", "/v1.41/containers/create", `{"Image":"` + swarmtest.Image +
			`","HostConfig":{"MaskedPaths":[]}}`, 403},
		"an option from the future": {"POST", "/v1.41/containers/create", `{"Image":"` + swarmtest.Image +
			`","HostConfig":{"EscapeHatch":true}}`, 403},
		"a path with dots":        {"GET", "/v1.41/containers/mine/../victim/json", "", 400},
		"a path in percent signs": {"GET", "/v1.41/containers/mine%2f..%2fvictim/json", "", 400},
		"an encoded name":         {"GET", "/v1.41/containers/%76ictim/json", "", 403},
		"two slashes":             {"POST", "/v1.41//swarm/leave", "", 400},
		"no version":              {"GET", "/swarm", "", 403},
		"devices by update":       {"POST", "/containers/mine/update", `{"Devices":[{"PathOnHost":"/dev/sda"}]}`, 403},
		"a plugin as service": {"POST", "/v1.41/services/create",
			`{"Name":"p","TaskTemplate":{"Runtime":"plugin","PluginSpec":{"Name":"x"}}}`, 403},
		"an unconfined service": {"POST", "/v1.41/services/create", `{"Name":"p","TaskTemplate":{"ContainerSpec":{"Image":"` +
			swarmtest.Image + `","Privileges":{"Seccomp":{"Mode":"unconfined"}}}}}`, 403},
		"BuildKit's control": {"POST", "/grpc", "", 403},
		"an unknown call":    {"POST", "/v1.41/teapot", "", 403},
	} {
		if status, body := j.call(try.method, try.path, js, try.body); status != try.status {
			t.Errorf("%s: %d %s, want %d", name, status, body, try.status)
		}
	}
	// A form in the body would override the filters in the query.
	j.direct("create", "--name", "foreign-stale", swarmtest.Image)
	defer j.direct("rm", "foreign-stale")
	if status, body := j.call("POST", "/containers/prune", "application/x-www-form-urlencoded", "filters={}"); status != 200 {
		t.Errorf("prune: %d %s", status, body)
	}
	j.direct("inspect", "foreign-stale")
	// Labels of other builds are not to be had.
	_, body := j.call("POST", "/volumes/create", js, `{"Name":"forged","Labels":{"cc-ci.build":"cc-ci-test-victim"}}`)
	var made struct{ Labels map[string]string }
	if err := json.Unmarshal([]byte(body), &made); err != nil || made.Labels["cc-ci.build"] != j.name {
		t.Errorf("a forged label: %s, %v", body, err)
	}
}

// fileTries attack through the files that a build and its containers share.
func fileTries(t *testing.T, j *job) {
	t.Run("a device made in the workspace", func(t *testing.T) {
		j := j.in(t)
		if out, err := j.try("run", "--rm", "-v", j.workspace+":/w", swarmtest.Image, "mknod", "/w/disk", "b", "8", "0"); err == nil {
			t.Error("a container made a device in the workspace: ", out)
		}
	})
	t.Run("a device copied into the workspace", func(t *testing.T) {
		j := j.in(t)
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		if err := w.WriteHeader(&tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Mode: 0o666, Devmajor: 8}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		j.do("run", "-d", "--name", "copier", "-v", j.workspace+":/w", swarmtest.Image)
		out, err := j.run(buf.String(), "cp", "-", "copier:/w")
		if err == nil || !strings.Contains(out, "rule devices:") {
			t.Errorf("%v, %q", err, out)
		}
		var stat unix.Stat_t
		if err := unix.Lstat(filepath.Join(j.workspace, "disk"), &stat); err == nil {
			t.Error("the device is there")
		}
	})
	t.Run("a directory replaced by a link before the start", func(t *testing.T) {
		j := j.in(t)
		dir := filepath.Join(j.workspace, "dir")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		j.write("dir/mine", "own file")
		j.do("create", "--name", "swapped", "-v", dir+":/w", swarmtest.Image, "ls", "/w")
		if err := os.Rename(dir, dir+".old"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/etc", dir); err != nil {
			t.Fatal(err)
		}
		if out := j.do("start", "-a", "swapped"); out != "mine" {
			t.Errorf("the container saw %q", out)
		}
	})
	t.Run("Docker's socket in a container is the build's", func(t *testing.T) {
		j := j.in(t)
		j.do("create", "--name", "socketed", "-v", "/var/run/docker.sock:/var/run/docker.sock", swarmtest.Image)
		want(t, j, j.socket+":/var/run/docker.sock", "inspect", "--format", "{{.HostConfig.Binds}}", "socketed")
	})
	t.Run("an image loaded over another's name", func(t *testing.T) {
		j := j.in(t)
		j.do("commit", "mine", "evil:1")
		path := filepath.Join(j.workspace, "evil.tar")
		j.do("save", "-o", path, "evil:1")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out, err := j.run(renamed(t, b, "evil:1", "victimimage:1"), "load")
		if err == nil || !strings.Contains(out, "rule own-objects:") {
			t.Errorf("%v, %q", err, out)
		}
	})
}

// renamed gives the image in an archive another name.
func renamed(t *testing.T, archive []byte, from, to string) string {
	t.Helper()
	var out bytes.Buffer
	r, w := tar.NewReader(bytes.NewReader(archive)), tar.NewWriter(&out)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "manifest.json" {
			data = bytes.ReplaceAll(data, []byte(from), []byte(to))
			h.Size = int64(len(data))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
