package proxy_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// refused is a call that must not reach the daemon, and the rule that forbids it.
type refused struct{ rule, call, body string }

const create, svc = "POST /containers/create", "POST /services/create"

// host is a container's host configuration, task what a service's containers are made from.
func host(text string) string { return `{"HostConfig":{` + text + `}}` }
func task(text string) string { return `{"TaskTemplate":{"ContainerSpec":{` + text + `}}}` }

// wantRefused makes the calls: each answer must name the rule and the variable.
func wantRefused(t *testing.T, calls []refused) {
	t.Helper()
	f := start(t, proxy.Own)
	for _, c := range calls {
		method, path, _ := strings.Cut(c.call, " ")
		status, answer := f.call(method, path, c.body)
		if status != http.StatusForbidden || !strings.Contains(answer, "rule "+c.rule+":") || !strings.Contains(answer, "DRONE_RUNNER_") {
			t.Errorf("%s %s: %d %s, want the rule %s", c.call, c.body, status, answer, c.rule)
		}
		if got := f.daemon.take(); got != nil {
			t.Errorf("%s %s reached the daemon", c.call, c.body)
		}
	}
}

// TestContainerRefusals goes through the rules for containers.
func TestContainerRefusals(t *testing.T) {
	wantRefused(t, []refused{
		{"privileged", create, host(`"Privileged":true`)}, {"privileged", "POST /containers/mine/exec", `{"privileged":true}`},
		{"host-namespaces", create, host(`"PidMode":"host"`)}, {"host-namespaces", create, host(`"NetworkMode":"host"`)},
		{"host-namespaces", create, host(`"NetworkMode":"hostid"`)},
		{"own-objects", create, host(`"IpcMode":"container:theirs"`)},
		{"own-objects", create, host(`"VolumesFrom":["theirs:ro"]`)},
		{"own-objects", create, host(`"Links":["host:x"]`)},
		{"own-objects", create, host(`"Binds":["theirs:/x"]`)},
		{"own-objects", create, host(`"Mounts":[{"Source":"host","Target":"/x"}]`)},
		{"networks", create, host(`"NetworkMode":"theirs"`)},
		{"networks", create, `{"NetworkingConfig":{"EndpointsConfig":{"theirs":{}}}}`},
		{"host-mounts", create, host(`"Binds":["/:/x"]`)},
		{"host-mounts", create, host(`"Binds":["/etc/localtime/../shadow:/x"]`)},
		{"host-mounts", create, host(`"Mounts":[{"Type":"bind","Source":"/etc","Target":"/x"}]`)},
		{"host-mounts", create, host(`"Mounts":[{"Type":"bind","Source":"/etc/localtime","BindOptions":{"Propagation":"rshared"}}]`)},
		{"mount-types", create, host(`"Mounts":[{"Type":"npipe","Source":"x"}]`)},
		{"volume-options", create, host(`"Mounts":[{"Source":"v","VolumeOptions":{"DriverConfig":{"Options":{"device":"/","o":"bind"}}}}]`)},
		{"volume-driver", create, host(`"VolumeDriver":"rclone"`)},
		{"devices", create, host(`"DeviceRequests":[{"Count":-1}]`)},
		{"devices", "POST /containers/mine/update", `{"DeviceCgroupRules":["a *:* rwm"]}`},
		{"capabilities", create, host(`"CapAdd":["cap_sys_admin"]`)},
		{"security-options", create, host(`"SecurityOpt":["apparmor=unconfined"]`)},
		{"security-options", create, host(`"ReadonlyPaths":[]`)},
		{"cgroup-parent", create, host(`"CgroupParent":"/system.slice"`)},
		{"runtime", create, host(`"Runtime":"sysbox"`)},
		{"oom-score", create, host(`"OomScoreAdj":-500`)},
		{"log-driver", create, host(`"LogConfig":{"Type":"gelf"}`)},
		{"unknown-option", create, host(`"Shiny":{"a":1}`)},
		{"own-objects", "GET /containers/theirs/json", ""},
		{"own-objects", "DELETE /containers/host", ""},
		{"own-objects", "POST /exec/e2/start", ""},
		{"unknown-option", create, `{"VolumeDriver":"rclone"}`}, {"unknown-option", create, host(`"Mounts":[{"Shiny":1}]`)},
		{"unknown-option", "POST /containers/mine/start?checkpoint=c&checkpoint-dir=/tmp", ""},
		{"unknown-option", "POST /containers/mine/exec", `{"Shiny":true}`}, {"unknown-option", "POST /exec/e1/start", `{"Shiny":true}`},
		{"networks", create, `{"NetworkingConfig":{"EndpointsConfig":{"mine":{"networkid":"theirs"}}}}`},
		{"security-options", create, host(`"SecurityOpt":["no-new-privileges:false"]`)},
		{"own-objects", "POST /containers/prune?filters={%22label%22:{%22cc-ci.build=%22:true}}", ""},
		{"buildkit", "POST /grpc", ""}, {"unknown-call", "PATCH /containers/mine", ""}, {"unknown-call", "GET /debug/vars", ""},
	})
}

