package swarm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// removeEnvFiles removes the env files of the apps that the build deployed: without them abra no longer lists the
// apps. Only files of domains that match the configured pattern are touched, and none of an app of which others have
// a service. Steps write these files as they write any other, so there is no label: the ledger's stacks lead to them.
func (s *Swarm) removeEnvFiles(ctx context.Context, build string) ([]leftover.Item, error) {
	header, entries, err := ledger.Read(s.cfg.LedgerDir, build)
	if errors.Is(err, os.ErrNotExist) || header.Keep || len(s.cfg.EnvDirs) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	own, _, err := s.stacks(ctx, build, entries)
	if err != nil {
		return nil, err
	}
	var out []leftover.Item
	for _, stack := range slices.Sorted(maps.Keys(own)) {
		files, rmErr := s.removeEnvFile(stack)
		out, err = append(out, files...), errors.Join(err, rmErr)
	}
	return out, err
}

// removeEnvFile removes the env files of one app, one a directory: abra keeps a directory for each server it knows.
func (s *Swarm) removeEnvFile(stack string) (out []leftover.Item, err error) {
	if !s.appStack(stack) {
		return nil, nil
	}
	for _, dir := range s.cfg.EnvDirs {
		// Base: the stack's name may be anything that a build wrote into a label.
		path := filepath.Join(dir, filepath.Base(domain(stack))+".env")
		rmErr := os.Remove(path)
		if rmErr == nil {
			out = append(out, leftover.Item{Kind: "file", Name: path, Detail: "the app's env file"})
		} else if !errors.Is(rmErr, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove an app's env file: %w", rmErr))
		}
	}
	return out, err
}

// appHolding looks for what belongs to an app by its stack's name and carries no build's label. Everything in it has
// the stack's label, but for secrets and configs, which abra makes without one. Unlike holding it wants every node to
// answer: what is removed by its name is removed only when all of it can be seen. deployed are the stacks that there are,
// and that there were before the first removal.
func (s *Swarm) appHolding(ctx context.Context, stack string, deployed map[string]bool) (*holding, error) {
	h := &holding{}
	filter := client.Filters{}.Add("label", stackLabel+"="+stack)
	// A service with a build's label is that build's, also when its stack matches the pattern.
	services, err := s.docker.ServiceList(ctx, client.ServiceListOptions{Filters: filter})
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	for _, v := range services.Items {
		if v.Spec.Labels[proxy.LabelBuild] == "" {
			h.services = append(h.services, thing{node: s.nodes[0], kind: "service", id: v.ID, name: v.Spec.Name})
		}
	}
	tasks, err := s.docker.TaskList(ctx, client.TaskListOptions{Filters: filter})
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	for _, v := range tasks.Items {
		if v.Spec.ContainerSpec == nil || v.Spec.ContainerSpec.Labels[proxy.LabelBuild] == "" {
			h.tasks = append(h.tasks, thing{node: s.nodes[0], kind: "task", id: v.ID, name: v.NodeID + "/" + v.ID})
		}
	}
	if err := s.appData(ctx, h, stack, deployed); err != nil {
		return nil, err
	}
	for _, n := range s.nodes {
		if err := appLocal(ctx, h, n, filter); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// appData looks for an app's secrets and configs by their names, <stack>_<name>_<version>: abra's have no label. One that
// has a stack's label (`docker stack deploy` sets it) must have that of the app.
func (s *Swarm) appData(ctx context.Context, h *holding, stack string, deployed map[string]bool) error {
	add := func(kind, id string, spec swarm.Annotations) {
		if spec.Labels[proxy.LabelBuild] != "" || !strings.HasPrefix(spec.Name, stack+"_") {
			return
		}
		label := spec.Labels[stackLabel]
		if label == stack || (label == "" && s.appOf(spec.Name, deployed) == stack) {
			h.data = append(h.data, thing{node: s.nodes[0], kind: kind, id: id, name: spec.Name})
		}
	}
	secrets, err := s.docker.SecretList(ctx, client.SecretListOptions{})
	if err != nil {
		return fmt.Errorf("list secrets: %w", err)
	}
	for _, v := range secrets.Items {
		add("secret", v.ID, v.Spec.Annotations)
	}
	configs, err := s.docker.ConfigList(ctx, client.ConfigListOptions{})
	if err != nil {
		return fmt.Errorf("list configs: %w", err)
	}
	for _, v := range configs.Items {
		add("config", v.ID, v.Spec.Annotations)
	}
	return nil
}

// appLocal looks for an app's containers, networks and volumes on one node. The Swarm's networks are listed by every node
// that has a task on them; the second removal finds none, which is what is wanted.
func appLocal(ctx context.Context, h *holding, n *node, filter client.Filters) error {
	containers, err := n.docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filter})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, v := range containers.Items {
		if v.Labels[proxy.LabelBuild] == "" {
			h.containers = append(h.containers, thing{node: n, kind: "container", id: v.ID, name: firstName(v)})
		}
	}
	networks, err := n.docker.NetworkList(ctx, client.NetworkListOptions{Filters: filter})
	if err != nil {
		return fmt.Errorf("list networks: %w", err)
	}
	for _, v := range networks.Items {
		if v.Labels[proxy.LabelBuild] == "" {
			h.networks = append(h.networks, thing{node: n, kind: "network", id: v.ID, name: v.Name})
		}
	}
	// Volumes stay when a stack is removed, so they may be all that is left of an app on a node.
	volumes, err := n.docker.VolumeList(ctx, client.VolumeListOptions{Filters: filter})
	if err != nil {
		return fmt.Errorf("list volumes: %w", err)
	}
	for _, v := range volumes.Items {
		if v.Labels[proxy.LabelBuild] == "" {
			h.volumes = append(h.volumes, thing{node: n, kind: "volume", id: v.Name})
		}
	}
	return nil
}
