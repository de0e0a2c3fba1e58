package proxy

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
)

// containerConfigFields are those of a container's configuration; what reaches beyond the container is in HostConfig.
// Older daemons also take some of HostConfig's fields here, VolumeDriver among them.
const containerConfigFields = `Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty OpenStdin
	StdinOnce Env Cmd Healthcheck ArgsEscaped Image Volumes WorkingDir Entrypoint NetworkDisabled MacAddress OnBuild
	Labels StopSignal StopTimeout Shell HostConfig NetworkingConfig`

// createContainer labels a container and the volumes that come with it, and judges its host configuration. Mounts come
// last: they make volumes and pins, which a refusal would leave behind for nothing.
func createContainer(c *call) error {
	if c.p.Policy == Keep {
		return c.forward(c.record(container, c.query.Get("name")))
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	if err := c.only(body, containerConfigFields); err != nil {
		return err
	}
	if err := body.label(c.p.labels); err != nil {
		return err
	}
	host, err := body.make("HostConfig")
	if err != nil {
		return err
	}
	if err := c.nameNetwork(body, host); err != nil {
		return err
	}
	if err := c.judgeHost(host); err != nil {
		return err
	}
	if err := c.judgeEndpoints(body); err != nil {
		return err
	}
	if err := c.mountsOfContainer(host); err != nil {
		return err
	}
	return c.send(body, c.record(container, c.query.Get("name")))
}

// nameNetwork gives a container's only network settings, where the client sent none: judgeEndpoints puts its id there.
// `docker run --network x` sends settings under the name x, older clients and libraries the mode alone.
// With the network mode alone the daemon would remember the network's name, whatever it is told.
func (c *call) nameNetwork(body, host object) error {
	if err := host.canon("NetworkMode"); err != nil || !c.own() {
		return err
	}
	mode, err := host.text("NetworkMode")
	if err != nil || mode == "" || mode == "default" || predefined(mode) || strings.HasPrefix(mode, "container:") {
		return err
	}
	networking, err := body.make("NetworkingConfig")
	if err != nil {
		return err
	}
	if err := networking.canon("EndpointsConfig"); err != nil {
		return err
	}
	endpoints, err := networking.make("EndpointsConfig")
	if err == nil && len(endpoints) == 0 {
		endpoints[mode] = map[string]any{}
	}
	return err
}

// judgeEndpoints checks the networks that a container is created on: EndpointsConfig has the settings by network. A key
// stays the name that the client knows; the id goes into the settings.
func (c *call) judgeEndpoints(body object) error {
	networking, err := body.object("NetworkingConfig")
	if err != nil || networking == nil || !c.own() {
		return err
	}
	if err := networking.canon("EndpointsConfig"); err != nil {
		return err
	}
	endpoints, err := networking.object("EndpointsConfig")
	for name := range endpoints {
		settings, settingsErr := endpoints.make(name)
		err = errors.Join(err, settingsErr, c.judgeEndpoint(name, settings))
	}
	return err
}

// endpointFields are the fields of a container's settings on a network. Those from EndpointID on are what an inspection
// shows: clients send them back when they make a container like another, and the daemon sets them anew.
const endpointFields = `IPAMConfig Links Aliases MacAddress DriverOpts GwPriority NetworkID EndpointID Gateway IPAddress
	IPPrefixLen IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen DNSNames`

// judgeEndpoint checks a container's settings on a network. The daemon prefers the network that they name to the one
// that the call names (moby, daemon/container_operations.go, getNetworkID), so they name the build's by its id.
func (c *call) judgeEndpoint(ref string, settings object) error {
	if err := c.only(settings, endpointFields); err != nil {
		return err
	}
	links, err := settings.texts("Links")
	if err != nil {
		return err
	}
	for _, l := range links {
		name, _, _ := strings.Cut(l, ":")
		if _, err := c.p.need(c.ctx(), container, name); err != nil {
			return err
		}
	}
	named, err := settings.text("NetworkID")
	if err != nil {
		return err
	}
	if named, err = c.p.useNetwork(c.ctx(), named); err != nil {
		return err
	}
	id, err := c.p.useNetwork(c.ctx(), ref)
	if named == "" && id != ref {
		named = id
	}
	if named != "" {
		settings["NetworkID"] = named
	}
	return err
}

// record writes what was made into the ledger before the client learns of it. When that fails the client gets an error,
// although the object is there: it has the label, so the teardown finds it all the same.
func (c *call) record(k kind, name string) hook {
	return func(resp *http.Response) error {
		if resp.StatusCode != http.StatusCreated {
			return nil
		}
		answer := raw{}
		if err := readAnswer(resp, &answer); err != nil {
			return err
		}
		id := answer.str("Id")
		// Containers and networks answer Id; services, secrets and configs ID.
		if id == "" {
			id = answer.str("ID")
		}
		if k == volume { // the daemon makes a name up when the client gives none
			name = answer.str("Name")
		}
		if k == container {
			return c.p.recordContainer(c.ctx(), id)
		}
		return c.p.Ledger.Add(ledger.Entry{Kind: string(k), Name: name, ID: id})
	}
}

// recordContainer writes down a container and its anonymous volumes, which no label can mark: they outlive
// `docker rm` without -v.
func (p *Proxy) recordContainer(ctx context.Context, id string) error {
	r, err := p.Docker.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if absent(err) { // it is gone again
		return p.Ledger.Add(ledger.Entry{Kind: string(container), ID: id})
	}
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(r.Container.Name, "/")
	err = p.Ledger.Add(ledger.Entry{Kind: string(container), Name: name, ID: id})
	for _, m := range r.Container.Mounts {
		if m.Type == "volume" && Anonymous(m.Name) {
			err = errors.Join(err, p.Ledger.Add(ledger.Entry{Kind: string(volume), Name: m.Name, Note: "anonymous"}))
		}
	}
	return err
}

// Anonymous says whether a volume's name is one that the daemon made up: 32 random bytes in hex. Such a name is never
// used again. A client may make one up too; it gets the label then, as with any name.
func Anonymous(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}

// updateContainer judges new limits: the call also takes devices and control groups, for its body is the resources of a
// host configuration.
func updateContainer(c *call) error {
	if !c.own() {
		return c.forward(nil)
	}
	f, err := c.p.need(c.ctx(), container, c.args[0])
	if err != nil {
		return err
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	if err := c.judgeHost(body); err != nil {
		return err
	}
	c.retarget(f.id)
	return c.send(body, nil)
}

// createExec judges a command that is to run in a container of the build. Starting it is another call, by the id that
// this one answers.
func createExec(c *call) error {
	if !c.own() {
		return c.forward(nil)
	}
	f, err := c.p.need(c.ctx(), container, c.args[0])
	if err != nil {
		return err
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	const fields = `AttachStdin AttachStdout AttachStderr ConsoleSize DetachKeys Tty Env Cmd Privileged User WorkingDir
		Container Detach`
	if err := c.only(body, fields); err != nil {
		return err
	}
	if !zero(body["Privileged"]) { // a way out of a container that is confined
		return &Refusal{"privileged", "a build must not run privileged commands in a container", varPolicy}
	}
	c.retarget(f.id)
	return c.send(body, func(resp *http.Response) error {
		if resp.StatusCode != http.StatusCreated {
			return nil
		}
		answer := raw{}
		if err := readAnswer(resp, &answer); err != nil {
			return err
		}
		// The client starts it with its next call, which needs no look then.
		c.p.known.Store(knownID{execution, answer.str("Id")}, found{})
		return nil
	})
}

// startContainer starts one of the build's containers as it was made. Before API 1.24 the call could bring another host
// configuration along; owned sends no body on.
func startContainer(c *call) error {
	if c.own() {
		for name := range c.query {
			if name != "detachKeys" { // `checkpoint-dir` would be any directory of the host
				return unknownOption(name)
			}
		}
	}
	return owned(container)(c)
}

// startExec starts a command in one of the build's containers. The client asks for the connection to be taken over by a
// header (Upgrade: tcp) and sends the command's input after the body.
func startExec(c *call) error {
	if !c.own() {
		return c.forward(nil)
	}
	if err := c.needExec(); err != nil {
		return err
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	if err := c.only(body, "Detach Tty ConsoleSize"); err != nil {
		return err
	}
	if len(body) == 0 { // there was none: what follows on the connection is the stream
		return c.forward(nil)
	}
	return c.send(body, nil)
}

// removeContainer writes the container's anonymous volumes down first: a container of a service has them since it
// was started, past this socket. Without -v the volumes stay, and nothing else would lead to them.
func removeContainer(c *call) error {
	f, err := c.p.need(c.ctx(), container, c.args[0])
	if err != nil {
		return err
	}
	if c.p.labelled(f.labels) {
		if err := c.p.recordContainer(c.ctx(), f.id); err != nil {
			return err
		}
	}
	// A container that could not be removed is only looked at once more.
	c.p.known.Delete(knownID{container, f.id})
	c.retarget(f.id)
	return c.forward(nil)
}

// putArchive copies files into a container of the build; device nodes are refused, as they could land in the
// workspace.
func putArchive(c *call) error {
	if !c.own() {
		return c.forward(nil)
	}
	f, err := c.p.need(c.ctx(), container, c.args[0])
	if err != nil {
		return err
	}
	c.retarget(f.id)
	return c.guarded(noDevices{})
}
