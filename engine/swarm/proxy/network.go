package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/client"
)

// networkOptions are the driver options that stay inside a network of the build's own; Docker's manual lists them with
// the drivers bridge and overlay. The others can name a bridge
// of the host or the network of somebody else.
const networkOptions = `encrypted com.docker.network.driver.mtu com.docker.network.bridge.enable_icc
	com.docker.network.bridge.enable_ip_masquerade com.docker.network.bridge.host_binding_ipv4`

// predefined says whether every daemon has a network of this name; the last two come with the Swarm.
func predefined(name string) bool {
	return slices.Contains([]string{"bridge", "host", "none", "ingress", "docker_gwbridge"}, name)
}

// sharedNetwork says whether a build may see a network that it did not make. To see is less than to use: the host's
// network and ingress are seen by all and refused by useNetwork.
func (p *Proxy) sharedNetwork(name string) bool {
	return predefined(name) || slices.Contains(p.Networks, name)
}

// useNetwork refuses to attach to a network that is neither the build's own nor allowed. It returns what the daemon is
// to be told: a network of the build's by its id, because the daemon looks a name up again when the container starts,
// and by then it may be the name of somebody else's. Allowed networks go by their names, which are the admin's to give.
func (p *Proxy) useNetwork(ctx context.Context, ref string) (string, error) {
	if p.Policy != Own || slices.Contains([]string{"", "default", "bridge", "none"}, ref) {
		return ref, nil
	}
	if other, ok := strings.CutPrefix(ref, "container:"); ok {
		f, err := p.need(ctx, container, other)
		return "container:" + f.id, err
	}
	if ref == "host" {
		return "", &Refusal{"host-namespaces", "a build must not use the host's network", varPolicy}
	}
	f, err := p.look(ctx, network, ref)
	switch {
	case err != nil:
		return "", err
	case p.labelled(f.labels):
		return f.id, nil
	// The bridge by its id; by its name it was let through above.
	case f.name == "bridge" || slices.Contains(p.Networks, f.name):
		return ref, nil
	case f.name == "host":
		return "", &Refusal{"host-namespaces", "a build must not use the host's network", varPolicy}
	}
	return "", &Refusal{"networks", "this build must not attach to the network " + f.name, varNetworks}
}

// createNetwork labels a network. Under Keep it only records it.
func createNetwork(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	const fields = `Name Driver Options Ingress ConfigFrom ConfigOnly IPAM Labels Scope Internal Attachable EnableIPv4
		EnableIPv6 CheckDuplicate`
	if err := c.only(body, fields); err != nil {
		return err
	}
	name, err := body.text("Name")
	if err != nil {
		return err
	}
	if c.p.Policy != Keep {
		err = body.label(c.p.labels)
	}
	if c.own() {
		err = errors.Join(err, c.p.judgeNetwork(name, body))
	}
	if err != nil {
		return err
	}
	return c.send(body, c.record(network, name))
}

// judgeNetwork refuses networks that would reach the host's interfaces or stand in for another network. The drivers host,
// macvlan and ipvlan put containers on the host's own links, so bridge and overlay are all that is left.
func (p *Proxy) judgeNetwork(name string, body object) error {
	driver, err := body.text("Driver")
	if err != nil {
		return err
	}
	options, err := body.object("Options")
	if err != nil {
		return err
	}
	ipam, err := body.object("IPAM")
	if err != nil {
		return err
	}
	if err := ipam.canon("Driver Config Options"); err != nil {
		return err
	}
	if driver != "overlay" { // the addresses of an overlay are in a namespace of its own
		if err := judgeSubnets(ipam); err != nil {
			return err
		}
	}
	for option := range options {
		// com.docker.network.bridge.name, for one, takes an existing bridge over.
		if !slices.Contains(strings.Fields(networkOptions), option) {
			return &Refusal{"network-options", "a build must not set the network option " + option, varPolicy}
		}
	}
	return errors.Join(
		// Of two networks of one name nobody could use either by its name.
		refuseUnless(!p.sharedNetwork(name), "networks", "a build must not make a network called "+name),
		refuseUnless(slices.Contains([]string{"", "bridge", "overlay"}, driver), "network-options",
			"a build must not use the network driver "+driver),
		refuseUnless(ipam["Driver"] == nil || ipam["Driver"] == "" || ipam["Driver"] == "default", "network-options",
			"a build must not use an address plugin"),
		refuseUnless(zero(body["Ingress"]) && zero(body["ConfigFrom"]) && zero(body["ConfigOnly"]), "network-options",
			"a build must not make the ingress network or share a network's configuration"))
}

// private are the addresses that a build may give to a bridge: those of RFC 1918 and RFC 4193.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("fc00::/7"),
}

