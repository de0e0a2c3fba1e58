package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// daemon is a small Docker daemon: it answers inspections from a table and remembers the other calls.
type daemon struct {
	objects map[string]any // path: what an inspection answers
	answers map[string]any // method and path: what another call answers
	stream  []any          // what /events sends
	echo    bool           // taken-over connections get back what they send, and a word when that ends

	mu      sync.Mutex
	last    *received
	arrived []received // what a build sent: its calls carry fromBuild, those that the socket makes itself do not
}

// fromBuild is a header of a build's calls.
const fromBuild = "X-From-Build"

// received is a call that came through.
type received struct {
	method, path string
	upgrade      string
	query        map[string][]string
	body         map[string]any
	raw          []byte
	header       http.Header
	host         string
}

// apiVersion begins a path, as the daemon reads it.
var apiVersion = regexp.MustCompile(`^/v[0-9.]+/`)

// ServeHTTP implements http.Handler.
func (d *daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := apiVersion.ReplaceAllString(r.URL.Path, "/")
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Content-Type", "application/json")
	if r.Header.Get(fromBuild) != "" && r.Header.Get("Upgrade") == "" {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return // the proxy broke the call off
		}
		r.Body = io.NopCloser(bytes.NewReader(raw))
		d.mu.Lock()
		d.arrived = append(d.arrived, received{method: r.Method, path: path, query: r.URL.Query(), raw: raw, header: r.Header, host: r.Host})
		d.mu.Unlock()
	}
	if path == "/_ping" {
		return
	}
	if d.echo && r.Header.Get("Upgrade") != "" {
		echo(w)
		return
	}
	if path == "/events" {
		for _, e := range d.stream {
			_ = json.NewEncoder(w).Encode(e) // the test sees what it gets
		}
		return
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return // the proxy broke the call off
	}
	d.mu.Lock()
	v, ok := d.objects[path]
	d.mu.Unlock()
	if ok && r.Method == http.MethodGet {
		_ = json.NewEncoder(w).Encode(v) // the test sees what it gets
		return
	}
	answer, known := d.answers[r.Method+" "+path]
	if r.Method == http.MethodGet && !known {
		w.WriteHeader(http.StatusNotFound)
		answer = map[string]string{"message": "no such object"}
	} else {
		call := &received{method: r.Method, path: path, upgrade: r.Header.Get("Upgrade") + r.Header.Get("Http2-Settings"), query: r.URL.Query(), raw: raw}
		_ = json.Unmarshal(raw, &call.body) // not every body is JSON
		d.mu.Lock()
		d.last = call
		d.mu.Unlock()
	}
	if strings.HasSuffix(path, "/create") && answer == nil {
		w.WriteHeader(http.StatusCreated)
		answer = map[string]string{"Id": "new"}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// echo takes a connection over.
func echo(w http.ResponseWriter) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }() // the test sees the end
	if _, err := io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"); err != nil {
		return
	}
	if _, err := io.Copy(conn, rw); err == nil {
		_, _ = io.WriteString(conn, ", and its end") // the test sees what it gets
	}
}

// take returns the last call and forgets it.
func (d *daemon) take() *received {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := d.last
	d.last = nil
	return last
}

// came returns the build's calls since the last time.
func (d *daemon) came() []received {
	d.mu.Lock()
	defer d.mu.Unlock()
	came := d.arrived
	d.arrived = nil
	return came
}

// labelled is the labels of an object of a build.
func labelled(build string) map[string]any {
	if build == "" {
		return map[string]any{}
	}
	return map[string]any{"cc-ci.build": build}
}

