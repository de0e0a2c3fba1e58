package proxy

import (
	"fmt"
	"slices"
	"strings"
)

// freeHostFields are the fields of a container's host configuration that reach no further than the container. Some of
// them take what all share (memory, ports), which no policy here limits; see the limits in docs/swarm.md. A new daemon's
// field belongs here only when it is known to open nothing of the host.
const freeHostFields = `ContainerIDFile PortBindings RestartPolicy AutoRemove ConsoleSize CapDrop Dns DnsOptions
	DnsSearch ExtraHosts GroupAdd PublishAllPorts ReadonlyRootfs StorageOpt Tmpfs ShmSize Sysctls Isolation CpuShares
	Memory NanoCpus NanoCPUs BlkioWeight BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps
	BlkioDeviceWriteIOps CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems KernelMemory
	KernelMemoryTCP MemoryReservation MemorySwap MemorySwappiness OomKillDisable PidsLimit Ulimits CpuCount CpuPercent
	IOMaximumIOps IOMaximumBandwidth Init Umask`

// judgedHostFields are those that are looked at one by one. Annotations are among them without a case of their own: they
// steer runtimes, so only empty ones pass.
const judgedHostFields = `Binds LogConfig NetworkMode VolumeDriver VolumesFrom CapAdd CgroupnsMode IpcMode Cgroup Links
	OomScoreAdj PidMode Privileged SecurityOpt UTSMode UsernsMode Runtime CgroupParent Devices DeviceCgroupRules
	DeviceRequests Mounts MaskedPaths ReadonlyPaths Annotations`

// defaultCaps are what every container has anyway (moby, oci/caps/defaults.go), so that to name them adds nothing. MKNOD
// is missing on purpose: containers that see the build's files lose it.
const defaultCaps = `CHOWN DAC_OVERRIDE FSETID FOWNER NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT
	KILL AUDIT_WRITE`

// judgeHost refuses a host configuration that reaches beyond the build. A field that is not known here, and is not
// empty, is refused: newer daemons learn new ways out. Mounts are not judged here but by mountsOfContainer, which also
// rewrites them.
func (c *call) judgeHost(host object) error {
	if err := host.canon(freeHostFields + " " + judgedHostFields); err != nil || !c.own() {
		return err
	}
	free := strings.Fields(freeHostFields)
	for name, v := range host {
		if slices.Contains(free, name) {
			continue
		}
		if err := c.judgeHostField(host, name, v); err != nil {
			return err
		}
	}
	return c.judgeShared(host)
}

// judgeHostField judges one field by itself. A case of its own says what the field opens; the last lines take every other
// field that is not free, known or not.
func (c *call) judgeHostField(host object, name string, v any) error {
	text, _ := v.(string)
	switch name {
	case "Binds", "Mounts", "VolumesFrom", "Links", "NetworkMode": // judged where they are rewritten or looked up
		return nil
	// All devices and capabilities of the host.
	case "Privileged":
		return refuseUnless(zero(v), "privileged", "a build must not start privileged containers")
	case "PidMode", "IpcMode", "UTSMode", "UsernsMode", "CgroupnsMode":
		return c.judgeNamespace(host, name, text)
	case "Devices", "DeviceCgroupRules", "DeviceRequests":
		// The host's disk is a device.
		return refuseUnless(zero(v), "devices", "a build must not give containers devices of the host")
	case "CapAdd":
		return c.judgeCaps(v)
	case "SecurityOpt":
		return judgeSecurity(v)
	case "MaskedPaths", "ReadonlyPaths": // an empty list unmasks, so only null is the default
		return refuseUnless(v == nil, "security-options", "a build must not unmask "+name)
	case "CgroupParent", "Cgroup":
		// A container below another build's group would be killed, or counted, with that build.
		return refuseUnless(zero(v), "cgroup-parent", "a build must not choose a container's control group")
	case "Runtime":
		// What another runtime confines is unknown here.
		return refuseUnless(slices.Contains([]string{"", "runc", "io.containerd.runc.v2"}, text), "runtime",
			"a build must not choose another runtime")
	case "OomScoreAdj":
		// The killer would take somebody else's process instead.
		return refuseUnless(!strings.HasPrefix(fmt.Sprint(v), "-"), "oom-score",
			"a build must not protect a container from the out-of-memory killer")
	case "LogConfig":
		return judgeLogging(v)
	case "VolumeDriver":
		// A plugin mounts what it likes.
		return refuseUnless(text == "" || text == "local", "volume-driver", "a build must not use volume plugins")
	}
	if zero(v) {
		return nil
	}
	return unknownOption(name)
}

