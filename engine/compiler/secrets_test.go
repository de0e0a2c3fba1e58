package compiler

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/drone/drone-go/drone"
	plugin "github.com/drone/drone-go/plugin/secret"
	"github.com/drone/runner-go/secret"
	"github.com/sirupsen/logrus"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

const wantsToken = "- name: a\n  commands: [x]\n  environment:\n    TOKEN:\n      from_secret: token\n"

func TestMissingSecret(t *testing.T) {
	in := sample(pipeline(wantsToken + "- name: b\n  environment: {X: {from_secret: other}}\n"))
	want := ".drone.yml:10:20: step `a` needs the secret `token` for TOKEN, which does not exist (secret)\n" +
		".drone.yml:12:34: step `b` needs the secret `other` for X, which does not exist (secret)"
	equal(t, "without a provider", refusal(t, in), want)

	in.Secrets = Secrets([]*drone.Secret{nil, {Name: "Token", Data: "s3cr3t"}}, nil)
	if got := refusal(t, in); strings.Contains(got, "token") || !strings.Contains(got, "`other`") {
		t.Errorf("with one of two: %s", got)
	}

	in.Build.Event = drone.EventPullRequest
	spec := prepared(t, in)
	for i, name := range []string{"token", "other"} {
		step := spec.Steps[i]
		if len(step.Secrets) != 1 || step.Secrets[0].Value != "" || len(step.Notes) != 1 || !strings.Contains(step.Notes[0], name) {
			t.Errorf("on a pull request: %+v, notes %q", step.Secrets, step.Notes)
		}
	}
}

func TestMissingSecretOfAStepThatDoesNotRun(t *testing.T) {
	in := sample(pipeline(wantsToken + "  when: {event: tag}\n"))
	if spec := prepared(t, in); len(spec.Steps) != 0 {
		t.Errorf("steps: %s", edges(spec))
	}
}

func TestServerSecretsOnPullRequests(t *testing.T) {
	in := sample(pipeline(wantsToken))
	in.Build.Event = drone.EventPullRequest
	for allowed, want := range map[bool]string{true: "s3cr3t", false: ""} {
		in.Secrets = Secrets([]*drone.Secret{{Name: "token", Data: "s3cr3t", PullRequest: allowed}}, nil)
		equal(t, "value", prepared(t, in).Steps[0].Secrets[0].Value, want)
	}
}

