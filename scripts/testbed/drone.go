package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"code.gitea.io/sdk/gitea"
	"github.com/drone/drone-go/drone"
)

// Drone is a running Drone server that is connected to a Gitea. It keeps its address and data over a Restart. Its
// methods may be called at the same time.
type Drone struct {
	*Server
	AdminToken string // the API token of Gitea's administrator, who administers Drone too
	RPCSecret  string // what a runner must show

	url   string
	gitea *Gitea

	// mu guards tokens, and is held during a login.
	mu     sync.Mutex
	tokens map[string]string // by login, of those who have logged in
}

// URL is the server's address, without a slash at its end.
func (d *Drone) URL() string { return d.url }

// RPCHost is the server's address as runners want it in DRONE_RPC_HOST; DRONE_RPC_PROTO is http.
func (d *Drone) RPCHost() string { return strings.TrimPrefix(d.url, "http://") }

// startDrone registers Drone with Gitea, starts it and logs the administrator in. The port is taken before the server
// is there, since Gitea wants to know where to send people back to. The settings given win over ours: of two of one
// name a process sees the last, as os/exec leaves it.
func (b *Bed) startDrone(ctx context.Context, program string, settings map[string]string) (*Drone, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.Dir, "drone")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d := &Drone{
		AdminToken: password(), RPCSecret: password(), url: fmt.Sprintf("http://127.0.0.1:%d", port),
		gitea: b.Gitea, tokens: map[string]string{},
	}
	client, err := b.Gitea.Admin.Client(ctx)
	if err != nil {
		return nil, err
	}
	app, _, err := client.CreateOauth2(gitea.CreateOauth2Option{
		Name: "drone", ConfidentialClient: true, RedirectURIs: []string{d.url + "/login"},
	})
	if err != nil {
		return nil, fmt.Errorf("register drone with gitea: %w", err)
	}
	env := append(baseEnv(dir), d.settings(app, dir)...)
	for name, value := range settings {
		env = append(env, name+"="+value)
	}
	d.Server = &Server{
		name: "drone", program: program, env: env, dir: dir,
		logPath: filepath.Join(dir, "drone.log"), health: d.url + "/healthz",
	}
	if err := d.Start(ctx); err != nil {
		return nil, err
	}
	if _, err := d.Login(ctx, b.Gitea.Admin); err != nil {
		return nil, errors.Join(err, d.Stop(ctx))
	}
	return d, nil
}

// settings are the variables that connect Drone to its Gitea. DRONE_USER_CREATE makes the administrator's account with
// a token of our choice before anybody has logged in; the account can see repositories only after a login.
func (d *Drone) settings(app *gitea.Oauth2, dir string) []string {
	return []string{
		"DRONE_GITEA_SERVER=" + d.gitea.URL(),
		"DRONE_GITEA_CLIENT_ID=" + app.ClientID,
		"DRONE_GITEA_CLIENT_SECRET=" + app.ClientSecret,
		"DRONE_SERVER_HOST=" + d.RPCHost(),
		"DRONE_SERVER_PORT=" + d.RPCHost(),
		"DRONE_SERVER_PROTO=http",
		"DRONE_RPC_SECRET=" + d.RPCSecret,
		"DRONE_USER_CREATE=username:" + d.gitea.Admin.Name + ",machine:false,admin:true,token:" + d.AdminToken,
		"DRONE_DATABASE_DATASOURCE=" + filepath.Join(dir, "drone.sqlite"),
		"DRONE_LOGS_DEBUG=true",
		"DRONE_DATADOG_ENABLED=false", // by default it would report to its maker
	}
}

// Login logs a user of Gitea in to Drone, as a browser would, and returns the user's API token. Drone can see a user's
// repositories only after that: it asks Gitea with the OAuth token which the login brings. Later calls return the same
// token at once. One login at a time.
func (d *Drone) Login(ctx context.Context, user *User) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if token, ok := d.tokens[user.Name]; ok {
		return token, nil
	}
	token, err := d.login(ctx, user)
	if err != nil {
		return "", fmt.Errorf("log %s in to drone: %w", user.Name, err)
	}
	d.tokens[user.Name] = token
	return token, nil
}