// refuseUnless is nil when the condition holds.
func refuseUnless(ok bool, rule, reason string) error {
	if ok {
		return nil
	}
	return &Refusal{rule, reason, varPolicy}
}

// judgeNamespace allows namespaces of the container's own and those of the build's own containers. The daemon looks a
// name up when the container starts: by then it may be somebody else's, so it gets the id.
func (c *call) judgeNamespace(host object, name, mode string) error {
	if ref, ok := strings.CutPrefix(mode, "container:"); ok {
		f, err := c.p.need(c.ctx(), container, ref)
		host[name] = "container:" + f.id
		return err
	}
	// What is left (private, shareable, none, empty) is the container's own.
	return refuseUnless(mode != "host", "host-namespaces", "a build must not share the host's namespaces ("+name+")")
}

// judgeCaps allows the capabilities that containers have by default and those of the allow-list, with or without CAP_ and
// in any case, as the daemon reads them. ALL is one that is in neither.
func (c *call) judgeCaps(v any) error {
	caps, err := object{"CapAdd": v}.texts("CapAdd")
	for _, name := range caps {
		plain := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		allowed := slices.ContainsFunc(c.p.Caps, func(a string) bool {
			return strings.TrimPrefix(strings.ToUpper(a), "CAP_") == plain
		})
		if !allowed && !slices.Contains(strings.Fields(defaultCaps), plain) {
			return &Refusal{"capabilities", "a build must not add the capability " + name, varCaps}
		}
	}
	return err
}

// judgeSecurity allows only what makes a container more confined. Even a seccomp or AppArmor profile of the build's own
// is refused: whether it allows less than the daemon's cannot be seen here.
func judgeSecurity(v any) error {
	options, err := object{"SecurityOpt": v}.texts("SecurityOpt")
	for _, o := range options {
		if !slices.Contains([]string{"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"}, o) {
			return &Refusal{"security-options", "a build must not set the security option " + o, varPolicy}
		}
	}
	return err
}

// judgeLogging allows the log drivers that stay with the daemon; the others connect to wherever they are told, from the
// host's network, or write where they are told. Containers have the field Type and services the field Name.
func judgeLogging(v any) error {
	o, err := object{"LogConfig": v}.object("LogConfig")
	if err != nil {
		return err
	}
	if err := o.canon("Type Name"); err != nil {
		return err
	}
	for _, field := range []string{"Type", "Name"} {
		driver, err := o.text(field)
		if err != nil {
			return err
		}
		if !slices.Contains([]string{"", "json-file", "local", "journald", "none"}, driver) {
			return &Refusal{"log-driver", "a build must not use the log driver " + driver, varPolicy}
		}
	}
	return nil
}

// judgeShared checks what a container takes over from others: volumes, links, networks. As with namespaces, the
// daemon gets ids. Each is a way into the other container's files, environment or ports, so that has to be the build's.
func (c *call) judgeShared(host object) error {
	// container[:ro] in VolumesFrom, container[:alias] in Links.
	for _, field := range []string{"VolumesFrom", "Links"} {
		refs, err := host.texts(field)
		if err != nil {
			return err
		}
		var pinned []any
		for _, ref := range refs {
			name, rest, ok := strings.Cut(ref, ":")
			f, err := c.p.need(c.ctx(), container, name)
			if err != nil {
				return err
			}
			if !ok && field == "Links" { // the alias is the name then
				rest, ok = strings.TrimPrefix(name, "/"), true
			}
			if ok {
				rest = ":" + rest
			}
			pinned = append(pinned, f.id+rest)
		}
		if pinned != nil {
			host[field] = pinned
		}
	}
	mode, err := host.text("NetworkMode")
	if err != nil {
		return err
	}
	// The one place in which a network's name stands for a container.
	if strings.HasPrefix(mode, "container:") {
		return c.judgeNamespace(host, "NetworkMode", mode)
	}
	id, err := c.p.useNetwork(c.ctx(), mode)
	if id != mode {
		host["NetworkMode"] = id
	}
	return err
}
