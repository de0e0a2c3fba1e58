//go:build linux

package swarmtest

import (
	"context"
	"errors"
	"strings"

	"github.com/moby/moby/client"
)

// Objects lists every object of the daemon as "kind name", except for what each Swarm has: networks by name, images by id
// and by tag, tasks as node/id. No filter narrows it, and no
// label is believed: it is what the code under test is held against. It shares no code with that on purpose. With an error
// the map has what could be listed.
func (d *Daemon) Objects(ctx context.Context) (map[string]bool, error) {
	out := map[string]bool{}
	return out, errors.Join(d.shared(ctx, out), d.local(ctx, out))
}

// local lists what a node holds. Images have one line for each tag beside that of their id.
func (d *Daemon) local(ctx context.Context, out map[string]bool) error {
	containers, err := d.Client.ContainerList(ctx, client.ContainerListOptions{All: true})
	// After an error the items are empty; the errors are joined at the end.
	for _, v := range containers.Items {
		name := v.ID // one that is being removed may have lost its names
		if len(v.Names) > 0 {
			name = strings.TrimPrefix(v.Names[0], "/")
		}
		out["container "+name] = true
	}
	volumes, errVolumes := d.Client.VolumeList(ctx, client.VolumeListOptions{})
	for _, v := range volumes.Items {
		out["volume "+v.Name] = true
	}
	custom := client.Filters{}.Add("type", "custom")
	networks, errNetworks := d.Client.NetworkList(ctx, client.NetworkListOptions{Filters: custom})
	for _, v := range networks.Items {
		if v.Name != "docker_gwbridge" && v.Name != "ingress" {
			out["network "+v.Name] = true
		}
	}
	images, errImages := d.Client.ImageList(ctx, client.ImageListOptions{All: true})
	for _, v := range images.Items {
		out["image "+v.ID] = true
		for _, tag := range v.RepoTags {
			if tag != "<none>:<none>" {
				out["image "+tag] = true
			}
		}
	}
	return errors.Join(err, errVolumes, errNetworks, errImages)
}

// shared lists what the whole Swarm shares; only a manager tells. Tasks of removed services are among it for some seconds,
// until their containers are gone.
func (d *Daemon) shared(ctx context.Context, out map[string]bool) error {
	services, err := d.Client.ServiceList(ctx, client.ServiceListOptions{})
	for _, v := range services.Items {
		out["service "+v.Spec.Name] = true
	}
	tasks, errTasks := d.Client.TaskList(ctx, client.TaskListOptions{})
	for _, v := range tasks.Items {
		out["task "+v.NodeID+"/"+v.ID] = true
	}
	secrets, errSecrets := d.Client.SecretList(ctx, client.SecretListOptions{})
	for _, v := range secrets.Items {
		out["secret "+v.Spec.Name] = true
	}
	configs, errConfigs := d.Client.ConfigList(ctx, client.ConfigListOptions{})
	for _, v := range configs.Items {
		out["config "+v.Spec.Name] = true
	}
	return errors.Join(err, errTasks, errSecrets, errConfigs)
}