// newDaemon has a container, a volume, a network, a service, a secret and a config of the build b1, of the build b2
// (with the name theirs) and of nobody.
func newDaemon() *daemon {
	d := &daemon{objects: map[string]any{
		"/networks/proxy": map[string]any{"Id": "proxyid", "Name": "proxy",
			"Containers": map[string]any{"c1": map[string]any{"Name": "mine"}, "c2": map[string]any{"Name": "theirs"}}},
		"/networks/host":   map[string]any{"Id": "hostid", "Name": "host"},
		"/networks/hostid": map[string]any{"Id": "hostid", "Name": "host"},
		"/exec/e1/json":    map[string]any{"ID": "e1", "ContainerID": "mine"},
		"/exec/e2/json":    map[string]any{"ID": "e2", "ContainerID": "theirs"},
		"/tasks":           []any{},
		"/services":        []any{},
		"/containers/json": []any{map[string]any{"Id": "c1"}},
	}, answers: map[string]any{
		"GET /secrets": []any{}, "GET /networks": []any{}, "GET /configs": []any{}, "GET /containers/id-mine/logs": "", "GET /distribution/a/b/c:1/json": "",
	}}
	for name, build := range map[string]string{"mine": "b1", "theirs": "b2", "host": ""} {
		l := labelled(build)
		spec := map[string]any{"Name": name, "Labels": l}
		d.objects["/containers/"+name+"/json"] = map[string]any{"Id": "id-" + name, "Name": "/" + name, "Config": map[string]any{"Labels": l}}
		d.objects["/volumes/"+name] = map[string]any{"Name": name, "Labels": l}
		d.objects["/tasks/"+name] = map[string]any{"ID": "id-" + name, "Spec": map[string]any{"ContainerSpec": map[string]any{"Labels": l}}}
		d.objects["/services/"+name] = map[string]any{"ID": "id-" + name, "Spec": spec}
		d.objects["/secrets/"+name] = map[string]any{"ID": "id-" + name, "Spec": spec}
		d.objects["/configs/"+name] = map[string]any{"ID": "id-" + name, "Spec": spec}
		made := map[string]any{"Labels": map[string]any{"cc-ci.image": build}}
		d.objects["/images/"+name+":latest/json"] = map[string]any{"Id": "id-" + name, "Config": made}
		d.objects["/images/"+name+"/json"] = d.objects["/images/"+name+":latest/json"]
		if name != "host" {
			d.objects["/networks/"+name] = map[string]any{"Id": "id-" + name, "Name": name, "Labels": l}
		}
	}
	return d
}

// fixture is a socket on a fake daemon.
type fixture struct {
	t      *testing.T
	daemon *daemon
	proxy  *proxy.Proxy
	ledger *ledger.Ledger
	cfg    proxy.Config
	client *http.Client
}

// start serves a build's socket on a fake daemon.
func start(t *testing.T, policy proxy.Policy) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{t: t, daemon: newDaemon()}
	upstream := filepath.Join(dir, "docker.sock")
	listener, err := net.Listen("unix", upstream)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: f.daemon}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	docker, err := client.New(client.WithHost("unix://" + upstream))
	if err != nil {
		t.Fatal(err)
	}
	if f.ledger, err = ledger.Open(filepath.Join(dir, "ledger"), ledger.Header{Build: "b1"}); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "build")
	for _, d := range []string{"", "workspace", "tmp"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	f.cfg = proxy.Config{
		Build: "b1", Labels: map[string]string{"repo": "octo/recipe"}, Socket: filepath.Join(dir, "s", "docker.sock"),
		UID: os.Getuid(), GID: os.Getgid(), Policy: policy, Root: root, Workspace: root + "/workspace", Tmp: root + "/tmp",
		Networks: []string{"proxy"}, Mounts: []string{"/etc/localtime"}, Caps: []string{"NET_ADMIN"}, Docker: docker, Ledger: f.ledger,
		Dial:        func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", upstream) },
		HoldTimeout: time.Minute, BodyLimit: 1 << 20, Log: logrus.NewEntry(log),
	}
	if f.proxy, err = proxy.Start(t.Context(), f.cfg); err != nil {
		t.Fatal(err)
	}
	f.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", f.cfg.Socket)
	}}}
	t.Cleanup(func() {
		f.client.CloseIdleConnections()
		if err := f.proxy.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		for _, err := range []error{f.ledger.Close(), proxy.Unpin(f.cfg.Socket, ""), docker.Close(), server.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
		<-served
	})
	return f
}

// call makes a call and returns the answer.
func (f *fixture) call(method, path, body string) (int, string) {
	f.t.Helper()
	req, err := http.NewRequest(method, "http://docker"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := f.client.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// send makes a call that must come through, and returns it as the daemon got it.
func (f *fixture) send(method, path, body string) *received {
	f.t.Helper()
	status, answer := f.call(method, path, body)
	got := f.daemon.take()
	if status >= 300 || got == nil {
		f.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	return got
}
