package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
)

// copyBuffer is how much of a stream is carried at once: with less, copying costs more than the daemon does. The
// figures are in docs/benchmarks.md.
const copyBuffer = 128 << 10

// chunkFrame is what HTTP puts around a piece of a stream: with room for it, a piece is one write.
const chunkFrame = 64

// sendBuffer is what a connection may have on its way, in bytes; see roomy.
const sendBuffer = 1 << 20

// maxParts bounds the values in a JSON body, of which each takes some 60 bytes when it is read: 16 MiB of "{}," would take
// 350. Commas and brackets in texts count too, which is many times what an object of Docker has.
const maxParts = 1 << 18

// version is the API version that a path may begin with. The daemon routes a path without one as its newest.
var version = regexp.MustCompile(`^/v[0-9.]+/`)

// call is one request on its way through. Handlers change path, query and the request's body; forward puts the daemon's
// request together from them. One goroutine uses it.
type call struct {
	p      *Proxy
	w      http.ResponseWriter
	r      *http.Request
	prefix string   // "/v1.41", or empty
	path   string   // without the prefix
	args   []string // what the route's pattern matched
	query  url.Values
	cost   int64 // of the body, in bytes of the build's bodies
	bodied bool  // what the client sent along goes to the daemon, because it was judged or cannot do harm
}

// Refusal is a call that the policy forbids: the client gets 403. Its text names the rule and the variable that changes
// it; the rules are listed in docs/swarm.md.
type Refusal struct{ Rule, Reason, Variable string }

// Error implements error.
func (r *Refusal) Error() string {
	return fmt.Sprintf("refused by the runner's rule %s: %s (%s)", r.Rule, r.Reason, r.Variable)
}

// invalid is a call that is wrong by itself, under every policy; status is the answer's.
type invalid struct {
	status int
	reason string
}

// Error implements error.
func (i *invalid) Error() string { return i.reason }

// listQuery are the parameters that may be there more than once; of the others daemons take one or another.
const listQuery = "t names changes extrahosts type platform platforms"

// newCall takes a request apart. What the daemon gets later is put together from these parts and nothing else, so
// that it cannot read a request differently from how it was judged. Headers pass, X-Registry-Auth with the login at a
// registry among them, but for those that belong to a connection and the type of a form.
func (p *Proxy) newCall(w http.ResponseWriter, r *http.Request) (*call, error) {
	c := &call{p: p, w: w, r: r, path: r.URL.Path}
	if v := version.FindString(c.path); v != "" {
		c.prefix, c.path = v[:len(v)-1], c.path[len(v)-1:]
	}
	// The daemon's router (gorilla/mux) answers such a path with a redirect; here it could match another line of the table.
	if clean := path.Clean(c.path); clean != c.path {
		return nil, &invalid{http.StatusBadRequest, "the path of the call is not plain: " + c.path}
	}
	var err error
	if c.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		return nil, &invalid{http.StatusBadRequest, "the query of the call cannot be read: " + err.Error()}
	}
	for name, values := range c.query {
		if len(values) > 1 && !slices.Contains(strings.Fields(listQuery), name) {
			return nil, &invalid{http.StatusBadRequest, "the call has the parameter " + name + " twice"}
		}
	}
	// The daemon would let the fields of a form in the body override the query; no client sends one on purpose. It
	// reads the type as it is read here, capitals included.
	contentType := r.Header.Get("Content-Type")
	r.Header.Set("Content-Type", contentType)
	if t, _, err := mime.ParseMediaType(contentType); err != nil || strings.Contains(t, "form") {
		r.Header.Del("Content-Type")
	}
	return c, nil
}

// olderThan says whether the client asks for an older API than 1.minor; without a version it asks for the newest. The
// daemon silently drops fields that the version asked for does not have.
func (c *call) olderThan(minor int) bool {
	if c.prefix == "" {
		return false
	}
	first, rest, _ := strings.Cut(strings.TrimPrefix(c.prefix, "/v"), ".")
	asked, err := strconv.Atoi(rest)
	return first != "1" || err != nil || asked < minor // what cannot be read counts as old
}

