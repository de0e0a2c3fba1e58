package proxy_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// listed is an object as a list shows it.
func listed(name, build string) map[string]any {
	return map[string]any{"Name": name, "Id": name, "Labels": labelled(build), "Containers": map[string]any{"x": map[string]any{}}}
}

// TestAnswers looks at the lists that are filtered on their way back.
func TestAnswers(t *testing.T) {
	f := start(t, proxy.Own)
	if err := f.ledger.Add(ledger.Entry{Kind: "volume", Name: strings.Repeat("a", 64), Note: "anonymous"}); err != nil {
		t.Fatal(err)
	}
	volumes := []any{listed("mine", "b1"), listed("theirs", "b2"), listed("hosts", ""), listed(strings.Repeat("a", 64), "")}
	f.daemon.answers["GET /volumes"] = map[string]any{"Volumes": volumes, "Warnings": nil}
	f.daemon.answers["GET /networks"] = []any{listed("mine", "b1"), listed("theirs", "b2"), listed("hosts", ""), listed("proxy", ""), listed("bridge", "")}
	f.daemon.answers["GET /system/df"] = map[string]any{"LayersSize": 7, "Volumes": volumes, "Images": []any{listed("image", "b2")},
		"Containers": []any{listed("mine", "b1"), listed("theirs", "b2")}}
	names := func(raw any) string {
		var out []string
		for _, v := range raw.([]any) {
			out = append(out, strings.TrimLeft(v.(map[string]any)["Name"].(string), "a"))
		}
		return strings.Join(out, ",")
	}
	get := func(path string, v any) {
		t.Helper()
		if status, body := f.call("GET", path, ""); status != 200 || json.Unmarshal([]byte(body), v) != nil {
			t.Fatalf("%s: %d %s", path, status, body)
		}
	}
	var list map[string]any
	if get("/volumes", &list); names(list["Volumes"]) != "mine," {
		t.Errorf("volumes: %s", names(list["Volumes"]))
	}
	list = nil
	if get("/system/df", &list); names(list["Volumes"]) != "mine," || names(list["Containers"]) != "mine" || names(list["Images"]) != "image" ||
		list["LayersSize"] != 7.0 {
		t.Errorf("df: %v", list)
	}
	var networks []any
	if get("/networks", &networks); names(networks) != "mine,proxy,bridge" {
		t.Errorf("networks: %s", names(networks))
	}
	if shared := networks[1].(map[string]any)["Containers"]; len(shared.(map[string]any)) != 0 {
		t.Errorf("a shared network shows %v", shared)
	}
	list = nil
	if get("/networks/proxy", &list); len(list["Containers"].(map[string]any)) != 1 || list["Containers"].(map[string]any)["c1"] == nil {
		t.Errorf("the shared network shows %v", list["Containers"])
	}
}