// TestRefusals goes through the rules for services and for everything else.
func TestRefusals(t *testing.T) {
	wantRefused(t, []refused{
		{"host-namespaces", "POST /build?networkmode=host", ""},
		{"networks", svc, `{"Networks":[{"Target":"theirs"}]}`},
		{"networks", svc, `{"TaskTemplate":{"Networks":[{"target":"theirs"}]}}`},
		{"networks", "POST /networks/create", `{"Name":"ingress"}`},
		{"network-options", "POST /networks/create", `{"Name":"n","Driver":"ipvlan"}`},
		{"network-options", "POST /networks/create", `{"Name":"n","IPAM":{"Driver":"x"}}`},
		{"network-options", "POST /networks/create", `{"Name":"n","ConfigFrom":{"Network":"theirs"}}`},
		{"host-mounts", svc, task(`"Mounts":[{"type":"bind","source":"/etc"}]`)},
		{"mount-templates", svc, task(`"Mounts":[{"Type":"volume","Source":"{{.Node.ID}}"}]`)},
		{"volume-options", "POST /volumes/create", `{"Name":"v","DriverOpts":{"type":"nfs","device":":/x"}}`},
		{"volume-driver", "POST /volumes/create", `{"Name":"v","Driver":"rclone"}`},
		{"capabilities", svc, task(`"CapabilityAdd":["ALL"]`)},
		{"security-options", svc, task(`"Privileges":{"SELinuxContext":{"Disable":true}}`)},
		{"cgroup-parent", "POST /build?cgroupparent=x", ""},
		{"log-driver", svc, `{"TaskTemplate":{"LogDriver":{"Name":"fluentd"}}}`},
		{"unknown-option", svc, task(`"Shiny":true`)},
		{"plugins", svc, `{"TaskTemplate":{"PluginSpec":{"Name":"x"}}}`},
		{"plugins", "POST /secrets/create", `{"Name":"s","Driver":{"Name":"x"}}`},
		{"plugins", "POST /plugins/pull", ""},
		{"own-objects", svc, task(`"Secrets":[{"SecretID":"theirs"}]`)},
		{"own-objects", svc, task(`"Configs":[{"ConfigID":"host"}]`)},
		{"own-objects", "DELETE /volumes/theirs", ""},
		{"own-objects", "POST /commit?container=theirs", ""},
		{"own-objects", "DELETE /images/theirs:latest", ""},
		{"own-objects", "POST /build?t=host", ""},
		{"own-objects", "POST /images/create?fromSrc=-&repo=theirs", ""},
		{"own-objects", "POST /networks/proxy/connect", `{"Container":"theirs"}`},
		{"own-objects", "DELETE /networks/proxy", ""},
		{"remote-source", "POST /build?remote=git@host:private.git", ""},
		{"remote-source", "POST /images/create?fromSrc=http://127.0.0.1/x", ""},
		{"swarm", "GET /swarm", ""}, {"swarm", "POST /swarm/init", ""}, {"nodes", "POST /nodes/x/update", ""},
		{"volume-options", "POST /volumes/create", `{"Name":"v","DriverOpts":{"type":"tmpfs","o":"bind","device":"/"}}`},
		{"volume-options", "POST /volumes/create", `{"Name":"v","DriverOpts":{"type":"tmpfs","o":"size=1m,remount","device":"/"}}`},
		{"volume-options", svc, task(`"Mounts":[{"Source":"v","VolumeOptions":{"DriverConfig":{"Options":{"type":"tmpfs","o":"rbind","device":"/"}}}}]`)},
		{"unknown-option", svc, `{"Shiny":1}`}, {"unknown-option", svc, `{"TaskTemplate":{"Shiny":1}}`},
		{"unknown-option", "POST /networks/create", `{"Name":"n","Shiny":1}`}, {"unknown-option", "POST /secrets/create", `{"Shiny":1}`},
		{"unknown-option", "POST /build?shiny=1", ""}, {"unknown-option", "POST /build?outputs=[{%22Type%22:%22moby%22,%22Attrs%22:{%22name%22:%22theirs%22}}]", ""},
		{"networks", "POST /networks/mine/connect", `{"Container":"mine","EndpointConfig":{"NetworkID":"theirs"}}`},
		{"own-objects", "POST /networks/mine/connect", `{"Container":"mine","EndpointConfig":{"Links":["theirs:x"]}}`},
		{"network-options", "POST /networks/create", `{"Name":"n","IPAM":{"Config":[{"subnet":"198.51.100.0/24"}]}}`},
		{"network-options", "POST /networks/create", `{"Name":"n","IPAM":{"Config":[{"Subnet":"10.0.0.0/7"}]}}`},
		{"network-options", "POST /networks/create", `{"Name":"n","IPAM":{"Config":[{"Subnet":"127.0.0.0/24"}]}}`},
		{"devices", "POST /v1.40/services/create", task(`"Mounts":[{"Type":"bind","Source":"/etc/localtime","Target":"/x"}]`)},
		{"own-objects", "GET /services?filters={%22label%22:[%22cc-ci.build=b2%22]}", ""},
	})
}