// judgeSubnets refuses bridges that would take the host's traffic over: the host has a route to each bridge's subnet,
// and what it sends to an address there goes to the build's containers.
func judgeSubnets(ipam object) error {
	configs, err := ipam.objects("Config")
	if err != nil {
		return err
	}
	for _, cfg := range configs {
		if err := cfg.canon("Subnet"); err != nil {
			return err
		}
		text, err := cfg.text("Subnet")
		if err != nil {
			return err
		}
		// The daemon then takes one from its own pools, which it keeps clear of the host's routes.
		if text == "" {
			continue
		}
		subnet, err := netip.ParsePrefix(text)
		if err != nil {
			return &invalid{http.StatusBadRequest, "the subnet of the network cannot be read: " + text}
		}
		inside := func(p netip.Prefix) bool { return p.Bits() <= subnet.Bits() && p.Contains(subnet.Addr()) }
		taken, err := hostHas(subnet)
		if err != nil {
			return err
		}
		if taken || !slices.ContainsFunc(private, inside) {
			return &Refusal{"network-options", "a build must not make a bridge on " + text +
				", which is in use on the host or not a private subnet", varPolicy}
		}
	}
	return nil
}

// hostHas says whether the host has an address in, or a network around, a subnet. It looks in the runner's network
// namespace, which is the daemon's unless one of the two is in a container or on another host. The daemon itself refuses
// only what overlaps with its own networks.
func hostHas(subnet netip.Prefix) (bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("list the host's addresses: %w", err)
	}
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Overlaps(subnet)
	}), nil
}

// inspectNetwork shows a network; of a shared one only the build's own containers. What it shows of others would be their
// names and addresses.
func inspectNetwork(c *call) error {
	if !c.own() {
		return c.forward(nil)
	}
	f, err := c.p.look(c.ctx(), network, c.args[0])
	if err != nil {
		return err
	}
	own := c.p.labelled(f.labels)
	if !own && !c.p.sharedNetwork(f.name) {
		return &Refusal{"networks", "this build must not use the network " + c.args[0], varNetworks}
	}
	if own { // a shared one has another id in another scope
		c.retarget(f.id)
		return c.forward(nil)
	}
	return edit(c, func(answer raw) (raw, error) {
		delete(answer, "Services")
		return answer, c.p.ownEndpoints(c.ctx(), answer)
	})
}

// ownEndpoints leaves only the build's containers in a network's answer. The answer has their ids and names but no labels,
// so the containers are listed.
func (p *Proxy) ownEndpoints(ctx context.Context, answer raw) error {
	all := map[string]json.RawMessage{}
	if len(answer["Containers"]) > 0 {
		if err := json.Unmarshal(answer["Containers"], &all); err != nil {
			return err
		}
	}
	list, err := p.Docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: p.filter()})
	if err != nil {
		return err
	}
	own := map[string]json.RawMessage{}
	for _, s := range list.Items {
		if e, ok := all[s.ID]; ok {
			own[s.ID] = e
		}
	}
	answer["Containers"], err = json.Marshal(own)
	return err
}

// filter matches the build's own objects, but for images and for what only the ledger knows.
func (p *Proxy) filter() client.Filters { return client.Filters{}.Add("label", LabelBuild+"="+p.Build) }

// connectNetwork attaches and detaches a container: the bodies of the two calls differ in a field each, and what one does
// not have it ignores.
func connectNetwork(c *call) error {
	if !c.own() {
		return c.forward(nil)
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	if err := c.only(body, "Container EndpointConfig Force"); err != nil {
		return err
	}
	settings, err := body.make("EndpointConfig")
	if err != nil {
		return err
	}
	if err := c.judgeEndpoint(c.args[0], settings); err != nil {
		return err
	}
	ref, err := body.text("Container")
	if err != nil {
		return err
	}
	f, err := c.p.need(c.ctx(), container, ref)
	if err != nil {
		return err
	}
	body["Container"] = f.id // the name may mean another container by the time the daemon reads it
	return c.send(body, nil)
}

// removeNetwork waits until no task of a removed service sits on the network. A daemon that loses a network under a
// task never gives the task's addresses on its other networks back. `docker stack rm` removes services and networks in one
// go, so this is what keeps it, and abra, from using up the addresses of a shared network. It holds under every policy.
func removeNetwork(c *call) error {
	f, err := c.p.need(c.ctx(), network, c.args[0])
	if err != nil {
		return err
	}
	if err := c.p.hold(c.ctx(), f.id); err != nil {
		return err
	}
	c.retarget(f.id)
	return c.forward(nil)
}

// pruneNetworks waits for the tasks on all of the build's networks, one after another; the daemon removes them in one go,
// so none may go before. `docker system prune` makes this call, too.
func pruneNetworks(c *call) error {
	if c.p.Policy != Keep {
		own, err := c.p.Docker.NetworkList(c.ctx(), client.NetworkListOptions{Filters: c.p.filter()})
		if err != nil {
			return err
		}
		for _, n := range own.Items {
			if err := c.p.hold(c.ctx(), n.ID); err != nil {
				return err
			}
		}
	}
	return prune(c)
}
