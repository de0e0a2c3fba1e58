package swarm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// Snapshot is every Docker object that carries no build's label, as one look found it. Details are left empty, so that
// items of two looks are equal.
type Snapshot map[leftover.Item]bool

// Snapshot looks at everything on the manager and in the Swarm, without a filter: 500 services, 2,000 volumes and 2,000
// secrets take the daemon some 30 ms. Taken when no build runs it is a baseline for Ownerless. Other nodes are not asked.
func (s *Swarm) Snapshot(ctx context.Context) (Snapshot, error) {
	out := Snapshot{}
	if s.cfg.Mode != ModeProxy {
		return out, nil
	}
	var mu sync.Mutex
	add := func(kind, name string, labels map[string]string) {
		if labels[proxy.LabelBuild] != "" {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		out[leftover.Item{Kind: kind, Name: name}] = true
	}
	// At the same time: on a host with thousands of objects each list takes the daemon a good part of the whole.
	looks, ctx := errgroup.WithContext(ctx)
	for _, look := range []func(context.Context, seen) error{
		s.allServices, s.allSecrets, s.allConfigs, s.allContainers, s.allNetworks, s.allVolumes,
	} {
		looks.Go(func() error {
			if err := look(ctx, add); !notManager(err) { // outside a Swarm there is nothing of its kind
				return err
			}
			return nil
		})
	}
	return out, looks.Wait()
}

// seen takes one object. It may be called at the same time. Objects are known by kind and name, not by id: an admin's
// service that is removed and deployed again is not new.
type seen func(kind, name string, labels map[string]string)

func (s *Swarm) allServices(ctx context.Context, add seen) error {
	services, err := s.docker.ServiceList(ctx, client.ServiceListOptions{})
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	for _, v := range services.Items {
		add("service", v.Spec.Name, v.Spec.Labels)
	}
	return nil
}

func (s *Swarm) allSecrets(ctx context.Context, add seen) error {
	secrets, err := s.docker.SecretList(ctx, client.SecretListOptions{})
	if err != nil {
		return fmt.Errorf("list secrets: %w", err)
	}
	for _, v := range secrets.Items {
		add("secret", v.Spec.Name, v.Spec.Labels)
	}
	return nil
}

func (s *Swarm) allConfigs(ctx context.Context, add seen) error {
	configs, err := s.docker.ConfigList(ctx, client.ConfigListOptions{})
	if err != nil {
		return fmt.Errorf("list configs: %w", err)
	}
	for _, v := range configs.Items {
		add("config", v.Spec.Name, v.Spec.Labels)
	}
	return nil
}

func (s *Swarm) allContainers(ctx context.Context, add seen) error {
	containers, err := s.docker.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, v := range containers.Items {
		if v.Labels["com.docker.swarm.task.id"] == "" && len(v.Names) > 0 { // a task's container is its service's affair
			add("container", strings.TrimPrefix(v.Names[0], "/"), v.Labels)
		}
	}
	return nil
}

func (s *Swarm) allNetworks(ctx context.Context, add seen) error {
	// Custom leaves out what every daemon has; the two below count as custom, and come with the Swarm.
	networks, err := s.docker.NetworkList(ctx, client.NetworkListOptions{Filters: client.Filters{}.Add("type", "custom")})
	if err != nil {
		return fmt.Errorf("list networks: %w", err)
	}
	for _, v := range networks.Items {
		if v.Name != "ingress" && v.Name != "docker_gwbridge" {
			add("network", v.Name, v.Labels)
		}
	}
	return nil
}

func (s *Swarm) allVolumes(ctx context.Context, add seen) error {
	volumes, err := s.docker.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return fmt.Errorf("list volumes: %w", err)
	}
	for _, v := range volumes.Items {
		add("volume", v.Name, v.Labels)
	}
	return nil
}

// Ownerless lists what a later snapshot has and the baseline has not: nobody's objects, to be reported and left alone.
// Images are left out; they are everybody's cache. Only looks at which no build runs may be compared: what a build makes
// past its socket would be in one of them by chance.
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