// TestReusedNames gives the name of a volume that the build once had to somebody else's.
func TestReusedNames(t *testing.T) {
	f := start(t, proxy.Own)
	f.daemon.answers["POST /volumes/create"] = map[string]any{"Name": "host"}
	if err := f.ledger.Add(ledger.Entry{Kind: "volume", Name: "host"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"GET /volumes/host", "DELETE /volumes/host"} {
		method, path, _ := strings.Cut(c, " ")
		if status, answer := f.call(method, path, ""); status != http.StatusForbidden {
			t.Errorf("%s: %d %s", c, status, answer)
		}
	}
	// A build asks for an image's name first, and another one makes the image.
	for _, path := range []string{"/images/create?fromImage=early", "/build?t=early"} {
		f.send("POST", path, "")
	}
	f.daemon.mu.Lock()
	f.daemon.objects["/images/early:latest/json"] = f.daemon.objects["/images/theirs/json"]
	f.daemon.objects["/images/early/json"] = f.daemon.objects["/images/theirs/json"]
	f.daemon.mu.Unlock()
	for _, c := range []string{"DELETE /images/early", "POST /build?t=early", "POST /commit?container=mine&repo=early&tag=latest"} {
		method, path, _ := strings.Cut(c, " ")
		if status, answer := f.call(method, path, ""); status != http.StatusForbidden {
			t.Errorf("%s: %d %s", c, status, answer)
		}
	}
	if status, answer := f.call("POST", "/containers/create", `{"HostConfig":{"Binds":["host:/x"]}}`); status != http.StatusForbidden {
		t.Errorf("a mount: %d %s", status, answer)
	}
}

// TestUpgrades asks to take connections over. Only streams may: elsewhere nothing on the connection would be judged.
func TestUpgrades(t *testing.T) {
	f := start(t, proxy.Own)
	for _, c := range []struct {
		call, to string
		passes   bool
	}{
		{"POST /exec/e1/start", "tcp", true}, {"POST /containers/mine/attach", "tcp", true}, {"POST /session", "h2c", true},
		{"POST /containers/mine/attach", "h2c", false}, {"POST /exec/e1/start", "h2c", false}, {"POST /session", "tcp", false},
		{"POST /containers/mine/kill", "h2c", false}, {"POST /containers/mine/kill", "tcp", false}, {"POST /commit?container=mine", "h2c", false},
	} {
		method, path, _ := strings.Cut(c.call, " ")
		req, err := http.NewRequest(method, "http://docker"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {c.to}, "Http2-Settings": {"AAMAAABkAARAAAAAAAIAAAAA"}}
		resp, err := f.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		got := f.daemon.take()
		if got == nil || (got.upgrade == c.to) != c.passes || (!c.passes && got.upgrade != "") {
			t.Errorf("%s with the upgrade %s: the daemon got %+v, want it passed on: %v", c.call, c.to, got, c.passes)
		}
	}
}

// TestInvalid sends what is no call at all.
func TestInvalid(t *testing.T) {
	f := start(t, proxy.Own)
	for body, want := range map[string]int{
		`{"HostConfig":{},"hostconfig":{"Privileged":true}}`:    http.StatusBadRequest,
		`{"HostConfig":{"Privileged":false,"PRIVILEGED":true}}`: http.StatusBadRequest,
		`[]`: http.StatusBadRequest, `{"HostConfig":"x"}`: http.StatusBadRequest, `{"HostConfig":{"Binds":[1]}}`: http.StatusBadRequest,
		`{"HostConfig":{"VolumesFrom":["../services/mine"]}}`: http.StatusBadRequest, `{"HostConfig":{"PidMode":"container:mine/../theirs"}}`: http.StatusBadRequest,
		`{"a":"` + strings.Repeat("x", 1<<20) + `"}`: http.StatusRequestEntityTooLarge,
	} {
		if status, answer := f.call("POST", "/containers/create", body); status != want {
			t.Errorf("%.60s: %d %s, want %d", body, status, answer, want)
		}
	}
}

// TestManyParts sends bodies of which little is many values: the runner's memory is everybody's.
func TestManyParts(t *testing.T) {
	f := start(t, proxy.Own)
	for text, status := range map[string]int{
		`"",`: http.StatusRequestEntityTooLarge, `"a long value that is one part in a body of the same size",`: http.StatusCreated,
	} {
		body := `{"Env":[` + strings.Repeat(text, 900<<10/len(text)) + `""]}`
		if got, answer := f.call("POST", "/containers/create", body); got != status {
			t.Errorf("%s: %d %.100s, want %d", text, got, answer, status)
		}
	}
}

// TestSwallowedLabel goes on with a change in the next line, which is the one with the label.
func TestSwallowedLabel(t *testing.T) {
	f := start(t, proxy.Own)
	for _, change := range []string{"CMD%20x%5C", "CMD%20x%5C%20", "%23escape=%60%0ACMD%20x%60%0A"} {
		for _, path := range []string{"/commit?container=mine&changes=", "/images/create?fromSrc=-&changes="} {
			if status, answer := f.call("POST", path+change, ""); status != http.StatusBadRequest || f.daemon.take() != nil {
				t.Errorf("%s: %d %s", path+change, status, answer)
			}
		}
	}
}

// TestPins mounts paths of the workspace and swaps what lies there. Only root can pin.
func TestPins(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make mounts")
	}
	f := start(t, proxy.Own)
	ws := f.cfg.Workspace
	source := func(path string) string {
		t.Helper()
		got := f.send("POST", "/containers/create", `{"HostConfig":{"Binds":["`+path+`:/x"]}}`)
		bind := got.body["HostConfig"].(map[string]any)["Binds"].([]any)[0].(string)
		return strings.TrimSuffix(bind, ":/x")
	}
	if err := os.WriteFile(filepath.Join(ws, "file"), []byte("whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	pin := source(ws)
	if b, err := os.ReadFile(filepath.Join(pin, "file")); err != nil || string(b) != "whole" {
		t.Errorf("the pin shows %q, %v", b, err)
	}
	if again := source(ws); again != pin {
		t.Errorf("the same path has the pins %s and %s: a second deploy would restart its tasks", pin, again)
	}
	if again := source(pin); again != pin {
		t.Errorf("a pin sent back became %s", again)
	}
	if file := source(ws + "/file"); file == pin {
		t.Error("a file has its directory's pin")
	}
	if under := source("/tmp/made"); under == "" {
		t.Error("no pin for the build's /tmp")
	}
	if _, err := os.Stat(filepath.Join(f.cfg.Tmp, "made")); err != nil {
		t.Errorf("a missing directory in the build's /tmp was not made: %v", err)
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(pin, &stat); err != nil || stat.Flags&unix.ST_NOSUID == 0 || stat.Flags&unix.ST_NODEV == 0 {
		t.Errorf("the pin's flags are %x, %v", stat.Flags, err)
	}
	if err := os.Mkdir(filepath.Join(ws, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := source(ws + "/dir")
	if err := os.Rename(filepath.Join(ws, "dir"), filepath.Join(ws, "old")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(ws, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if after := source(ws + "/dir"); after == before {
		t.Error("another directory of the same name has the first one's pin")
	}
	for name, target := range map[string]string{"out": "/etc", "up": "../..", "abs": ws} {
		if err := os.Symlink(target, filepath.Join(ws, name)); err != nil {
			t.Fatal(err)
		}
		body := `{"HostConfig":{"Binds":["` + ws + "/" + name + `/x:/x"]}}`
		if status, answer := f.call("POST", "/containers/create", body); status != http.StatusForbidden {
			t.Errorf("a link to %s: %d %s", target, status, answer)
		}
	}
	body := `{"HostConfig":{"Mounts":[{"Type":"bind","Source":"` + ws + `/none","Target":"/x"}]}}`
	if status, answer := f.call("POST", "/containers/create", body); status != http.StatusBadRequest || !strings.Contains(answer, "does not exist") {
		t.Errorf("a missing source: %d %s", status, answer)
	}
}
