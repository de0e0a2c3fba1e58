package proxy

import (
	"context"
	"regexp"

	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
)

// createVolume labels a volume. Without a name the daemon makes one up; such a volume has the label, too, and is told from
// anonymous ones of containers by it.
func createVolume(c *call) error {
	if c.p.Policy == Keep {
		return c.forward(c.record(volume, ""))
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	if err := c.only(body, "Name Driver DriverOpts Labels ClusterVolumeSpec"); err != nil {
		return err
	}
	if err := body.label(c.p.labels); err != nil {
		return err
	}
	if c.own() {
		if err := c.judgeNewVolume(body); err != nil {
			return err
		}
	}
	return c.send(body, c.record(volume, ""))
}

// judgeNewVolume refuses the name of somebody else's volume, for which the daemon would answer as if it were made: to
// create a volume that is there is no error in Docker's API, and gives whoever asks its name to mount.
func (c *call) judgeNewVolume(body object) error {
	if !zero(body["ClusterVolumeSpec"]) {
		return &Refusal{"volume-driver", "a build must not make cluster volumes", varPolicy}
	}
	if err := judgeVolume(body, "Driver", "DriverOpts"); err != nil {
		return err
	}
	name, err := body.text("Name")
	if err != nil || name == "" {
		return err
	}
	if _, err := c.p.need(c.ctx(), volume, name); !absent(err) {
		return err
	}
	return nil
}

// judgeVolume allows the local driver, and of its options only a file system in memory: the others mount what the
// build names, from the host or from the network. The driver's configuration has one spelling in a volume and another in a
// mount, hence the names of the fields.
func judgeVolume(o object, driverField, optionsField string) error {
	driver, err := o.text(driverField)
	if err != nil {
		return err
	}
	if driver != "" && driver != "local" {
		return &Refusal{"volume-driver", "a build must not use volume plugins", varPolicy}
	}
	options, err := o.object(optionsField)
	if err != nil || len(options) == 0 {
		return err
	}
	// o=bind is a mount of any host path, whatever the type; nfs, cifs and block devices are no better.
	flags, err := options.text("o")
	if err != nil {
		return err
	}
	if options["type"] != "tmpfs" || !tmpfsFlags.MatchString(flags) {
		return &Refusal{"volume-options", "a build must not make a volume that mounts something else", varMounts}
	}
	return nil
}

// tmpfsFlags are the mount options of a file system in memory, see tmpfs(5). The local driver gives `o` to mount(2) as it
// is, so what does not match could be a flag such as bind.
var tmpfsFlags = regexp.MustCompile(`^((size|mode|uid|gid|nr_inodes|nr_blocks)=[0-9a-zA-Z%]+|ro|rw|noexec|nosuid|nodev|noatime|,)*$`)

// claimVolume makes sure that a volume named in a bind exists and is the build's: made that way it would have no
// label.
func (p *Proxy) claimVolume(ctx context.Context, name string) error {
	_, err := p.need(ctx, volume, name)
	if !absent(err) {
		return err
	}
	// In the ledger first: its event comes as soon as it is made.
	if err := p.Ledger.Add(ledger.Entry{Kind: string(volume), Name: name}); err != nil {
		return err
	}
	_, err = p.Docker.VolumeCreate(ctx, client.VolumeCreateOptions{Name: name, Labels: p.labels})
	if err == nil {
		_, err = p.need(ctx, volume, name) // somebody else may have been faster
	}
	return err
}
