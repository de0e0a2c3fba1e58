package proxy_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// mark is what everything that b1 makes is labelled with.
const mark = `"Labels":{"cc-ci.build":"b1","cc-ci.repo":"octo/recipe"}`

// TestBodies sends what a build would, and looks at what the daemon gets. WS, TMP and SOCKET stand for the build's
// paths, PIN for any pin of them.
func TestBodies(t *testing.T) {
	f := start(t, proxy.Own)
	paths := strings.NewReplacer("WS", f.cfg.Workspace, "TMP", f.cfg.Tmp, "SOCKET", f.cfg.Socket, "PINS", proxy.PinDir(f.cfg.Socket))
	for _, c := range []struct{ name, path, body, want string }{
		{"a container", "/v1.41/containers/create", `{"Image":"i","Future":0}`, `{"Image":"i","Future":0,"HostConfig":{},` + mark + `}`},
		{"labels of its own", "/containers/create", `{"labels":{"a":"b","cc-ci.build":"b2","cc-ci.x":"y"}}`,
			`{"HostConfig":{},"Labels":{"a":"b","cc-ci.build":"b1","cc-ci.repo":"octo/recipe"}}`},
		{"large numbers", "/containers/create", `{"HostConfig":{"Memory":9007199254740993}}`,
			`{"HostConfig":{"Memory":9007199254740993},` + mark + `}`},
		{"an allowed path", "/containers/create", `{"HostConfig":{"Binds":["/etc/localtime:/etc/localtime:ro"]}}`,
			`{"HostConfig":{"Binds":["/etc/localtime:/etc/localtime:ro"],"CapDrop":["MKNOD"]},` + mark + `}`},
		{"Docker's socket", "/containers/create", `{"HostConfig":{"Binds":["/var/run/docker.sock:/run/docker.sock"]}}`,
			`{"HostConfig":{"Binds":["SOCKET:/run/docker.sock"],"CapDrop":["MKNOD"]},` + mark + `}`},
		{"a volume mount", "/containers/create", `{"HostConfig":{"Mounts":[{"Type":"volume","Source":"mine","Target":"/x"}]}}`,
			`{"HostConfig":{"Mounts":[{"Type":"volume","Source":"mine","Target":"/x","VolumeOptions":{` + mark + `}}]},` + mark + `}`},
		{"an allowed capability", "/containers/create", `{"HostConfig":{"CapAdd":["CAP_NET_ADMIN","chown"]}}`,
			`{"HostConfig":{"CapAdd":["CAP_NET_ADMIN","chown"]},` + mark + `}`},
		{"an allowed network", "/containers/create", `{"HostConfig":{"NetworkMode":"proxy"},"NetworkingConfig":{"EndpointsConfig":{"mine":{}}}}`,
			`{"HostConfig":{"NetworkMode":"proxy"},"NetworkingConfig":{"EndpointsConfig":{"mine":{"NetworkID":"id-mine"}}},` + mark + `}`},
		{"a network of its own, by its id", "/containers/create", `{"HostConfig":{"NetworkMode":"mine"}}`,
			`{"HostConfig":{"NetworkMode":"id-mine"},"NetworkingConfig":{"EndpointsConfig":{"mine":{"NetworkID":"id-mine"}}},` + mark + `}`},
		{"a connection, by its ids", "/networks/mine/connect", `{"Container":"mine"}`,
			`{"Container":"id-mine","EndpointConfig":{"NetworkID":"id-mine"}}`},
		{"what is shared with a container, by its id", "/containers/create",
			`{"HostConfig":{"PidMode":"container:mine","NetworkMode":"container:mine","VolumesFrom":["mine:ro"],"Links":["mine","/mine:db"]}}`,
			`{"HostConfig":{"PidMode":"container:id-mine","NetworkMode":"container:id-mine","VolumesFrom":["id-mine:ro"],
			"Links":["id-mine:mine","id-mine:db"],"CapDrop":["MKNOD"]},` + mark + `}`},
		{"a volume", "/volumes/create", `{"Name":"v","DriverOpts":{"type":"tmpfs","device":"tmpfs","o":"size=100m,uid=1000,noexec"}}`,
			`{"Name":"v","DriverOpts":{"type":"tmpfs","device":"tmpfs","o":"size=100m,uid=1000,noexec"},` + mark + `}`},
		{"a network", "/networks/create", `{"Name":"n","Driver":"overlay","Options":{"encrypted":""}}`,
			`{"Name":"n","Driver":"overlay","Options":{"encrypted":""},` + mark + `}`},
		{"a secret", "/secrets/create", `{"Name":"s","Data":"eA=="}`, `{"Name":"s","Data":"eA==",` + mark + `}`},
		{"a config", "/configs/create", `{"Name":"c","Data":"eA=="}`, `{"Name":"c","Data":"eA==",` + mark + `}`},
		{"a service", "/services/create", `{"Name":"s","TaskTemplate":{"ContainerSpec":{"Image":"i","Mounts":[{"Source":"v","Target":"/v"}],
			"Secrets":[{"SecretID":"mine"}]},"Networks":[{"Target":"proxy"},{"Target":"mine"}]}}`,
			`{"Name":"s",` + mark + `,"TaskTemplate":{"ContainerSpec":{"Image":"i",` + mark + `,"Mounts":[{"Source":"v","Target":"/v",
			"VolumeOptions":{` + mark + `}}],"Secrets":[{"SecretID":"mine"}]},"Networks":[{"Target":"proxy"},{"Target":"id-mine"}]}}`},
		{"an update of a service", "/services/mine/update?version=7", `{"Name":"s","TaskTemplate":{}}`,
			`{"Name":"s",` + mark + `,"TaskTemplate":{"ContainerSpec":{` + mark + `}}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.t = t
			got := f.send("POST", c.path, paths.Replace(c.body))
			if want := parse(t, paths.Replace(c.want)); !reflect.DeepEqual(parse(t, string(got.raw)), want) {
				t.Errorf("the daemon got\n%s, want\n%v", got.raw, want)
			}
		})
	}
}

// parse reads JSON without rounding its numbers.
func parse(t *testing.T, text string) any {
	t.Helper()
	var v any
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err, text)
	}
	return v
}

// TestQueries looks at what becomes of the queries of calls.
func TestQueries(t *testing.T) {
	f := start(t, proxy.Own)
	const filter = `{"label":{"cc-ci.build=b1":true}}`
	for _, c := range []struct{ name, method, path, key, want string }{
		{"a list", "GET", "/services?x=y", "filters", filter},
		{"a list that is filtered", "GET", `/secrets?filters={"name":{"a":true}}`, "filters", `{"label":{"cc-ci.build=b1":true},"name":{"a":true}}`},
		{"the old form of filters", "GET", `/configs?filters={"label":["x=y"]}`, "filters", `{"label":{"cc-ci.build=b1":true,"x=y":true}}`},
		{"a prune", "POST", "/containers/prune", "filters", filter},
		{"a prune of volumes", "POST", "/volumes/prune", "filters", filter},
		{"a build", "POST", `/build?labels={"a":"b","cc-ci.build":"b2"}`, "labels", `{"a":"b","cc-ci.image":"b1"}`},
		{"a prune of images", "POST", "/images/prune", "filters", `{"label":{"cc-ci.image=b1":true}}`},
		{"its own label", "GET", `/services?filters={"label":["cc-ci.build"]}`, "filters", filter},
		{"a build's containers", "POST", "/build?rm=0", "forcerm", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.t = t
			delete(f.daemon.objects, "/services")
			f.daemon.answers["GET /services"] = []any{}
			got := f.send(c.method, strings.NewReplacer(`"`, "%22", "{", "%7B", "}", "%7D").Replace(c.path), "")
			if text := got.query[c.key]; len(text) != 1 || text[0] != c.want {
				t.Errorf("%s is %q, want %q", c.key, text, c.want)
			}
		})
	}
	got := f.send("POST", "/commit?container=mine&changes=CMD+x", "")
	if changes := strings.Join(got.query["changes"], "\n"); !strings.Contains(changes, `LABEL "cc-ci.image"="b1" "cc-ci.build"=""`) || !strings.Contains(changes, "CMD x") {
		t.Errorf("changes are %q", changes)
	}
}

