package proxy

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"sync/atomic"
)

// namesLimit bounds, in bytes, the files of an image archive that hold names, as they are read into memory. The manifest
// of an image has a few kilobytes. Configurations of images are smaller than that, too.
const namesLimit = 4 << 20

// inspector looks at an archive on its way to the daemon. entry sees each header with its content before it is sent
// on; end is called before the daemon learns that the archive is complete, so that its error undoes all of it. Both are
// called by one goroutine.
type inspector interface {
	entry(*tar.Header, io.Reader) (io.Reader, error)
	end() error
}

// guarded forwards an archive through an inspector. The archive is taken apart and put together again: what the
// daemon unpacks is then exactly what was looked at: two readers of tar can differ about an odd archive, and the second
// could find a device that the first did not.
func (c *call) guarded(i inspector) error {
	from, err := unpacked(c.r.Body)
	if err != nil {
		return err
	}
	a := &archive{from: from, inspector: i}
	c.r.Body, c.r.ContentLength, c.r.GetBody, c.bodied = a, -1, nil, true
	c.r.Header.Del("Content-Length")
	err = c.forward(func(resp *http.Response) error {
		if resp.StatusCode == http.StatusOK {
			return nil
		}
		// The daemon only saw a broken archive; the reason is here.
		if found := a.end(); refused(found) {
			return errors.Join(found, resp.Body.Close())
		}
		return nil
	})
	// The client's body must not be read any more once this call has returned. What there is to say was said.
	_ = a.end()
	return err
}

// archive is the body of a guarded call: sent by WriteTo, it goes into the connection in large pieces and without a
// pipe between two goroutines. The transport's writer calls WriteTo; end is the call's way to be sure that it has stopped.
type archive struct {
	from      io.Reader
	inspector inspector

	ended atomic.Bool
	mu    sync.Mutex // held while it is sent
	err   error
}

// WriteTo implements io.WriterTo.
func (a *archive) WriteTo(w io.Writer) (int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	to := &counted{w: w, ended: &a.ended}
	a.err = repack(a.from, to, a.inspector)
	return to.n, a.err
}

// Read implements io.Reader, which a body has to be. Nothing calls it: see backend.
func (a *archive) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// Close implements io.Closer.
func (a *archive) Close() error { return nil }

// end lets nothing more be sent, waits until nothing is, and returns why sending ended.
func (a *archive) end() error {
	a.ended.Store(true)
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// counted counts what it writes, until it has ended; io.WriterTo wants the number.
type counted struct {
	w     io.Writer
	ended *atomic.Bool
	n     int64
}

// Write implements io.Writer.
func (c *counted) Write(b []byte) (int, error) {
	if c.ended.Load() {
		return 0, io.ErrClosedPipe
	}
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// backend sends calls to the daemon. The reverse proxy hides what a body can beyond being read; an archive is given
// back its WriteTo here, which the transport's io.Copy then finds.
type backend struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (b *backend) RoundTrip(r *http.Request) (*http.Response, error) {
	if a, ok := r.Context().Value(archiveKey{}).(*archive); ok {
		r = r.WithContext(r.Context())
		r.Body = a
	}
	return b.Transport.RoundTrip(r)
}

// archiveKey leads to a call's archive, in the context as a hook does.
type archiveKey struct{}

// refused says whether an error is an answer of the proxy's own, and no failure of a connection.
func refused(err error) bool {
	var r *Refusal
	var i *invalid
	return errors.As(err, &r) || errors.As(err, &i)
}

// unpacked opens the compressions that the daemon knows too (moby, pkg/archive, DetectCompression). The archive goes on
// uncompressed: to compress it again would cost more than the socket to the daemon does.
func unpacked(body io.Reader) (io.Reader, error) {
	r := bufio.NewReaderSize(body, copyBuffer)
	magic, err := r.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(r)
	case bytes.HasPrefix(magic, []byte("BZh")):
		return bzip2.NewReader(r), nil
	case bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z'}), bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return nil, &invalid{http.StatusUnsupportedMediaType,
			"the runner cannot look into an archive of this compression; send it plain or with gzip"}
	}
	return r, nil
}

// repack writes an archive again, entry by entry. On an error it leaves the archive without its end, two empty blocks,
// and the transport breaks the call off: the daemon then takes nothing of a load. Of a copy it has unpacked what came
// before.
func repack(from io.Reader, to io.Writer, i inspector) error {
	out := bufio.NewWriterSize(to, copyBuffer) // small files go together; large ones pass it by
	r, w := tar.NewReader(from), tar.NewWriter(out)
	buf := make([]byte, copyBuffer)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return &invalid{http.StatusBadRequest, "the archive cannot be read: " + err.Error()}
		}
		content, err := i.entry(h, r)
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeGNUSparse {
			h.Typeflag = tar.TypeReg // the reader has filled the holes
		}
		// Left in, they would say of the filled content that it has holes.
		for record := range h.PAXRecords {
			if strings.HasPrefix(record, "GNU.sparse.") {
				delete(h.PAXRecords, record)
			}
		}
		h.Format = tar.FormatUnknown
		if len(h.PAXRecords) > 0 {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.CopyBuffer(writerOnly{w}, content, buf); err != nil {
			return err
		}
	}
	if err := i.end(); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Flush()
}

// writerOnly hides ReadFrom, which would not use the large buffer.
type writerOnly struct{ io.Writer }

