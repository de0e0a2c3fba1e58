package swarm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// Snapshot is every Docker object that carries no build's label, as one look found it.
type Snapshot map[leftover.Item]bool

// Snapshot looks at everything. Taken when no build runs it is a baseline for Ownerless.
func (s *Swarm) Snapshot(ctx context.Context) (Snapshot, error) {
	out := Snapshot{}
	if s.cfg.Mode != ModeProxy {
		return out, nil
	}
	add := func(kind, name string, labels map[string]string) {
		if labels[proxy.LabelBuild] == "" {
			out[leftover.Item{Kind: kind, Name: name}] = true
		}
	}
	if err := s.snapshotCluster(ctx, add); err != nil {
		return nil, err
	}
	containers, err := s.docker.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for _, v := range containers.Items {
		if v.Labels["com.docker.swarm.task.id"] == "" && len(v.Names) > 0 { // a task's container is its service's affair
			add("container", strings.TrimPrefix(v.Names[0], "/"), v.Labels)
		}
	}
	networks, err := s.docker.NetworkList(ctx, client.NetworkListOptions{Filters: client.Filters{}.Add("type", "custom")})
	if err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	for _, v := range networks.Items {
		if v.Name != "ingress" && v.Name != "docker_gwbridge" {
			add("network", v.Name, v.Labels)
		}
	}
	volumes, err := s.docker.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	for _, v := range volumes.Items {
		add("volume", v.Name, v.Labels)
	}
	return out, nil
}

// snapshotCluster looks at what the Swarm shares.
func (s *Swarm) snapshotCluster(ctx context.Context, add func(kind, name string, labels map[string]string)) error {
	services, err := s.docker.ServiceList(ctx, client.ServiceListOptions{})
	if notManager(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	for _, v := range services.Items {
		add("service", v.Spec.Name, v.Spec.Labels)
	}
	secrets, err := s.docker.SecretList(ctx, client.SecretListOptions{})
	if err != nil {
		return fmt.Errorf("list secrets: %w", err)
	}
	for _, v := range secrets.Items {
		add("secret", v.Spec.Name, v.Spec.Labels)
	}
	configs, err := s.docker.ConfigList(ctx, client.ConfigListOptions{})
	if err != nil {
		return fmt.Errorf("list configs: %w", err)
	}
	for _, v := range configs.Items {
		add("config", v.Spec.Name, v.Spec.Labels)
	}
	return nil
}

// Ownerless lists what a later snapshot has and the baseline has not: nobody's objects, to be reported and left alone.
// Images are left out; they are everybody's cache.
func (base Snapshot) Ownerless(later Snapshot) []leftover.Item {
	var out []leftover.Item
	for item := range later {
		if !base[item] {
			item.Detail = "made by nobody the runner knows"
			out = append(out, item)
		}
	}
	slices.SortFunc(out, func(a, b leftover.Item) int { return strings.Compare(a.String(), b.String()) })
	return out
}
