package proxy

import (
	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
)

// stackLabel is what `docker stack deploy` and abra mark the objects of a stack with.
const stackLabel = "com.docker.stack.namespace"

// longestStack is how long the name of a stack can be that matters: as long as a domain. Names of services, secrets and
// configs, which begin with it, have at most 64 characters.
const longestStack = 253

// createService labels a service, its containers and its volumes. The service's own label is for lists and for its tasks,
// that of its ContainerSpec reaches the containers, on every node, and that of a mount the volume that a node makes for it.
func createService(c *call) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	if err := c.serviceSpec(body); err != nil {
		return err
	}
	name, err := body.text("Name")
	if err != nil {
		return err
	}
	return c.send(body, c.record(service, name))
}

// updateService puts the labels back, which an update without them would drop. A service that the build did not make
// is left as the client sends it: a new label would restart its tasks. That is the case under Open only; under Own it is
// refused. Labels that are the same as before restart nothing.
func updateService(c *call) error {
	f, err := c.p.need(c.ctx(), service, c.args[0])
	if err != nil {
		return err
	}
	if c.p.Policy == Keep || !c.p.mine(service, f) {
		return c.forward(nil)
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	if err := c.serviceSpec(body); err != nil {
		return err
	}
	c.retarget(f.id)
	return c.send(body, nil)
}

// serviceSpec labels and judges the whole of a service: a ServiceSpec of the API, from create and update alike. Under Open
// it labels only, and under Keep not even that.
func (c *call) serviceSpec(spec object) error {
	err := c.only(spec, "Name Labels TaskTemplate Mode UpdateConfig RollbackConfig Networks EndpointSpec")
	if err != nil || c.p.Policy == Keep {
		return err
	}
	if err := spec.label(c.p.labels); err != nil {
		return err
	}
	if err := c.noteStack(spec); err != nil {
		return err
	}
	// Older clients name the networks in the service, newer ones in its template.
	if err := c.serviceNetworks(spec); err != nil {
		return err
	}
	template, err := spec.make("TaskTemplate")
	if err != nil {
		return err
	}
	const fields = `PluginSpec ContainerSpec NetworkAttachmentSpec Resources RestartPolicy Placement Networks LogDriver
		ForceUpdate Runtime`
	if err := c.only(template, fields); err != nil {
		return err
	}
	if err := c.serviceNetworks(template); err != nil {
		return err
	}
	if err := c.judgeTemplate(template); err != nil {
		return err
	}
	containers, err := template.make("ContainerSpec")
	if err != nil {
		return err
	}
	return c.containerSpec(containers)
}

// noteStack remembers the names of the build's stacks: secrets made past this socket begin with them. Before the service
// is there: a runner that is killed in between has one name too many in its ledger, which does no harm.
func (c *call) noteStack(spec object) error {
	labels, err := spec.object("Labels")
	if err != nil {
		return err
	}
	stack, ok := labels[stackLabel].(string)
	if !ok || stack == "" || len(stack) > longestStack { // the ledger is not for what a build writes into labels
		return nil
	}
	if c.p.Stack != nil {
		c.p.Stack(stack)
	}
	return c.p.Ledger.Add(ledger.Entry{Kind: "stack", Name: stack})
}

// serviceNetworks checks the networks of a service. The Swarm attaches tasks to them later, by what is written here.
func (c *call) serviceNetworks(o object) error {
	networks, err := o.objects("Networks")
	if err != nil {
		return err
	}
	for _, n := range networks {
		if err := c.only(n, "Target Aliases DriverOpts"); err != nil {
			return err
		}
		target, err := n.text("Target")
		if err != nil {
			return err
		}
		id, err := c.p.useNetwork(c.ctx(), target)
		if err != nil {
			return err
		}
		if id != target {
			n["Target"] = id
		}
	}
	return nil
}

// judgeTemplate refuses tasks that are not containers. Resources, placement and restarts are free: they reach nobody
// else's objects.
func (c *call) judgeTemplate(template object) error {
	if !c.own() {
		return nil
	}
	runtime, err := template.text("Runtime")
	if err != nil {
		return err
	}
	// A task can also be a plugin, which runs as part of the daemon, or the mere attachment to a network.
	if !zero(template["PluginSpec"]) || !zero(template["NetworkAttachmentSpec"]) || (runtime != "" && runtime != "container") {
		return &Refusal{"plugins", "a service of a build must run containers, not plugins", varPolicy}
	}
	return judgeLogging(template["LogDriver"])
}

// containerFields are the fields of a service's containers that are known. The judged ones are looked at below. A
// service has no counterpart of most of HostConfig (privileged, devices, the host's PIDs): the Swarm cannot do those.
const containerFields = `Image Labels Command Args Hostname Env Dir User Groups Privileges Init StopSignal TTY OpenStdin
	ReadOnly Mounts StopGracePeriod Healthcheck Hosts DNSConfig Secrets Configs Isolation Sysctls CapabilityAdd
	CapabilityDrop Ulimits OomScoreAdj`

// containerSpec labels and judges what a service's containers are made from.
func (c *call) containerSpec(spec object) error {
	if err := spec.canon(containerFields); err != nil {
		return err
	}
	if err := spec.label(c.p.labels); err != nil {
		return err
	}
	mounts, err := spec.objects("Mounts")
	if err != nil {
		return err
	}
	host, err := c.mounts(mounts)
	if err != nil || !c.own() {
		return err
	}
	for name, v := range spec {
		if err := c.judgeContainerField(spec, name, v); err != nil {
			return err
		}
	}
	if !host {
		return nil
	}
	// CapabilityDrop came with API 1.41, Docker 20.10.
	if c.olderThan(41) { // such a call would lose the field that is set now
		return &Refusal{"devices", "a build's service that mounts files of the host needs Docker's API 1.41 or newer", varPolicy}
	}
	return dropMknod(spec, "CapabilityDrop")
}

// judgeContainerField judges one field of a service's containers, under the policy Own.
func (c *call) judgeContainerField(spec object, name string, v any) error {
	switch name {
	case "Privileges":
		return judgePrivileges(v)
	case "CapabilityAdd":
		return c.judgeCaps(v)
	// The same field as a container's (API 1.46).
	case "OomScoreAdj":
		return c.judgeHostField(spec, name, v)
	case "Secrets":
		return c.judgeFiles(spec, name, "SecretID", secret)
	case "Configs":
		return c.judgeFiles(spec, name, "ConfigID", config)
	// Listed once more: a field that is added to containerFields is refused until somebody has put it here, too.
	case "Image", "Labels", "Command", "Args", "Hostname", "Env", "Dir", "User", "Groups", "Init", "StopSignal", "TTY",
		"OpenStdin", "ReadOnly", "Mounts", "StopGracePeriod", "Healthcheck", "Hosts", "DNSConfig", "Isolation", "Sysctls",
		"CapabilityDrop", "Ulimits":
		return nil
	}
	if zero(v) {
		return nil
	}
	return unknownOption(name)
}

// judgePrivileges allows only what makes a container more confined.
func judgePrivileges(v any) error {
	o, err := object{"Privileges": v}.object("Privileges")
	if err != nil {
		return err
	}
	if err := o.canon("NoNewPrivileges"); err != nil {
		return err
	}
	for name, v := range o {
		if name != "NoNewPrivileges" && !zero(v) {
			return &Refusal{"security-options", "a build must not set the security option " + name, varPolicy}
		}
	}
	return nil
}

// judgeFiles refuses secrets and configs of others. The daemon goes by the id; the name beside it is only shown.
func (c *call) judgeFiles(spec object, field, idField string, k kind) error {
	refs, err := spec.objects(field)
	if err != nil {
		return err
	}
	for _, ref := range refs {
		if err := ref.canon(idField); err != nil {
			return err
		}
		id, err := ref.text(idField)
		if err != nil {
			return err
		}
		if id == "" && k == config {
			continue // a file that the engine makes itself
		}
		if _, err := c.p.need(c.ctx(), k, id); err != nil {
			return err
		}
	}
	return nil
}

// removeService writes down on which nodes the service ran: after its removal nobody can tell. The nodes may still have
// its volumes, so the teardown has to look there, or to name those that it cannot reach.
func removeService(c *call) error {
	f, err := c.p.need(c.ctx(), service, c.args[0])
	if err != nil {
		return err
	}
	if c.p.Policy != Keep && c.p.mine(service, f) {
		tasks, err := c.p.Docker.TaskList(c.ctx(), client.TaskListOptions{Filters: client.Filters{}.Add("service", f.id)})
		if err != nil {
			return err
		}
		for _, t := range tasks.Items {
			// Not placed yet.
			if t.NodeID == "" {
				continue
			}
			if err := c.p.Ledger.Add(ledger.Entry{Kind: "node", ID: t.NodeID}); err != nil {
				return err
			}
		}
	}
	c.retarget(f.id)
	return c.forward(nil)
}
