package main

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/drone/drone-go/drone"
	"github.com/drone/runner-go/client"
)

// DRONE_ENV_PLUGIN_ENDPOINT was documented and did not exist: variables come from the plugin, and the values that it
// marks are masked. A plugin that fails is the stage's error.
func TestEnvironmentPlugin(t *testing.T) {
	answer := `[{"name":"REGION","data":"north"},{"name":"PIN","data":"canary-pin","mask":true}]`
	plugin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answer == "" || !strings.Contains(r.Header.Get("Signature"), "hmac-sha256") {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		if _, err := w.Write([]byte(answer)); err != nil {
			t.Error(err)
		}
	}))
	defer plugin.Close()
	p := newPreparer(&Config{EnvEndpoint: plugin.URL, EnvToken: "key", Root: t.TempDir(), Name: "tester", RPCProto: "http", RPCHost: "drone"})
	detail := &client.Context{
		Build: &drone.Build{Event: "push", Ref: "refs/heads/main"}, Repo: &drone.Repo{Slug: "octo/hello"},
		Stage: &drone.Stage{ID: 1, Name: "default"}, System: &drone.System{},
		Config: &client.File{Data: []byte(yaml("env"))},
	}
	spec, err := p.prepare(t.Context(), detail)
	if err != nil {
		t.Fatal(err)
	}
	if env := spec.Steps[0].Env; env["REGION"] != "north" || env["PIN"] != "canary-pin" {
		t.Errorf("the step gets %v", env)
	}
	if !slices.Contains(spec.Mask, "canary-pin") || slices.Contains(spec.Mask, "north") {
		t.Errorf("masked are %d values", len(spec.Mask))
	}
	// An error about the file quotes it, after substitution.
	bad := *detail
	bad.Config = &client.File{Data: []byte(strings.Replace(yaml("env"), "  commands:", "  shell: ${PIN}\n  commands:", 1))}
	if _, err := p.prepare(t.Context(), &bad); err == nil || !strings.Contains(err.Error(), "`shell: ******`") || strings.Contains(err.Error(), "canary") {
		t.Errorf("the error of a file with a masked value is %v", err)
	}
	answer = ""
	if _, err := p.prepare(t.Context(), detail); err == nil || !strings.Contains(err.Error(), "DRONE_ENV_PLUGIN_ENDPOINT") {
		t.Errorf("a plugin that fails: %v", err)
	}
}