// noDevices refuses device nodes: one that lands in the workspace would open the host's disk to the steps. It has no
// state, and entries before a refused one are copied.
type noDevices struct{}

func (noDevices) entry(h *tar.Header, r io.Reader) (io.Reader, error) {
	if h.Typeflag == tar.TypeBlock || h.Typeflag == tar.TypeChar {
		return nil, &Refusal{"devices", "a build must not copy the device " + h.Name + " into a container", varPolicy}
	}
	return r, nil
}

func (noDevices) end() error { return nil }

// imageNames collects the names that an image archive gives to images, and which image each name is to stand for. An
// image's id is the SHA-256 of its configuration, a file of the archive, so both can be known before the daemon loads it:
// to load a saved image again under the name that it has anyway is no theft.
type imageNames struct {
	c     *call
	sums  map[string]string // file: digest of its content
	texts map[string]*bytes.Buffer
	hash  func() // finishes the digest of the last file
	kept  int    // how long the names of files with a digest are together
}

// entry reads along with what holds names. Links are only known for layers; elsewhere they could stand in for a file
// that was judged.
func (n *imageNames) entry(h *tar.Header, r io.Reader) (io.Reader, error) {
	n.finish()
	name := path.Clean(h.Name)
	if strings.Contains("/"+path.Dir(name)+"/", "/layer.tar/") { // a layer is a file; below a link it would be another one
		return nil, &invalid{http.StatusBadRequest, "the image archive has a directory in place of a layer: " + name}
	}
	// `docker save` of older daemons writes a layer that two images share once, and links to it.
	if h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeLink {
		if path.Base(name) != "layer.tar" {
			return nil, &invalid{http.StatusBadRequest, "the image archive has a link in place of " + name}
		}
		return r, nil
	}
	if name == "manifest.json" || name == "repositories" || name == "index.json" {
		if h.Size > namesLimit {
			return nil, &invalid{http.StatusRequestEntityTooLarge, "the image archive's " + name + " is too large"}
		}
		text := &bytes.Buffer{}
		n.texts[name] = text
		return io.TeeReader(r, text), nil
	}
	// Without its digest an image is judged by its name alone. An archive of nothing but names, which gzip makes small,
	// would otherwise take the runner's memory.
	if n.kept += len(name) + sha256.Size; h.Size > namesLimit || n.kept > namesLimit {
		delete(n.sums, name)
		return r, nil
	}
	sum := sha256.New()
	n.hash = func() { n.sums[name] = hex.EncodeToString(sum.Sum(nil)) }
	return io.TeeReader(r, sum), nil
}

// finish takes down the digest of the entry before, which has been read to its end by now.
func (n *imageNames) finish() {
	if n.hash != nil {
		n.hash()
		n.hash = nil
	}
}

// end refuses names of other people's images, unless it is the same image that is loaded.
func (n *imageNames) end() error {
	n.finish()
	names := map[string]string{} // name: digest of the image's configuration, where it is known
	if err := errors.Join(n.manifest(names), n.repositories(names), n.index(names)); err != nil {
		return err
	}
	for name, digest := range names {
		// Another build may take the name between this look and the load: the last to give a name wins.
		f, err := n.c.p.look(n.c.ctx(), image, tagged(name))
		if err == nil && digest != "" && f.id == "sha256:"+digest {
			continue
		}
		if err := n.c.claimTag(name, ""); err != nil {
			return err
		}
	}
	return nil
}

// manifest reads what `docker save` writes: an array of images, each with the file of its configuration and its names.
func (n *imageNames) manifest(names map[string]string) error {
	var images []struct {
		Config   string
		RepoTags []string
	}
	if err := n.decode("manifest.json", &images); err != nil {
		return err
	}
	for _, i := range images {
		for _, tag := range i.RepoTags {
			names[tag] = n.sums[path.Clean(i.Config)]
		}
	}
	return nil
}

// repositories reads the oldest form, which the daemon uses when there is no manifest. It names layers, not images, so
// whose name it is decides alone.
func (n *imageNames) repositories(names map[string]string) error {
	repositories := map[string]map[string]string{}
	if err := n.decode("repositories", &repositories); err != nil {
		return err
	}
	for repo, tags := range repositories {
		for tag := range tags {
			if _, known := names[repo+":"+tag]; !known {
				names[repo+":"+tag] = ""
			}
		}
	}
	return nil
}

// index reads the OCI form, which daemons with containerd's store use. There an image's id is another digest, so whose
// name it is decides alone, unless the manifest says more.
func (n *imageNames) index(names map[string]string) error {
	var index struct {
		Manifests []struct{ Annotations map[string]string }
	}
	if err := n.decode("index.json", &index); err != nil {
		return err
	}
	for _, m := range index.Manifests {
		name := strings.TrimPrefix(m.Annotations["io.containerd.image.name"], "docker.io/library/")
		if _, known := names[name]; !known && name != "" {
			names[name] = ""
		}
	}
	return nil
}

// decode reads one of the files with names; one that is not there says nothing.
func (n *imageNames) decode(file string, v any) error {
	text := n.texts[file]
	if text == nil {
		return nil
	}
	if err := json.Unmarshal(text.Bytes(), v); err != nil {
		return &invalid{http.StatusBadRequest, "the image archive's " + file + " cannot be read: " + err.Error()}
	}
	return nil
}
