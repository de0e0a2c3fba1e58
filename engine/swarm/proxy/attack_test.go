package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// raw sends bytes as they are, which need not be a request, and returns the answer's status and body.
func (f *fixture) raw(text string) (int, string) {
	f.t.Helper()
	conn, err := net.Dial("unix", f.cfg.Socket)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // the answer is what counts
	if _, err := io.WriteString(conn, text); err != nil {
		return 0, err.Error() // refused before it was read to the end
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err.Error()
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, ""
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return resp.StatusCode, err.Error()
	}
	return resp.StatusCode, string(body)
}

// request is a build's call as bytes.
func request(method, target, headers, body string) string {
	length := ""
	if body != "" {
		length = fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n%s: 1\r\n%s%s\r\n%s", method, target, fromBuild, headers, length, body)
}

const asJSON = "Content-Type: application/json\r\n"

// apiCalls reads the list of every call of the Docker API: path, method, verdict.
func apiCalls(t *testing.T) map[string]map[string]string {
	t.Helper()
	text, err := os.ReadFile("testdata/api.txt")
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]map[string]string{}
	for line := range strings.Lines(string(text)) {
		word := strings.Fields(line)
		if strings.HasPrefix(line, "#") || len(word) != 3 {
			continue
		}
		if calls[word[1]] == nil {
			calls[word[1]] = map[string]string{}
		}
		calls[word[1]][word[0]] = word[2]
	}
	return calls
}

// TestEveryCall makes every call of the Docker API with every method, on what the build made and on what others made.
func TestEveryCall(t *testing.T) {
	f := start(t, proxy.Own)
	tried := 0
	for path, verdicts := range apiCalls(t) {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "POſT"} {
			for _, version := range []string{"", "/v1.12", "/v1.41"} {
				for _, whose := range []string{"mine", "theirs"} {
					f.everyCall(method, version+path, whose, verdicts[method])
					tried++
				}
			}
		}
	}
	t.Logf("%d calls", tried)
	if tried < 5000 {
		t.Errorf("only %d calls were tried", tried)
	}
}

// everyCall makes one call and compares what becomes of it with the verdict.
func (f *fixture) everyCall(method, path, whose, verdict string) {
	f.t.Helper()
	exec := map[string]string{"mine": "e1", "theirs": "e2"}[whose]
	target := strings.NewReplacer("{id}", whose, "{name}", whose, "{exec}", exec).Replace(path)
	if strings.HasSuffix(path, "/commit") {
		target += "?container=" + whose
	}
	body := `{"Container":"mine"}`
	if strings.HasSuffix(path, "/exec/{exec}/start") || strings.HasSuffix(path, "/create") || strings.HasSuffix(path, "/update") {
		body = "{}"
	}
	if strings.HasSuffix(path, "/archive") || strings.HasSuffix(path, "/load") {
		body = string(archive(f.t))
	}
	if strings.HasSuffix(path, "/images/create") {
		target += "?fromImage=fresh"
	}
	status, answer := f.raw(request(method, target, asJSON, body))
	came := len(f.daemon.came())
	switch {
	case verdict == "shared", verdict == "own" && whose == "mine":
		// The build cache is everybody's, so its prune is answered without the daemon.
		if status >= 400 && status != http.StatusNotFound || (came != 1 && !strings.HasSuffix(path, "/build/prune")) {
			f.t.Errorf("%s %s: %d %s, %d calls came through", method, target, status, answer, came)
		}
	case came != 0 && method != "GET" || status < 400: // whose an object is can stand in the daemon's answer
		f.t.Errorf("%s %s: %d %s, %d calls came through", method, target, status, answer, came)
	case verdict == "own" && method != "HEAD" && !strings.Contains(answer, "rule own-objects:") && !strings.Contains(answer, "rule networks:"),
		verdict != "" && verdict != "own" && !strings.Contains(answer, "rule "+verdict+":"):
		f.t.Errorf("%s %s: %d %s, want it refused by name", method, target, status, answer)
	}
}