// encrypt makes the `data` of a `kind: secret`.
func encrypt(t *testing.T, key, text string) string {
	t.Helper()
	block, err := aes.NewCipher([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, gcm.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(gcm.Seal(nonce, nonce, []byte(text), nil))
}

func TestEncryptedSecret(t *testing.T) {
	const key = "0123456789abcdef0123456789abcdef"
	in := sample(pipeline(wantsToken) + "---\nkind: secret\nname: token\ndata: " + encrypt(t, key, "s3cr3t") + "\n")
	in.Repo.Secret = key
	in.Secrets = Secrets(nil, nil)
	equal(t, "on a push", prepared(t, in).Steps[0].Secrets[0].Value, "s3cr3t")

	in.Build.Event, in.Build.Fork = drone.EventPullRequest, "evil/fork"
	equal(t, "from a fork of a public repository", prepared(t, in).Steps[0].Secrets[0].Value, "")
	in.Repo.Private = true
	equal(t, "from a fork of a private repository", prepared(t, in).Steps[0].Secrets[0].Value, "s3cr3t")

	in.Build.Event, in.Repo.Secret = drone.EventPush, "another key.....another key....."
	if got := refusal(t, in); !strings.Contains(got, "cannot be had") || strings.Contains(got, "another") {
		t.Errorf("with a wrong key: %s", got)
	}
}

// extension is a real secret extension: an HTTP server with drone-go's handler.
type extension struct {
	pull  bool
	asked []string
}

func (e *extension) Find(_ context.Context, r *plugin.Request) (*drone.Secret, error) {
	e.asked = append(e.asked, r.Path+"#"+r.Name)
	if r.Path == "broken" {
		return nil, errors.New("the vault is sealed\n\x1b[2J" + strings.Repeat("x", 5000))
	}
	return &drone.Secret{Name: r.Name, Data: "s3cr3t", Pull: e.pull}, nil
}

func (e *extension) start(t *testing.T) secret.Provider {
	t.Helper()
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	server := httptest.NewServer(plugin.Handler("key", e, quiet))
	t.Cleanup(server.Close)
	return External(server.URL, "key", false)
}

func withExternal(path string) string {
	return pipeline(wantsToken) + "---\nkind: secret\nname: token\nget: {path: " + path + ", name: password}\n"
}

// A secret that the extension does not release to pull requests reached them all the same.
func TestExternalSecret(t *testing.T) {
	for _, test := range []struct {
		event string
		pull  bool
		want  string
	}{
		{drone.EventPush, false, "s3cr3t"}, {drone.EventPush, true, "s3cr3t"},
		{drone.EventPullRequest, true, "s3cr3t"}, {drone.EventPullRequest, false, ""},
	} {
		e := &extension{pull: test.pull}
		in := sample(withExternal("docker"))
		in.Build.Event = test.event
		in.Secrets = Secrets(nil, e.start(t))
		step := prepared(t, in).Steps[0]
		if step.Secrets[0].Value != test.want {
			t.Errorf("%s, pull %v: %q", test.event, test.pull, step.Secrets[0].Value)
		}
		if len(e.asked) != 1 || e.asked[0] != "docker#password" {
			t.Errorf("asked for %q", e.asked)
		}
	}
}

func TestExternalSecretFails(t *testing.T) {
	in := sample(withExternal("broken"))
	in.Secrets = Secrets(nil, new(extension).start(t))
	if got := refusal(t, in); !strings.HasPrefix(got, ".drone.yml:10:20: ") || !strings.Contains(got, "cannot be had") ||
		strings.ContainsAny(got, "\n\x1b") || len(got) > 400 {
		t.Errorf("%q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Prepare(ctx, in); err == nil {
		t.Error("a cancelled question is answered")
	}
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	in.Secrets = Secrets(nil, External(server.URL, "key", false))
	if got := refusal(t, in); !strings.Contains(got, "cannot be had") {
		t.Error(got)
	}
}

func TestEachSecretIsAskedForOnce(t *testing.T) {
	e := new(extension)
	in := sample(pipeline(wantsToken+strings.Replace(wantsToken, "name: a", "name: b", 1)) + "---\nkind: secret\nname: token\nget: {path: docker, name: password}\n")
	in.Secrets = Secrets(nil, e.start(t))
	if spec := prepared(t, in); len(e.asked) != 1 || spec.Steps[1].Secrets[0].Value != "s3cr3t" {
		t.Errorf("asked %d times", len(e.asked))
	}
}

// What `compile` prints holds no secret.
func TestSpecPrintsNoSecrets(t *testing.T) {
	in := sample("kind: pipeline\ntype: exec\nsteps:\n" + wantsToken)
	in.Secrets = secret.StaticVars(map[string]string{"token": "canary-secret"})
	in.Netrc = &drone.Netrc{Machine: "git.example.com", Login: "octocat", Password: "canary-netrc"}
	in.Repo.Secret, in.Repo.Signer = "canary-key", "canary-signer"
	for _, all := range []bool{false, true} {
		in.Options.NetrcAllSteps = all
		spec := prepared(t, in)
		text, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "canary") {
			t.Errorf("printed: %s", text)
		}
		if !strings.Contains(string(text), `"env":"TOKEN"`) {
			t.Errorf("the variable is not printed: %s", text)
		}
		if spec.Steps[1].Secrets[0] != (engine.Secret{Env: "TOKEN", Name: "token", Value: "canary-secret"}) {
			t.Errorf("secrets: %+v", spec.Steps[1].Secrets)
		}
	}
}