// ctx is the call's context.
func (c *call) ctx() context.Context { return c.r.Context() }

// own says whether the policy is to be enforced: anything may be refused only where it is true, but for what is invalid.
func (c *call) own() bool { return c.p.Policy == Own }

// body reads the JSON body. The caller changes it and gives it to send. Like the daemon it reads one value and ignores
// what follows, but what follows does not go on to the daemon. An empty body, or null, is an empty object.
//
// It waits while the bodies of other calls take too much memory, and is called once a call: a call that had one body and
// waited for a second could wait for ever.
func (c *call) body() (object, error) {
	size := c.r.ContentLength
	if size < 0 || size > c.p.BodyLimit { // unknown, or one that is refused below
		size = c.p.BodyLimit + 1
	}
	if err := c.p.bodies.Acquire(c.ctx(), bodyCost(size)); err != nil {
		return nil, fmt.Errorf("wait for the bodies of other calls: %w", err)
	}
	c.cost = bodyCost(size)
	data, err := io.ReadAll(io.LimitReader(c.r.Body, c.p.BodyLimit+1))
	if err != nil {
		return nil, fmt.Errorf("read the call's body: %w", err)
	}
	if int64(len(data)) > c.p.BodyLimit {
		return nil, &invalid{http.StatusRequestEntityTooLarge,
			fmt.Sprintf("the call's body is larger than %d bytes", c.p.BodyLimit)}
	}
	c.free(bodyCost(int64(len(data)))) // its length was unknown, perhaps
	if bytes.Count(data, []byte(","))+bytes.Count(data, []byte("[")) > maxParts {
		return nil, &invalid{http.StatusRequestEntityTooLarge,
			fmt.Sprintf("the call's body has more than %d parts", maxParts)}
	}
	o := object{}
	dec := json.NewDecoder(bytes.NewReader(data))
	// A float64 would round what is larger than 2^53, such as a limit in bytes.
	dec.UseNumber()
	if err := dec.Decode(&o); err != nil && !errors.Is(err, io.EOF) {
		return nil, &invalid{http.StatusBadRequest, "the call's body is not a JSON object: " + err.Error()}
	}
	if o == nil {
		o = object{}
	}
	return o, nil
}

// bodyCost is about how many bytes a body of a length takes at most: as it came, as it is read, with 60 bytes for each of
// its parts, and as it goes on, where json.Marshal makes six characters of each < in it.
func bodyCost(length int64) int64 { return 8*length + 60*min(length/2, maxParts) }

// free gives back what the call's body takes, down to a rest.
func (c *call) free(rest int64) {
	if c.cost > rest {
		c.p.bodies.Release(c.cost - rest)
		c.cost = rest
	}
}

// setBody replaces the request's body. The transport asks GetBody for it again when a kept connection turns out closed.
func (c *call) setBody(o object) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	c.r.Body = io.NopCloser(bytes.NewReader(data))
	c.r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	c.r.ContentLength = int64(len(data))
	// What was sent in chunks goes on with a length.
	c.r.TransferEncoding = nil
	c.r.Header.Set("Content-Type", "application/json")
	c.bodied = true
	return nil
}

// hook changes or records an answer before the client gets it. It sees answers of every status, 101 too. Its error becomes
// the answer in place of the daemon's; what the daemon did stays done.
type hook func(*http.Response) error

// hookKey leads to a call's hook. The context carries it because one ReverseProxy serves all calls.
type hookKey struct{}

// forward sends the call to the daemon as it is now and carries the answer back, until its end. It always returns nil:
// what goes wrong on the way is answered by the ReverseProxy's ErrorHandler.
func (c *call) forward(h hook) error {
	ctx := context.WithValue(c.ctx(), hookKey{}, h)
	if a, ok := c.r.Body.(*archive); ok {
		ctx = context.WithValue(ctx, archiveKey{}, a)
	}
	out := c.r.WithContext(ctx)
	u := *c.r.URL
	out.URL = &u
	out.Header = c.r.Header.Clone()
	if !c.streams() {
		out.Header.Del("Upgrade")
		out.Header.Del("Http2-Settings")
	}
	if c.own() && !c.bodied {
		// Older forms of some calls take a body that nobody has judged: that of `start` was a host configuration.
		out.Body, out.GetBody, out.ContentLength, out.TransferEncoding = http.NoBody, nil, 0, nil
	}
	// Without RawPath: the daemon is to read the path as it was judged, not as it was spelled.
	out.URL.Path, out.URL.RawPath, out.URL.RawQuery = c.prefix+c.path, "", c.query.Encode()
	c.p.reverse.ServeHTTP(c.w, out)
	return nil
}

