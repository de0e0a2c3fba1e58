package proxy

import (
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
)

// mountsOfContainer rewrites both forms of a container's mounts: Binds, which `docker run -v` sends as strings, and
// Mounts, the objects of `docker run --mount` and of services. A container that sees the build's files loses the
// right to make device nodes: one made in the workspace would open the host's disk to the steps.
func (c *call) mountsOfContainer(host object) error {
	binds, err := host.texts("Binds")
	if err != nil {
		return err
	}
	var out []any
	for _, b := range binds {
		b, err := c.bind(b)
		if err != nil {
			return err
		}
		out = append(out, b)
	}
	if out != nil {
		host["Binds"] = out
	}
	mounts, err := host.objects("Mounts")
	if err != nil {
		return err
	}
	pinned, err := c.mounts(mounts)
	if err != nil {
		return err
	}
	if c.own() && (pinned || len(binds) > 0 || !zero(host["VolumesFrom"])) {
		return dropMknod(host, "CapDrop")
	}
	return nil
}

// dropMknod adds MKNOD to a list of dropped capabilities. Pins are mounted without devices (nodev), but the same files lie
// in the workspace, whose file system the steps see with them.
func dropMknod(o object, field string) error {
	if err := o.canon(field); err != nil {
		return err
	}
	caps, err := o.texts(field)
	if err != nil || slices.Contains(caps, "MKNOD") || slices.Contains(caps, "CAP_MKNOD") {
		return err
	}
	list, err := o.list(field)
	o[field] = append(list, "MKNOD")
	return err
}

// bind rewrites one `source:target[:options]`. A source that begins with a slash is a path of the host, any other is the
// name of a volume. The daemon makes a directory that is missing; the pin does so in its place.
func (c *call) bind(text string) (string, error) {
	source, rest, ok := strings.Cut(text, ":")
	if !ok {
		return text, nil // an anonymous volume
	}
	if !strings.HasPrefix(source, "/") {
		return text, c.p.claimVolume(c.ctx(), source)
	}
	if _, options, ok := strings.Cut(rest, ":"); ok && c.own() {
		// shared and rshared: what a container mounts there would appear on the host.
		for _, o := range strings.Split(options, ",") {
			if strings.HasSuffix(o, "shared") {
				return "", &Refusal{"host-mounts", "a build must not share mounts with the host", varPolicy}
			}
		}
	}
	to, err := c.source(source, true)
	return to + ":" + rest, err
}

// mounts labels the volumes of a list of mounts and rewrites the sources of its binds; it says whether one of them
// shows files of the host. Changes are made in place.
func (c *call) mounts(mounts []object) (host bool, err error) {
	for _, m := range mounts {
		const fields = "Type Source Target ReadOnly Consistency VolumeOptions BindOptions TmpfsOptions"
		if err := c.only(m, fields); err != nil {
			return host, err
		}
		kind, err := m.text("Type")
		if err != nil {
			return host, err
		}
		source, err := m.text("Source")
		if err != nil {
			return host, err
		}
		if c.own() && strings.Contains(source, "{{") { // the Swarm fills it in later, out of sight
			return host, &Refusal{"mount-templates", "a build must not mount a source that is a template", varPolicy}
		}
		switch kind {
		case "bind":
			host = true
			err = c.bindMount(m, source)
		case "", "volume":
			err = c.volumeMount(m, source)
		// In memory, and the container's own.
		case "tmpfs":
		default:
			if c.own() {
				err = &Refusal{"mount-types", "a build must not use mounts of the type " + kind, varPolicy}
			}
		}
		if err != nil {
			return host, err
		}
	}
	return host, nil
}

// bindMount rewrites a mount of a host path. Unlike with Binds a missing source is an error of the API's, unless the
// client asks for it to be made (CreateMountpoint, API 1.43).
func (c *call) bindMount(m object, source string) error {
	options, err := m.object("BindOptions")
	if err != nil {
		return err
	}
	const fields = "Propagation NonRecursive CreateMountpoint ReadOnlyNonRecursive ReadOnlyForceRecursive"
	if err := c.only(options, fields); err != nil {
		return err
	}
	if propagation, _ := options["Propagation"].(string); c.own() && strings.HasSuffix(propagation, "shared") {
		return &Refusal{"host-mounts", "a build must not share mounts with the host", varPolicy}
	}
	m["Source"], err = c.source(source, !zero(options["CreateMountpoint"]))
	return err
}

// volumeMount labels the volume that a mount makes, and refuses volumes of others. One that is not there yet is made when
// the container or the task starts. By then another build may have made it (see the limits in docs/swarm.md).
func (c *call) volumeMount(m object, source string) error {
	options, err := m.make("VolumeOptions")
	if err != nil {
		return err
	}
	if err := c.only(options, "NoCopy Labels DriverConfig Subpath"); err != nil {
		return err
	}
	if err := options.label(c.p.labels); err != nil {
		return err
	}
	if !c.own() {
		return nil
	}
	driver, err := options.object("DriverConfig")
	if err != nil {
		return err
	}
	if err := driver.canon("Name Options"); err != nil {
		return err
	}
	if err := judgeVolume(driver, "Name", "Options"); err != nil || source == "" {
		return err
	}
	if _, err := c.p.need(c.ctx(), volume, source); err != nil && !absent(err) {
		return err
	}
	return nil
}

// source rewrites the host path of a bind; create says whether what is missing is made. The order matters: the socket and
// pins come before any other rule. What the steps see as /tmp lies elsewhere for the daemon; Docker's own
// socket becomes the build's; the workspace is pinned, so that a link put in its place later leads nowhere.
func (c *call) source(from string, create bool) (string, error) {
	p, clean := c.p, path.Clean(from)
	// A container that is given "the" socket gets the build's, and so does what it starts.
	if clean == p.Socket || clean == "/var/run/docker.sock" || clean == "/run/docker.sock" {
		return p.Socket, nil
	}
	if p.pins.holds(clean) { // tools send back what they read from the daemon
		return clean, nil
	}
	if p.Tmp != "" && within(clean, "/tmp") && !within(clean, p.Workspace) && !within(clean, p.Root) {
		clean = path.Join(p.Tmp, strings.TrimPrefix(clean, "/tmp"))
	} else if !c.own() {
		return from, nil
	}
	if !c.own() {
		return clean, nil
	}
	// What the admin allows is the admin's to keep free of links that builds can change.
	for _, allowed := range p.Mounts {
		if within(clean, path.Clean(allowed)) {
			return clean, nil
		}
	}
	// The build's root, in which they lie, also has its scripts and its home; those are not for containers.
	if !within(clean, p.Workspace) && !within(clean, p.Tmp) {
		return "", &Refusal{"host-mounts", fmt.Sprintf("a build must not mount %s, which is not in its workspace", from), varMounts}
	}
	return p.pins.pin(clean, create)
}

// within says whether a path is a directory or lies below it, by the text alone: both must be clean, and links are the
// pins' affair.
func within(p, dir string) bool {
	return dir != "" && (p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/"))
}

// missing is what the daemon says of a source that is not there, so that a client shows what it would without the runner.
func missing(source string) error {
	return &invalid{http.StatusBadRequest,
		`invalid mount config for type "bind": bind source path does not exist: ` + source}
}