// TestPathTricks writes forbidden paths in other ways.
func TestPathTricks(t *testing.T) {
	f := start(t, proxy.Own)
	for _, c := range [][2]string{{"POST", "/swarm/leave"}, {"GET", "/secrets/theirs"}, {"DELETE", "/containers/theirs"},
		{"POST", "/containers/theirs/exec"}, {"GET", "/swarm"}} {
		first, last, _ := strings.Cut(c[1][1:], "/")
		for _, path := range []string{
			c[1], "/" + c[1], "/." + c[1], "/v1.41/" + c[1], "/v1.41/.." + c[1], "/%2e%2e" + c[1], "/%2e" + c[1], "/v1.41/v1.41" + c[1],
			"/v1.41%2f" + c[1][1:], "/%2f" + c[1][1:], "%2f" + c[1][1:], c[1] + "/", c[1] + "/.", c[1] + "%2f", c[1] + "//", "/" + strings.ToUpper(first) + "/" + last,
			"/" + first + "%2f" + last, "/" + first + "//" + last, "/" + first + "/./" + last, "/" + first + "/x/../" + last, "/" + first + "/%2e%2e/" + first + "/" + last,
			c[1] + ";a=b", c[1] + "%00", c[1] + "%0a", c[1] + "%20", "/%0a" + c[1], c[1] + "#x", c[1] + "%23", c[1] + "%3f", c[1] + "?a;b", "\\" + c[1], "*",
			"/v" + c[1], "/v1" + c[1], "/v..." + c[1], "/v1.41.99" + c[1], "/V1.41" + c[1], "/v1.41;" + c[1], "/v1.41 " + c[1],
			"http://docker" + c[1], "http://docker/" + c[1], "http://docker/v1.41/." + c[1], "unix://docker" + c[1], "docker:80", "//docker" + c[1],
			"/images/x/../.." + c[1], "/images/x%2f..%2f..%2f" + c[1][1:] + "/json", "/images/json/../.." + c[1], "/distribution/.." + c[1] + "/json",
			"/containers/mine/json/../../.." + c[1], "/containers/mine%2f..%2f..%2f" + c[1][1:], "/networks/mine/../.." + c[1], "/_ping/.." + c[1],
			"/info/../" + c[1], "/nodes/.." + c[1], "/nodes/%2e%2e%2f" + c[1][1:],
		} {
			status, answer := f.raw(request(c[0], path, asJSON, "{}"))
			came := f.daemon.came()
			if len(came) > 0 && c[0] != "GET" || status < 400 && status != 0 || strings.Contains(answer, "id-theirs") {
				t.Errorf("%s %q: %d %s; it came through as %+v", c[0], path, status, answer, came)
			}
		}
	}
}