// streams says whether a call may take its connection over. On any other, a daemon that speaks HTTP/2 would hand the
// client a connection on which nothing is judged. Taken over are attach and exec (tcp), BuildKit's two (h2c) and the
// attachment for browsers (websocket).
func (c *call) streams() bool {
	want := "tcp"
	switch {
	case c.path == "/session" || c.path == "/grpc":
		want = "h2c"
	case strings.HasSuffix(c.path, "/attach/ws"):
		want = "websocket"
	case strings.HasPrefix(c.path, "/containers/") && !strings.HasSuffix(c.path, "/attach"):
		return false
	case !strings.HasPrefix(c.path, "/containers/") && !strings.HasPrefix(c.path, "/exec/"):
		return false
	}
	return strings.EqualFold(c.r.Header.Get("Upgrade"), want)
}

// send forwards the call with another body.
func (c *call) send(o object, h hook) error {
	if err := c.setBody(o); err != nil {
		return err
	}
	return c.forward(h)
}

// newReverse is the part that carries calls: it flushes at once, for logs and events are followed, and takes connections
// over for streams, of which it closes each half by itself (the end of a step's input must not end its output).
func (p *Proxy) newReverse(errorLog *log.Logger) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport: &backend{p.backend},
		Rewrite: func(r *httputil.ProxyRequest) {
			// Names that nobody looks up: the transport dials the daemon whatever they are.
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "docker", "docker"
			// ReverseProxy would drop parameters that it cannot parse; forward has written the query anew already.
			r.Out.URL.RawQuery = r.In.URL.RawQuery
		},
		FlushInterval: -1,
		BufferPool:    &buffers{},
		ModifyResponse: func(resp *http.Response) error {
			if h, _ := resp.Request.Context().Value(hookKey{}).(hook); h != nil {
				return h(resp)
			}
			return nil
		},
		ErrorHandler: p.answer,
		ErrorLog:     errorLog,
	}
}

// answer turns an error into what a Docker client shows to its user: {"message": ...} and a status. Refusals are logged
// with rule and path only; bodies and queries may hold secrets.
func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, err error) {
	var refusal *Refusal
	var bad *invalid
	status := http.StatusBadGateway
	message := err.Error()
	switch {
	case errors.As(err, &refusal):
		status = http.StatusForbidden
		p.Log.WithField("rule", refusal.Rule).Infof("refused %s %s", r.Method, r.URL.Path)
	case errors.As(err, &bad):
		status = bad.status
	// Only of the socket's own looks: an answer of the daemon's passes as it is.
	case errdefs.IsNotFound(err):
		status = http.StatusNotFound
	case r.Context().Err() != nil:
		return // nobody listens any more
	default:
		message = "Docker did not answer the runner's socket; ask the runner's admin to check the daemon: " + message
	}
	message = strings.TrimPrefix(message, "Error response from daemon: ")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
}

// readAnswer decodes a JSON answer into v and leaves it to be read again. It has no limit: the daemon is trusted.
func readAnswer(resp *http.Response, v any) error {
	data, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	resp.Body = io.NopCloser(bytes.NewReader(data))
	return json.Unmarshal(data, v)
}

// writeAnswer replaces a JSON answer, whose length the client reads in a header.
func writeAnswer(resp *http.Response, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	resp.Body = io.NopCloser(bytes.NewReader(data))
	resp.ContentLength = int64(len(data))
	resp.Header.Set("Content-Length", fmt.Sprint(len(data)))
	return nil
}

// buffers lends copy buffers: without, each call would allocate one of its own.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return *buf
	}
	return make([]byte, copyBuffer)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(buf []byte) { b.pool.Put(&buf) }
