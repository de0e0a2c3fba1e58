//go:build linux

package swarmtest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/moby/moby/client"
)

// Image holds a static busybox and nothing else; its command sleeps and ends at SIGTERM. ImageVolume is the same
// with an anonymous volume at /anon, which no label can mark. Names with a tag but without a registry: a pull of them
// fails, as it would of an image that exists nowhere else.
const (
	Image       = "cc-ci-test/base:1"
	ImageVolume = "cc-ci-test/volume:1"
)

// ImportImage makes the test images on a daemon, without a registry: it imports an archive, as `docker import` does.
func ImportImage(ctx context.Context, docker *client.Client) error {
	data, err := RootFS(ctx)
	if err != nil {
		return fmt.Errorf("make the test image: %w", err)
	}
	// The shell waits in the background: in the foreground sleep would keep it from seeing a signal.
	sleep := `CMD ["sh","-c","trap 'exit 0' TERM; while :; do sleep 1 & wait; done"]`
	for ref, changes := range map[string][]string{
		Image:       {sleep},
		ImageVolume: {sleep, "VOLUME /anon"},
	} {
		source := client.ImageImportSource{Source: bytes.NewReader(data), SourceName: "-"}
		body, err := docker.ImageImport(ctx, source, ref, client.ImageImportOptions{Changes: changes})
		if err != nil {
			return fmt.Errorf("import %s: %w", ref, err)
		}
		// The import is done when the answer ends.
		_, err = io.Copy(io.Discard, body)
		if err := errors.Join(err, body.Close()); err != nil {
			return fmt.Errorf("import %s: %w", ref, err)
		}
	}
	return nil
}

// RootFS is the file system of the test images as a tar archive. It needs a static busybox on PATH (Debian's
// busybox-static); every applet is a link to it.
func RootFS(ctx context.Context) ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	applets, err := exec.CommandContext(ctx, path, "--list").Output()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, dir := range []string{"bin/", "etc/", "tmp/", "proc/", "sys/", "dev/", "root/"} {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o777}))
	}
	err = errors.Join(err,
		file(w, "bin/busybox", 0o755, binary),
		file(w, "etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n")),
		file(w, "etc/group", 0o644, []byte("root:x:0:\n")))
	for _, name := range strings.Fields(string(applets)) {
		if name == "busybox" {
			continue
		}
		link := &tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}
		err = errors.Join(err, w.WriteHeader(link))
	}
	return buf.Bytes(), errors.Join(err, w.Close())
}

// file adds one regular file to an archive. Times are left at zero, so that the image's layer is the same each time.
func file(w *tar.Writer, name string, mode int64, data []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}