// login goes the way of a person who clicks: Gitea's form, Drone's login, which sends to Gitea's page of consent, and
// back. Gitea's forms of this version carry no token of their own: it looks at the headers that browsers add.
func (d *Drone) login(ctx context.Context, user *User) (string, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return "", err
	}
	web := browser{ctx: ctx, client: &http.Client{Jar: jar, Timeout: time.Minute}}
	form := url.Values{"user_name": {user.Name}, "password": {user.Password}}
	if _, err := web.post(d.gitea.url+"/user/login", form); err != nil {
		return "", err
	}
	// Drone sends us to Gitea's page that asks for consent.
	page, err := web.get(d.url + "/login")
	if err != nil {
		return "", err
	}
	// The page's form repeats what came in its address.
	query := page.Request.URL.Query()
	form = url.Values{"granted": {"true"}, "nonce": {""}}
	for _, name := range []string{"client_id", "state", "scope", "redirect_uri"} {
		form.Set(name, query.Get(name))
	}
	// Consent sends us back to Drone, which makes the account.
	answer, err := web.post(d.gitea.url+"/login/oauth/grant", form)
	if err != nil {
		return "", err
	}
	if _, err := web.get(answer.Header.Get("Location")); err != nil {
		return "", err
	}
	// Its token was chosen at the start; to ask for another is not needed.
	if user == d.gitea.Admin {
		return d.AdminToken, nil
	}
	var account struct{ Token string }
	err = web.postJSON(d.url+"/api/user/token", &account)
	if err == nil && account.Token == "" {
		err = errors.New("drone gave no token")
	}
	return account.Token, err
}

// browser is an HTTP client with cookies that treats every answer but a good one as an error. Its errors name paths
// only: the queries hold codes that are worth a login.
type browser struct {
	ctx    context.Context
	client *http.Client
}

// get follows redirects to the page at their end.
func (b browser) get(address string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(b.ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	return b.do(b.client, request, http.StatusOK)
}

// post sends a form. A form that was taken is answered with a redirect, which is not followed: the dashboard that
// follows a login takes long to draw.
func (b browser) post(address string, form url.Values) (*http.Response, error) {
	request, err := http.NewRequestWithContext(b.ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// A copy with the same cookies.
	stay := *b.client
	stay.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b.do(&stay, request, http.StatusSeeOther)
}

// do drops the body: where the way leads on is in the headers and the address.
func (b browser) do(client *http.Client, request *http.Request, want int) (*http.Response, error) {
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if err := response.Body.Close(); err != nil {
		return nil, err
	}
	if response.StatusCode != want {
		return nil, fmt.Errorf("%s %s: %s", request.Method, request.URL.Path, response.Status)
	}
	return response, nil
}

// postJSON asks an API with the cookies of the login.
func (b browser) postJSON(address string, into any) error {
	request, err := http.NewRequestWithContext(b.ctx, http.MethodPost, address, nil)
	if err != nil {
		return err
	}
	response, err := b.client.Do(request)
	if err != nil {
		return err
	}
	return errors.Join(json.NewDecoder(response.Body).Decode(into), response.Body.Close())
}

// Client returns a Drone client with a user's token; its calls end with the context.
func (d *Drone) Client(ctx context.Context, token string) drone.Client {
	return drone.NewClient(d.url, d.HTTPClient(ctx, token))
}

// HTTPClient returns an HTTP client that shows a token to Drone; its calls end with the context.
func (d *Drone) HTTPClient(ctx context.Context, token string) *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: bearer{ctx: ctx, token: token}}
}

// Admin returns a Drone client of the administrator, who may do everything to every repository.
func (d *Drone) Admin(ctx context.Context) drone.Client { return d.Client(ctx, d.AdminToken) }

// bearer adds a token and a context to each request, since drone-go takes neither. A context in a struct is right only
// here: each call makes a bearer of its own.
type bearer struct {
	ctx   context.Context
	token string
}

// RoundTrip satisfies http.RoundTripper.
func (b bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	// http.RoundTripper must not change the request that it is given.
	request = request.Clone(b.ctx)
	request.Header.Set("Authorization", "Bearer "+b.token)
	return http.DefaultTransport.RoundTrip(request)
}