// TestEvents reads a stream of events of several owners.
func TestEvents(t *testing.T) {
	f := start(t, proxy.Own)
	for _, e := range []ledger.Entry{{Kind: "service", ID: "s1"}, {Kind: "container", ID: "c1"}} {
		if err := f.ledger.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	event := func(kind, id string, attributes map[string]string) map[string]any {
		return map[string]any{"Type": kind, "Action": "x", "Actor": map[string]any{"ID": id, "Attributes": attributes}}
	}
	f.daemon.stream = []any{
		event("container", "c9", map[string]string{"cc-ci.build": "b2"}), event("container", "c1", map[string]string{"cc-ci.build": "b1"}),
		event("service", "s1", nil), event("service", "s2", nil), event("network", "proxy", map[string]string{"container": "c9"}),
		event("network", "proxy", map[string]string{"container": "c1"}), event("volume", "v", nil), event("node", "n", nil),
	}
	_, body := f.call("GET", "/events", "")
	if got := strings.Count(body, `"Action"`); got != 3 || strings.Contains(body, "b2") || strings.Contains(body, "s2") {
		t.Errorf("the build saw %s", body)
	}
}

// TestLedgerComesFirst looks into the ledger as soon as the answer is there.
func TestLedgerComesFirst(t *testing.T) {
	f := start(t, proxy.Own)
	anon := strings.Repeat("f", 64)
	f.daemon.objects["/containers/new/json"] = map[string]any{"Id": "new", "Name": "/box", "Config": map[string]any{},
		"Mounts": []any{map[string]any{"Type": "volume", "Name": anon}, map[string]any{"Type": "volume", "Name": "named"}}}
	f.daemon.objects["/images/octo/app/json"] = map[string]any{"Id": "sha256:1", "Config": map[string]any{}}
	f.send("POST", "/containers/create?name=box", `{}`)
	f.send("POST", "/services/create", `{"Name":"web","Labels":{"com.docker.stack.namespace":"shop"}}`)
	f.send("POST", "/images/octo/app/tag?repo=docker.io/library/local", "")
	f.send("POST", "/images/create?fromImage=busybox&tag=1", "")
	f.daemon.objects["/tasks"] = []any{map[string]any{"ID": "t", "NodeID": "n1"}}
	f.send("DELETE", "/services/mine", "")
	for _, e := range [][2]string{{"container", "box"}, {"container", "new"}, {"volume", anon}, {"service", "web"}, {"stack", "shop"},
		{"image", "local:latest"}, {"image", "busybox:1"}, {"node", "n1"}} {
		if !f.ledger.Knows(e[0], e[1]) {
			t.Errorf("the ledger does not know the %s %s", e[0], e[1])
		}
	}
	if f.ledger.Knows("volume", "named") {
		t.Error("the ledger takes a named volume of unknown owner for the build's")
	}
}

// A build that gives a service a label of any length must not make its own ledger unreadable: nothing would remove what
// it made. Names that count are written down.
func TestLongStacks(t *testing.T) {
	f := start(t, proxy.Own)
	stack := `{"Name":"web","Labels":{"com.docker.stack.namespace":"%s"}}`
	f.send("POST", "/services/create", fmt.Sprintf(stack, strings.Repeat("<", 1<<19))) // each is six bytes in the ledger
	f.send("POST", "/services/create", fmt.Sprintf(stack, "app"))
	_, entries, err := ledger.Read(filepath.Join(filepath.Dir(filepath.Dir(f.cfg.Socket)), "ledger"), "b1")
	if err != nil || !slices.Contains(entries, ledger.Entry{Kind: "stack", Name: "app"}) {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

// TestHold removes and prunes a network on which a task of a removed service still sits.
func TestHold(t *testing.T) {
	held(t, "DELETE", "/networks/mine")
	held(t, "POST", "/networks/prune")
}

// held wants a call to wait for the task.
func held(t *testing.T, method, path string) {
	t.Helper()
	f := start(t, proxy.Own)
	f.daemon.answers["GET /networks"] = []any{map[string]any{"Id": "id-mine"}}
	f.daemon.objects["/tasks"] = []any{map[string]any{"ID": "t", "ServiceID": "gone", "NodeID": "n1",
		"NetworksAttachments": []any{map[string]any{"Network": map[string]any{"ID": "id-mine"}}}}}
	f.daemon.objects["/nodes"] = []any{map[string]any{"ID": "n1", "Status": map[string]any{"State": "ready"}}}
	done := make(chan int, 1)
	go func() {
		status, _ := f.call(method, path, "")
		done <- status
	}()
	select {
	case status := <-done:
		t.Fatal("the network was removed under a task: ", status)
	case <-time.After(300 * time.Millisecond): // several looks
	}
	f.daemon.mu.Lock()
	f.daemon.objects["/tasks"] = []any{}
	f.daemon.mu.Unlock()
	if status := <-done; status != 200 {
		t.Errorf("the removal ended with %d", status)
	}
}

// file is an entry of an archive.
type file struct {
	tar.Header
	text string
}

// archive is a tar archive of entries.
func archive(t *testing.T, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		f.Size, f.Mode = int64(len(f.text)), 0o644
		if f.Linkname != "" {
			f.Typeflag = tar.TypeSymlink
		}
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// entry is a regular file with an extended attribute.
func entry(name, text string) file {
	return file{tar.Header{Name: name, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}}, text}
}

// link is a symbolic link.
func link(name, to string) file { return file{Header: tar.Header{Name: name, Linkname: to}} }

// TestArchives sends archives through: good ones arrive whole, others not at all.
func TestArchives(t *testing.T) {
	f := start(t, proxy.Own)
	good := archive(t, entry("a/file", "text"), link("link", "a/file"), entry("big", strings.Repeat("x", 1<<20)))
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(good); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"plain": string(good), "gzip": zipped.String()} {
		got := f.send("PUT", "/containers/mine/archive?path=/", body)
		r := tar.NewReader(bytes.NewReader(got.raw))
		h, err := r.Next()
		if err != nil || h.Name != "a/file" || h.PAXRecords["SCHILY.xattr.user.a"] != "b" {
			t.Fatalf("%s: %v, %v", name, h, err)
		}
		if text, err := io.ReadAll(r); err != nil || string(text) != "text" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	manifest := func(tag string) file {
		return entry("manifest.json", fmt.Sprintf(`[{"Config":"c.json","RepoTags":[%q]}]`, tag))
	}
	for _, c := range []struct {
		name, path string
		body       []byte
		status     int
	}{
		{"a device", "/containers/mine/archive?path=/", archive(t, file{Header: tar.Header{Name: "disk", Typeflag: tar.TypeBlock}}), 403},
		{"another's image", "/images/load", archive(t, entry("c.json", "{}"), manifest("theirs:latest")), 403},
		{"another's image in the oldest form", "/images/load", archive(t, entry("repositories", `{"theirs":{"latest":"x"}}`)), 403},
		{"another's image in OCI's form", "/images/load", archive(t, entry("index.json",
			`{"manifests":[{"annotations":{"io.containerd.image.name":"docker.io/library/theirs:latest"}}]}`)), 403},
		{"a link in place of the names", "/images/load", archive(t, link("manifest.json", "other.json")), 400},
		{"names that are none", "/images/load", archive(t, entry("manifest.json", "{")), 400},
		{"no archive", "/images/load", []byte(strings.Repeat("no archive ", 100)), 400},
		{"an unknown compression", "/images/load", []byte("\xfd7zXZ\x00"), 415},
		{"a new image", "/images/load", archive(t, entry("c.json", "{}"), manifest("fresh:1")), 200},
	} {
		method := "POST"
		if strings.HasPrefix(c.path, "/containers") {
			method = "PUT"
		}
		if status, answer := f.call(method, c.path, string(c.body)); status != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, status, answer, c.status)
		}
		if got := f.daemon.take(); (got != nil) != (c.status == 200) {
			t.Errorf("%s: the daemon got all of it: %v", c.name, got != nil)
		}
	}
}

// TestArchiveOfNames loads an image under the name that it has anyway: whose it is shows in the digest of its
// configuration. Digests are not kept without a bound.
func TestArchiveOfNames(t *testing.T) {
	f := start(t, proxy.Own)
	sum := sha256.Sum256([]byte("{}"))
	theirs := map[string]any{"Id": "sha256:" + hex.EncodeToString(sum[:]), "Config": map[string]any{"Labels": map[string]any{"cc-ci.image": "b2"}}}
	f.daemon.objects["/images/theirs:latest/json"] = theirs
	image := []file{entry("c.json", "{}"), entry("manifest.json", `[{"Config":"c.json","RepoTags":["theirs:latest"]}]`)}
	var names []file
	for i := range 5 {
		names = append(names, entry(fmt.Sprint(i, strings.Repeat("x", 900<<10)), ""))
	}
	for _, c := range []struct {
		files  []file
		status int
	}{{image, 200}, {append(names, image...), 403}} {
		if status, answer := f.call("POST", "/images/load", string(archive(t, c.files...))); status != c.status {
			t.Errorf("%d files: %d %s, want %d", len(c.files), status, answer, c.status)
		}
	}
}

// TestStreams takes a connection over, half-closes it, and has it ended by Close.
func TestStreams(t *testing.T) {
	f := start(t, proxy.Own)
	dial := func() (*net.UnixConn, *bufio.Reader) {
		conn, err := net.Dial("unix", f.cfg.Socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // some were closed by the test
		if _, err := io.WriteString(conn, "POST /exec/e1/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(resp, err)
		}
		return conn.(*net.UnixConn), r
	}
	f.daemon.echo = true
	conn, r := dial()
	if _, err := io.WriteString(conn, "sent before the end"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if back, err := io.ReadAll(r); err != nil || string(back) != "sent before the end, and its end" {
		t.Errorf("came back %q, %v", back, err)
	}
	_, open := dial()
	f.proxy.Seal()
	if status, answer := f.call("GET", "/info", ""); status != http.StatusServiceUnavailable || !strings.Contains(answer, "the build is over") {
		t.Errorf("after the seal: %d %s", status, answer)
	}
	if err := f.proxy.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(open); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
	if _, err := os.Stat(f.cfg.Socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// lines is a log whose lines can be waited for.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// TestBrokenAnswer has a daemon that ends in the middle of an answer. The runner's own log says so, and no other.
func TestBrokenAnswer(t *testing.T) {
	f := start(t, proxy.Own)
	said := make(lines, 100)
	logger := logrus.New()
	logger.SetOutput(said)
	f.cfg.Log = logrus.NewEntry(logger)
	f.cfg.Socket = filepath.Join(t.TempDir(), "s", "docker.sock")
	f.cfg.Dial = func(context.Context) (net.Conn, error) {
		conn, daemon := net.Pipe()
		go func() {
			_, _ = http.ReadRequest(bufio.NewReader(daemon)) // the test sees what comes back
			_, _ = io.WriteString(daemon, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
			_ = daemon.Close()
		}()
		return conn, nil
	}
	p, err := proxy.Start(t.Context(), f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := f.client.Get("http://docker/version")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("half an answer is given out as a whole one")
	}
	select {
	case line := <-said:
		if !strings.Contains(line, "level=warning") || !strings.Contains(line, "unexpected EOF") {
			t.Errorf("the log says %q", line)
		}
	case <-time.After(30 * time.Second):
		t.Error("the log says nothing")
	}
	if err := errors.Join(resp.Body.Close(), p.Close()); err != nil {
		t.Error(err)
	}
}

// TestManyConnections has a client that opens more connections than one gets: the last is answered when others close.
// Their end is no matter of patience: Close ends those that wait, too.
func TestManyConnections(t *testing.T) {
	f := start(t, proxy.Own)
	open := make([]net.Conn, 1100)
	for i := range open {
		conn, err := net.Dial("unix", f.cfg.Socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // some are closed below
		open[i] = conn
	}
	last := open[len(open)-1]
	if _, err := io.WriteString(last, "GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := bufio.NewReader(last).ReadString('\n')
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatal("all connections are taken at once: ", err)
	case <-time.After(300 * time.Millisecond): // it waits
	}
	for _, conn := range open[:200] {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	select {
	case err := <-answered:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("a connection is not answered although others have closed")
	}
	for range 1100 { // full again, so that Close finds a server that waits
		conn, err := net.Dial("unix", f.cfg.Socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // the socket has closed it
	}
}

// TestManyBodies announces more large bodies than the runner has memory for. Further ones wait, calls without a body do
// not; when the others end, they are answered.
func TestManyBodies(t *testing.T) {
	f := start(t, proxy.Own)
	large := make([]net.Conn, 20)
	for i := range large {
		conn, err := net.Dial("unix", f.cfg.Socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // closed below, where the test gets there
		if _, err := fmt.Fprintf(conn, "POST /volumes/create HTTP/1.1\r\nHost: docker\r\nContent-Length: %d\r\n\r\n", 1<<20); err != nil {
			t.Fatal(err)
		}
		large[i] = conn
	}
	answered := make(chan int, 1)
	for begun, waits := time.Now(), false; !waits; { // until the others have all begun
		go func() {
			status, _ := f.call("POST", "/volumes/create", `{"Name":"new"}`)
			answered <- status
		}()
		select {
		case <-answered:
			if time.Since(begun) > 30*time.Second {
				t.Fatal("all bodies are read at once")
			}
		case <-time.After(300 * time.Millisecond):
			waits = true
		}
	}
	if status, answer := f.call("GET", "/_ping", ""); status != http.StatusOK {
		t.Errorf("a call without a body: %d %s", status, answer)
	}
	for _, conn := range large {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	select {
	case status := <-answered:
		if status != http.StatusCreated {
			t.Errorf("the call that waited: %d", status)
		}
	case <-time.After(30 * time.Second):
		t.Error("a call waits although the bodies of others are gone")
	}
}

// TestSocket looks at who may get to the socket and to the pins beside it.
func TestSocket(t *testing.T) {
	f := start(t, proxy.Own)
	for path, want := range map[string]os.FileMode{f.cfg.Socket: 0o600, filepath.Dir(f.cfg.Socket): 0o711} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	if os.Geteuid() == 0 {
		f.send("POST", "/containers/create", `{"HostConfig":{"Binds":["`+f.cfg.Workspace+`:/w"]}}`)
		if info, err := os.Stat(proxy.PinDir(f.cfg.Socket)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the pins: %v, %v: another build could get to the workspace", info.Mode(), err)
		}
	}
	cfg := f.cfg
	cfg.Socket = "/" + strings.Repeat("long/", 30) + "docker.sock"
	if _, err := proxy.Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "shorter directory") {
		t.Errorf("a path that is too long: %v", err)
	}
}