// TestProtocolTricks sends forbidden calls in other forms of the protocol.
func TestProtocolTricks(t *testing.T) {
	f := start(t, proxy.Own)
	privileged := `{"HostConfig":{"Privileged":true}}`
	chunked := fmt.Sprintf("Transfer-Encoding: chunked\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", asJSON, len(privileged), privileged)
	for name, text := range map[string]string{
		"HTTP/1.0":              "POST /swarm/leave HTTP/1.0\r\n" + fromBuild + ": 1\r\n\r\n",
		"HTTP/0.9":              "GET /swarm\r\n",
		"no host":               "POST /swarm/leave HTTP/1.1\r\n" + fromBuild + ": 1\r\n\r\n",
		"two hosts":             "POST /swarm/leave HTTP/1.1\r\nHost: a\r\nHost: b\r\n" + fromBuild + ": 1\r\n\r\n",
		"HTTP/2 by knowledge":   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"an upgrade to HTTP/2":  request("POST", "/swarm/leave", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAA\r\n", ""),
		"an upgrade to a shell": request("POST", "/containers/theirs/attach", "Connection: Upgrade\r\nUpgrade: tcp\r\n", ""),
		"another method inside": request("GET", "/swarm", "X-HTTP-Method-Override: GET\r\n", ""),
		"a tunnel":              "CONNECT docker:80 HTTP/1.1\r\nHost: docker\r\n" + fromBuild + ": 1\r\n\r\nPOST /swarm/leave HTTP/1.1\r\n\r\n",
		"chunks":                "POST /containers/create HTTP/1.1\r\nHost: d\r\n" + fromBuild + ": 1\r\n" + chunked,
		"chunks and a length":   "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n" + fromBuild + ": 1\r\n" + chunked,
		"two lengths":           "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nContent-Length: 40\r\n" + fromBuild + ": 1\r\n\r\n" + privileged,
		"a folded header":       "POST /swarm/leave HTTP/1.1\r\nHost: d\r\nX: a\r\n b\r\n" + fromBuild + ": 1\r\n\r\n",
		"a huge header":         "POST /swarm/leave HTTP/1.1\r\nHost: d\r\nX: " + strings.Repeat("a", 2<<20) + "\r\n\r\n",
		"a huge body":           request("POST", "/containers/create", asJSON, `{"Image":"`+strings.Repeat("a", 1<<20)+`"}`),
		"a body that is a list": request("POST", "/containers/create", asJSON, `[{"HostConfig":{"Privileged":true}}]`),
		"the last of two keys":  request("POST", "/containers/create", asJSON, `{"HostConfig":{},"HostConfig":{"Privileged":true}}`),
		"a parameter twice":     request("POST", "/build?networkmode=default&networkmode=host", "", ""),
		"a parameter by a form": request("POST", "/commit", "Content-Type: Application/X-WWW-Form-URLencoded\r\n", "container=mine"),
	} {
		status, answer := f.raw(text)
		if came := f.daemon.came(); len(came) > 0 || status < 400 && status != 0 {
			t.Errorf("%s: %d %s; it came through as %+v", name, status, answer, came)
		}
	}
}

// TestWhatArrives makes calls that are allowed, with something forbidden beside them that must not arrive.
func TestWhatArrives(t *testing.T) {
	f := start(t, proxy.Own)
	host := `{"Privileged":true,"Binds":["/:/host"]}`
	for _, c := range []struct{ name, method, target, headers, body string }{
		{"a host configuration on start", "POST", "/v1.23/containers/mine/start", asJSON, host},
		{"a body on another call", "POST", "/containers/mine/kill", asJSON, host},
		{"a body on a list", "GET", "/containers/json", asJSON, host},
		{"filters in a form", "POST", "/volumes/prune", "Content-Type: Application/x-WWW-form-urlencoded\r\n", "filters=%7B%7D"},
		{"filters in a form with a parameter", "POST", "/volumes/prune", "Content-Type: application/x-www-form-urlencoded; a\r\n", "filters=%7B%7D"},
		{"a form of parts", "POST", "/containers/prune", "Content-Type: Multipart/form-data; boundary=b\r\n", "--b\r\nContent-Disposition: form-data; name=\"filters\"\r\n\r\n{}\r\n--b--"},
		{"two types", "POST", "/networks/prune", asJSON + "Content-Type: application/x-www-form-urlencoded\r\n", "filters=%7B%7D"},
		{"a build's form", "POST", "/build", "Content-Type: APPLICATION/x-www-form-urlencoded\r\n", "networkmode=host"},
		{"the first of two keys", "POST", "/containers/create", asJSON, `{"HostConfig":` + host + `,"HostConfig":{}}`},
		{"a second value", "POST", "/containers/create", asJSON, `{"Image":"i"}{"HostConfig":` + host + `}`},
		{"another's Host", "GET", "/info", "X-Forwarded-Host: evil\r\nForwarded: host=evil\r\n", ""},
	} {
		status, answer := f.raw(request(c.method, c.target, c.headers, c.body))
		came := f.daemon.came()
		if len(came) != 1 || status >= 400 && status != http.StatusNotFound {
			t.Errorf("%s: %d %s, %d calls came through", c.name, status, answer, len(came))
			continue
		}
		got := came[0]
		form := strings.Contains(strings.ToLower(strings.Join(got.header["Content-Type"], " ")), "form")
		if strings.Contains(string(got.raw), "Privileged") || form || got.host != "docker" || len(got.header["X-Forwarded-Host"]) > 0 {
			t.Errorf("%s: the daemon got %s with %v", c.name, got.raw, got.header)
		}
		if strings.HasSuffix(c.target, "/prune") && !strings.Contains(fmt.Sprint(got.query["filters"]), "cc-ci.build=b1") {
			t.Errorf("%s: the prune is not narrowed: %v", c.name, got.query)
		}
	}
}