// TestPulled pulls an image as newer and as older clients name it, and removes it by its short name.
func TestPulled(t *testing.T) {
	f := start(t, proxy.Own)
	for ref, name := range map[string]string{
		"docker.io/library/new&tag=1": "new:1", "old&tag=1": "old:1", "docker.io/octo/app&tag=1": "octo/app:1",
	} {
		f.send("POST", "/images/create?fromImage="+ref, "")
		f.daemon.mu.Lock()
		f.daemon.objects["/images/"+name+"/json"] = map[string]any{"Id": "sha256:1", "Config": map[string]any{}}
		f.daemon.mu.Unlock()
		if status, answer := f.call("DELETE", "/images/"+name, ""); status != 200 {
			t.Errorf("%s, pulled as %s, is not removed: %d %s", name, ref, status, answer)
		}
	}
}

// TestTargets makes calls on single objects by name: the daemon must get the id that was judged.
func TestTargets(t *testing.T) {
	f := start(t, proxy.Own)
	for call, want := range map[string]string{
		"POST /v1.41/containers/mine/kill":    "/containers/id-mine/kill",
		"GET /containers/mine/logs?follow=1":  "/containers/id-mine/logs",
		"DELETE /containers/mine":             "/containers/id-mine",
		"DELETE /services/mine":               "/services/id-mine",
		"DELETE /networks/mine":               "/networks/id-mine",
		"DELETE /secrets/mine":                "/secrets/id-mine",
		"DELETE /volumes/mine":                "/volumes/mine",
		"POST /exec/e1/start":                 "/exec/e1/start",
		"POST /images/theirs/push":            "/images/theirs/push",
		"DELETE /images/mine":                 "/images/mine",
		"POST /containers/m%69ne/kill":        "/containers/id-mine/kill",
		"POST /session":                       "/session",
		"GET /distribution/a/b/c:1/json":      "/distribution/a/b/c:1/json",
		"POST /images/octo/app/tag?repo=x/y":  "",
		"GET /containers/absent/logs":         "",
		"POST /containers/absent/exec":        "",
		"POST /networks/mine/connect":         "",
		"POST /services/absent/update":        "",
		"DELETE /images/octo/absent":          "",
		"GET /v1.41/containers/mine/../mine/": "",
	} {
		method, path, _ := strings.Cut(call, " ")
		_, answer := f.call(method, path, "")
		got := f.daemon.take()
		if want == "" && got != nil {
			t.Errorf("%s reached the daemon as %s", call, got.path)
		}
		if want != "" && (got == nil || got.path != want) {
			t.Errorf("%s became %v, want %s; answer %s", call, got, want, answer)
		}
	}
}

