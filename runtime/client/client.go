// Package client is the runner's half of Drone's runner API (/rpc/v2) over HTTP. It satisfies the Client interface of
// runner-go, and it differs from that library's own client in what happens when something goes wrong:
//
//   - Nothing is retried except faults; pauses grow, are jittered and capped, and end with the context.
//   - An empty long poll is an answer, so the poller can ask again at once and no cancel falls into a gap.
//   - What a caller handed in (versions above all) changes only when the server has answered well.
//   - A call whose answer got lost is sorted out: the client finds out whether the server applied it.
//   - The runner's secret appears in no error, log line or dump.
//
// Start reading at call.go (one attempt), then retry.go, then stage.go and step.go (the calls).
package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	runner "github.com/drone/runner-go/client"
	"github.com/sirupsen/logrus"
)

// Client talks to one Drone server. It is safe for use by many goroutines; calls about one stage or step that carry a
// version must come one after the other, because each of them moves the version.
type Client struct {
	base    string
	secret  string
	hide    *strings.Replacer // the secret in any text
	timing  Timing
	log     *logrus.Entry
	http    *http.Client
	dump    *dumper
	health  health
	streaks streaks
}

var _ runner.Client = (*Client)(nil)

// Config is how the server is reached.
type Config struct {
	// Proto (http or https) and Host (name, optional port, optional path) are the server's address.
	Proto string
	Host  string

	// Secret is shared by the server and its runners.
	Secret string

	// SkipVerify accepts any certificate.
	SkipVerify bool

	// DumpHTTP writes each exchange's first line and headers to Dump, DumpBody the bodies too; secrets are left out.
	DumpHTTP bool
	DumpBody bool
	Dump     io.Writer

	// Log takes the few lines that are said about the server itself; nil says nothing.
	Log *logrus.Entry

	// Proxy chooses the proxy of a request; nil takes http_proxy, https_proxy and no_proxy from the environment.
	Proxy func(*http.Request) (*url.URL, error)

	// Timing replaces the pauses and limits; fields left zero keep their default.
	Timing Timing
}

// Timing holds every pause and limit of the client.
type Timing struct {
	// Retry is the first pause after a fault; it doubles up to RetryMax. Each pause is jittered by a quarter.
	Retry    time.Duration
	RetryMax time.Duration

	// Slow and SlowMax are the same for answers that a person has to do something about: a wrong secret, a redirect.
	Slow    time.Duration
	SlowMax time.Duration

	// Poll bounds one Request or Watch; it must exceed the server's own 30 seconds. An empty answer that comes sooner
	// than MinPoll is held back for that long, since the caller will ask again at once.
	Poll    time.Duration
	MinPoll time.Duration

	// Call bounds one attempt of an ordinary call. Report bounds those that the server answers only after it has told
	// the forge (PUT stage) or stored a whole log.
	Call   time.Duration
	Report time.Duration

	// Patience is for how long a server that answers keeps being asked for what it answers with an error, where
	// going on for ever would hold a slot: accept, detail, card.
	Patience time.Duration
}

// withDefaults fills what was left zero.
func (t Timing) withDefaults() Timing {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Retry, time.Second},
		{&t.RetryMax, 15 * time.Second},
		{&t.Slow, 5 * time.Second},
		{&t.SlowMax, time.Minute},
		{&t.Poll, 45 * time.Second},
		{&t.MinPoll, time.Second},
		{&t.Call, time.Minute},
		{&t.Report, 5 * time.Minute},
		{&t.Patience, 2 * time.Minute},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	return t
}

// New returns a client for the server, or says which setting is wrong. It does not talk to the server.
func New(cfg Config) (*Client, error) {
	base, err := baseURL(cfg.Proto, cfg.Host)
	if err != nil {
		return nil, err
	}
	if cfg.Secret == "" {
		return nil, errors.New("the RPC secret is empty: set DRONE_RPC_SECRET to the server's value")
	}
	log := cfg.Log
	if log == nil {
		quiet := logrus.New()
		quiet.SetOutput(io.Discard)
		log = logrus.NewEntry(quiet)
	}
	hide := hiding(cfg.Secret)
	return &Client{
		base:   base,
		secret: cfg.Secret,
		hide:   hide,
		timing: cfg.Timing.withDefaults(),
		log:    log,
		http: &http.Client{
			Transport: transport(cfg),
			// A redirected POST would arrive as a GET without its body, so redirects are reported, not followed.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		dump:    newDumper(cfg, hide),
		health:  health{since: time.Now()},
		streaks: streaks{n: map[string]int{}},
	}, nil
}

// Close drops the idle connections. Calls that are under way end with their own context.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// baseURL checks the two halves of the address.
func baseURL(proto, host string) (string, error) {
	if proto != "http" && proto != "https" {
		return "", fmt.Errorf("DRONE_RPC_PROTO is %q: set it to http or https", proto)
	}
	if strings.Contains(host, "://") {
		return "", errors.New("DRONE_RPC_HOST must not start with a scheme: put that into DRONE_RPC_PROTO")
	}
	u, err := url.Parse(proto + "://" + host)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("DRONE_RPC_HOST must be the server's host name, with a port where it needs one")
	}
	return strings.TrimRight(u.String(), "/") + "/rpc/v2", nil
}

// transport is Go's own with limits of ours. A dead connection is noticed before a long poll would end.
func transport(cfg Config) *http.Transport {
	proxy := cfg.Proxy
	if proxy == nil {
		proxy = http.ProxyFromEnvironment
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:               func(r *http.Request) (*url.URL, error) { return withoutAddress(proxy(r)) },
		DialContext:         dialer.DialContext,
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: cfg.SkipVerify}, //nolint:gosec // asked for by the setting
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     90 * time.Second,
	}
}

// withoutAddress replaces the error of a proxy's address that cannot be parsed: net/http quotes the address, and a
// password may be in it.
func withoutAddress(proxy *url.URL, err error) (*url.URL, error) {
	if err != nil {
		return nil, errProxy
	}
	return proxy, nil
}
