package swarm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// stackLabel is what `docker stack deploy` and abra mark the objects of a stack with: services and their containers,
// networks, volumes, and those secrets and configs that a compose file makes.
const stackLabel = "com.docker.stack.namespace"

// stackData adds the secrets and configs that were made for the build's stacks past its socket. They carry no label;
// their names begin with the stack's. A name alone proves little, so they must also be younger than the build, or
// the stack be one that only builds deploy. abra makes an app's secrets over a connection of its own when it does not
// go by DOCKER_HOST. One that has a stack's label (`docker stack deploy` sets it) must have that of the same stack.
//
// A ledger that was lost, or cut short in its first line, has no start: then only the pattern of apps counts.
func (s *Swarm) stackData(ctx context.Context, h *holding, header ledger.Header, entries []ledger.Entry) error {
	own, others, err := s.stacks(ctx, header.Build, entries)
	if err != nil || len(own) == 0 {
		return err
	}
	secrets, err := s.docker.SecretList(ctx, client.SecretListOptions{})
	if err != nil {
		return fmt.Errorf("list secrets: %w", err)
	}
	configs, err := s.docker.ConfigList(ctx, client.ConfigListOptions{})
	if err != nil {
		return fmt.Errorf("list configs: %w", err)
	}
	// A label of any build decides by itself: this build's are found by it, others' are theirs.
	add := func(kind, id string, spec swarm.Annotations, made time.Time) {
		stack := stackOf(spec.Name, own, others)
		if stack == "" || s.longerInUse(spec.Name, stack) || spec.Labels[proxy.LabelBuild] != "" || (spec.Labels[stackLabel] != "" && spec.Labels[stackLabel] != stack) {
			return
		}
		if s.appStack(stack) || (!header.Started.IsZero() && made.After(header.Started)) {
			h.data = append(h.data, thing{node: s.nodes[0], kind: kind, id: id, name: spec.Name,
				detail: "made past the build's socket, for its stack " + stack})
		}
	}
	for _, v := range secrets.Items {
		add("secret", v.ID, v.Spec.Annotations, v.CreatedAt)
	}
	for _, v := range configs.Items {
		add("config", v.ID, v.Spec.Annotations, v.CreatedAt)
	}
	return nil
}

// stacks names the build's stacks and those of others. A stack of which others have a service is not the build's, even
// if it gave a service that stack's label: a build may write any name there. It reads the ledger's entries, because after
// the services are gone nothing else tells which stacks there were.
func (s *Swarm) stacks(ctx context.Context, build string, entries []ledger.Entry) (own, others map[string]bool, err error) {
	own, others = map[string]bool{}, map[string]bool{}
	for _, e := range entries {
		if e.Kind == "stack" {
			own[e.Name] = true
		}
	}
	if len(own) == 0 {
		return own, others, nil
	}
	err = s.eachStack(ctx, func(stack, owner string, service bool) {
		switch {
		case owner == build:
		case service:
			others[stack] = true
			delete(own, stack)
		// An app that is undeployed for a while keeps its volumes. Of the build's stack they may be from an earlier build.
		case !own[stack]:
			others[stack] = true
		}
	})
	return own, others, err
}

// deployed are the stacks that have a service, or a volume on the manager, whoever made them.
func (s *Swarm) deployed(ctx context.Context) (map[string]bool, error) {
	out := map[string]bool{}
	err := s.eachStack(ctx, func(stack, _ string, _ bool) { out[stack] = true })
	return out, err
}

// eachStack names the stacks of all services, and then of all volumes on the manager, with the build that made each.
func (s *Swarm) eachStack(ctx context.Context, see func(stack, build string, service bool)) error {
	labelled := client.Filters{}.Add("label", stackLabel)
	services, err := s.docker.ServiceList(ctx, client.ServiceListOptions{Filters: labelled})
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	for _, v := range services.Items {
		if stack := v.Spec.Labels[stackLabel]; stack != "" {
			see(stack, v.Spec.Labels[proxy.LabelBuild], true)
		}
	}
	volumes, err := s.docker.VolumeList(ctx, client.VolumeListOptions{Filters: labelled})
	if err != nil {
		return fmt.Errorf("list volumes: %w", err)
	}
	for _, v := range volumes.Items {
		if stack := v.Labels[stackLabel]; stack != "" {
			see(stack, v.Labels[proxy.LabelBuild], false)
		}
	}
	return nil
}

// stackOf returns the build's stack that an object's name begins with, unless the name begins with that of another,
// longer named stack too: app_b_key may be the secret b_key of app or the secret key of app_b. In doubt it is not the
// build's: to leave a secret costs less than to remove somebody's.
func stackOf(name string, own, others map[string]bool) string {
	best := ""
	for _, stacks := range []map[string]bool{own, others} {
		for stack := range stacks {
			if strings.HasPrefix(name, stack+"_") && len(stack) > len(best) {
				best = stack
			}
		}
	}
	if !own[best] {
		return ""
	}
	return best
}

// appOf returns the stack of the app that a secret or config belongs to by its name alone, or nothing in doubt. It is that
// with the longest name, of the apps that match the pattern and of the stacks that are deployed: a_b_pw_v1 may be the secret
// b_pw of the app a or pw of a.b. One that is only guessed from the name gives way to a shorter one that is in use.
func (s *Swarm) appOf(name string, deployed map[string]bool) string {
	best, used := "", false
	for _, stack := range prefixes(name) { // the shortest first
		if !deployed[stack] && !s.appStack(stack) {
			continue
		}
		// Not asked of the longest: whoever removes it holds its lock.
		used = used || deployed[best] || (best != "" && s.inUse(best))
		best = stack
	}
	if used && !deployed[best] {
		return ""
	}
	return best
}

// longerInUse says whether an object's name may be that of an app with a longer name than a build's stack, whose lock
// somebody holds: such an app may have secrets before it has a service.
func (s *Swarm) longerInUse(name, stack string) bool {
	return slices.ContainsFunc(prefixes(name), func(longer string) bool {
		return len(longer) > len(stack) && s.appStack(longer) && s.inUse(longer)
	})
}

// domain is the domain of an app whose stack has this name: abra replaces dots by underscores, which no domain has. The
// result may be no domain at all: a build chooses its stacks' names, so paths are made of its filepath.Base.
func domain(stack string) string { return strings.ReplaceAll(stack, "_", ".") }

// appStack says whether a stack is one that, by the configured pattern, only builds deploy. The pattern has to match up to
// the domain's end, but not from its beginning: an admin who means whole domains writes ^.
func (s *Swarm) appStack(stack string) bool {
	return s.apps != nil && s.apps.MatchString(domain(stack))
}
