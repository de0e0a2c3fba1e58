package client

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/drone/drone-go/drone"
	runner "github.com/drone/runner-go/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/runtimetest"
)

// childVariable makes this binary a process that pings a server by name, for the test of the proxy variables.
const childVariable = "CC_CI_CLIENT_TEST_PING"

func TestMain(m *testing.M) {
	host := os.Getenv(childVariable)
	if host == "" {
		os.Exit(m.Run())
	}
	c, err := New(Config{Proto: "http", Host: host, Secret: "x"})
	if err == nil {
		err = c.Ping(context.Background(), "")
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// TestConfig checks what New refuses, and that the error names the setting.
func TestConfig(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ proto, host, secret, want string }{
		{"http", "drone.example.com", "x", ""},
		{"https", "drone.example.com:8443/below/", "x", ""},
		{"https", "[::1]:8080", "x", ""},
		{"", "drone.example.com", "x", "DRONE_RPC_PROTO"},
		{"ftp", "drone.example.com", "x", "DRONE_RPC_PROTO"},
		{"http", "", "x", "DRONE_RPC_HOST"},
		{"http", "https://drone.example.com", "x", "DRONE_RPC_HOST"},
		{"http", "user:canary@drone.example.com", "x", "DRONE_RPC_HOST"},
		{"http", "drone.example.com?token=canary", "x", "DRONE_RPC_HOST"},
		{"http", "drone example", "x", "DRONE_RPC_HOST"},
		{"http", "drone.example.com", "", "DRONE_RPC_SECRET"},
	} {
		c, err := New(Config{Proto: tt.proto, Host: tt.host, Secret: tt.secret})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s %s: %v", tt.proto, tt.host, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "canary")):
			t.Errorf("%s %q: got %v, want one that names %s", tt.proto, tt.host, err, tt.want)
		}
		if err == nil {
			c.Close()
		}
	}
	if base, _ := baseURL("https", "drone.example.com:8443/below/"); base != "https://drone.example.com:8443/below/rpc/v2" {
		t.Errorf("the base is %s", base)
	}
}

// TestBuild takes a stage the whole way and compares the calls with those of a build of the old runner.
func TestBuild(t *testing.T) {
	t.Parallel()
	f := started(t)
	ctx := t.Context()
	f.must(f.c.Join(ctx, machine))
	f.must(f.c.Ping(ctx, machine))
	_, err := f.c.Detail(ctx, f.stage)
	f.must(err)
	f.must(f.c.Batch(ctx, f.step().ID, lines(3, "x")))
	f.must(f.c.Upload(ctx, f.step().ID, lines(3, "x")))
	f.end()
	f.must(f.c.UpdateStep(ctx, f.step()))
	for _, skipped := range f.stage.Steps[1:] {
		skipped.Status = drone.StatusSkipped
		f.must(f.c.UpdateStep(ctx, skipped))
	}
	f.must(f.inStep())
	f.stage.Status = drone.StatusPassing // the steps go along this time, under their right versions
	f.must(f.c.Update(ctx, f.stage))
	f.must(f.inStep())
	f.must(f.c.Leave(ctx, machine))
	if got := f.srv.Build(f.job.Build).Status; got != drone.StatusPassing {
		t.Errorf("the build is %s", got)
	}
	if log := f.srv.Logs(f.step().ID); runtimetest.Text(log.Live) != "xxx" || runtimetest.Text(log.Stored) != "xxx" || log.Open {
		t.Errorf("the log is %+v", log)
	}
	var calls []string
	for _, r := range f.srv.Requests() {
		calls = append(calls, string(r.Call))
	}
	want := "request, accept, stage running, step running, ping, detail, batch, upload, step final, step final, step final, stage final"
	if got := strings.Join(calls, ", "); got != want {
		t.Errorf("calls\n got %s\nwant %s", got, want)
	}
	if got := f.srv.Requests(runtimetest.Accept)[0].Path; got != fmt.Sprintf("/rpc/v2/stage/%d?machine=host+%%26+co", f.stage.ID) {
		t.Errorf("accepted by %s", got)
	}
}

// TestFilter: what the runner asks for reaches the server, labels too.
func TestFilter(t *testing.T) {
	t.Parallel()
	srv := runtimetest.NewServer(t, runtimetest.Poll(50*time.Millisecond))
	c := connect(t, srv)
	srv.Enqueue(runtimetest.Job{Stages: []drone.Stage{{OS: "plan9", Arch: "mips", Labels: map[string]string{"disk": "big"}}}})
	ask := &runner.Filter{Kind: "pipeline", Type: "exec", OS: "plan9", Arch: "mips"}
	if stage, err := c.Request(t.Context(), ask); stage != nil || err != nil {
		t.Errorf("without the label: %v, %v", stage, err)
	}
	ask.Labels = map[string]string{"disk": "big"}
	if stage, err := c.Request(t.Context(), ask); stage == nil || err != nil {
		t.Errorf("with the label: %v, %v", stage, err)
	}
}

// TestDetailIsWhole: details that would make a caller stumble over nil are not passed on.
func TestDetailIsWhole(t *testing.T) {
	t.Parallel()
	f := accepted(t)
	for body, whole := range map[string]bool{
		`{"build":{},"stage":{},"repository":{}}`:                                                    true,
		`{"build":{},"stage":{},"repository":{},"netrc":null,"secrets":null,"config":{"Data":null}}`: true,
		`{"stage":{},"repository":{}}`:                                                               false,
		`{}`:                                                                                         false,
		`null`:                                                                                       false,
	} {
		f.srv.Heal()
		f.srv.Script(runtimetest.Detail, runtimetest.StatusText(200, body), 1)
		before := len(f.srv.Requests(runtimetest.Detail))
		details, err := f.c.Detail(t.Context(), f.stage)
		f.must(err)
		if details.Config == nil || details.System == nil || details.Repo == nil {
			t.Errorf("%s: details with a nil: %+v", body, details)
		}
		if asked := len(f.srv.Requests(runtimetest.Detail)) - before; (asked == 1) != whole {
			t.Errorf("%s: asked %d times", body, asked)
		}
	}
}

// TestProxyVariables: the proxy of the environment is used, in a process that starts with it.
func TestProxyVariables(t *testing.T) {
	t.Parallel()
	hosts := make(chan string, 10)
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { hosts <- r.URL.Host + r.URL.Path }))
	t.Cleanup(proxy.Close)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self)
	child.Env = []string{childVariable + "=drone.invalid:81", "http_proxy=" + proxy.URL}
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := <-hosts; got != "drone.invalid:81/rpc/v2/ping" {
		t.Errorf("the proxy was asked for %s", got)
	}
}