// TestOpen labels, records and refuses nothing; what the build did not make stays as the client sends it.
func TestOpen(t *testing.T) {
	f := start(t, proxy.Open)
	body := `{"HostConfig":{"Privileged":true,"Binds":["/:/host"]}}`
	if got := f.send("POST", "/containers/create", body); got.body["Labels"] == nil {
		t.Errorf("a container without labels: %s", got.raw)
	}
	for _, path := range []string{"/services/theirs/update?version=1", "/secrets/theirs/update?version=1"} {
		if got := f.send("POST", path, `{"Name":"x"}`); string(got.raw) != `{"Name":"x"}` {
			t.Errorf("%s changed to %s", path, got.raw)
		}
	}
	if got := f.send("DELETE", "/containers/theirs", ""); got.path != "/containers/id-theirs" {
		t.Errorf("got %v", got)
	}
	got := f.send("POST", "/networks/prune", "")
	if filters := got.query["filters"]; len(filters) != 1 || !strings.Contains(filters[0], "cc-ci.build=b1") {
		t.Errorf("a prune reaches beyond the build: %v", filters)
	}
	if got := f.send("POST", "/swarm/leave", ""); got.path != "/swarm/leave" {
		t.Errorf("got %v", got)
	}
}

// TestKeep changes nothing at all.
func TestKeep(t *testing.T) {
	f := start(t, proxy.Keep)
	for _, path := range []string{"/containers/create", "/services/create", "/services/theirs/update?version=1", "/volumes/create",
		"/networks/create", "/secrets/create", "/containers/prune", "/build/prune"} {
		if got := f.send("POST", path, `{"Name":"x"}`); string(got.raw) != `{"Name":"x"}` || got.query["filters"] != nil {
			t.Errorf("%s became %s, %v", path, got.raw, got.query)
		}
	}
	if !f.ledger.Knows("service", "x") || !f.ledger.Knows("network", "new") {
		t.Error("the ledger does not know what was made")
	}
}
