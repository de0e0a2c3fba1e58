package swarm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/proxy"
)

// Orphan is what somebody left on the Docker host: a build, or an app whose domain matches the configured pattern and
// that was deployed without a build's socket. Its JSON is what `cc-ci-runner leaks --json` prints.
type Orphan struct {
	// Build is the build's name; Stack that of an app's stack. One of them is set.
	Build string `json:"build,omitempty"`
	Stack string `json:"stack,omitempty"`

	Labels map[string]string `json:"labels,omitempty"` // repo, number, stage
	Since  time.Time         `json:"since"`            // the oldest known time; zero when nothing tells
	Items  []leftover.Item   `json:"items"`

	// Live says that somebody uses it: the build runs, or the app's lock is held. It was so when Find looked; Remove
	// refuses what was live then, and asks the lock of an app again.
	Live bool `json:"live,omitempty"`
}

// Find lists what builds and apps hold, the oldest first, those that run too. A build is live when running says so: the
// answer lies in locks and processes on the host, which are the engine's affair.
func (s *Swarm) Find(ctx context.Context, running func(build string) bool) ([]Orphan, error) {
	if s.cfg.Mode != ModeProxy {
		return nil, nil
	}
	builds, err := s.Builds(ctx)
	if err != nil {
		return nil, err
	}
	var out []Orphan
	for _, b := range builds {
		o, err := s.orphan(ctx, b)
		if err != nil {
			return nil, err
		}
		o.Live = running(b)
		out = append(out, o)
	}
	apps, err := s.FindApps(ctx)
	if err != nil {
		return nil, err
	}
	out = append(out, apps...)
	slices.SortStableFunc(out, func(a, b Orphan) int { return a.Since.Compare(b.Since) })
	return out, nil
}

// orphan describes what one build holds. Repository and number stand in its ledger, or else in the labels of any of its
// objects. Without a ledger nothing says since when.
func (s *Swarm) orphan(ctx context.Context, build string) (Orphan, error) {
	o := Orphan{Build: build}
	header, _, err := ledger.Read(s.cfg.LedgerDir, build)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return o, err
	}
	o.Labels, o.Since = header.Labels, header.Started
	if o.Items, err = s.Remaining(ctx, build); err != nil || o.Labels != nil {
		return o, err
	}
	marks, err := s.marked(ctx)
	for _, m := range marks {
		if m.build != build {
			continue
		}
		o.Labels = map[string]string{}
		for k, v := range m.info {
			if name, ours := strings.CutPrefix(k, proxy.LabelPrefix); ours && k != proxy.LabelBuild {
				o.Labels[name] = v
			}
		}
	}
	return o, err
}

// Remove removes an orphan and returns what it removed. It waits as Teardown does. Of a build, what could not be removed
// is no error; Find names it again. Of an app it is one.
func (s *Swarm) Remove(ctx context.Context, o Orphan) ([]leftover.Item, error) {
	if o.Live {
		return nil, fmt.Errorf("remove %s: it is in use", o.name())
	}
	if o.Build != "" {
		return s.Teardown(ctx, o.Build)
	}
	// An Orphan may have been made by hand, or under another pattern.
	if !s.appStack(o.Stack) {
		return nil, fmt.Errorf("remove %s: its domain does not match the pattern of apps that builds deploy", o.name())
	}
	// Held until all is gone: whoever wants to deploy the app again has to wait.
	lock, err := s.lockApp(o.Stack)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, s.cfg.TeardownTimeout)
	defer cancel()
	// Kept from look to look: the app's own stack is soon gone, and others may come.
	deployed := map[string]bool{}
	look := func(ctx context.Context) (*holding, error) {
		there, err := s.deployed(ctx)
		if err != nil {
			return nil, err
		}
		maps.Copy(deployed, there)
		return s.appHolding(ctx, o.Stack, deployed)
	}
	t := newTeardown(s, o.name(), look)
	left, err := t.run(limited)
	files, fileErr := s.removeEnvFile(o.Stack)
	return append(t.removed(left), files...), errors.Join(err, fileErr, lock.Close())
}

// name is what an orphan is called in messages.
func (o Orphan) name() string {
	if o.Build != "" {
		return o.Build
	}
	return "stack " + o.Stack
}

// FindApps lists what apps hold that were deployed without a build's socket, by the pattern of their domains. One
// whose lock somebody holds is live.
func (s *Swarm) FindApps(ctx context.Context) ([]Orphan, error) {
	if s.apps == nil {
		return nil, nil
	}
	stacks := map[string]time.Time{}
	if err := s.appStacks(ctx, stacks); err != nil {
		return nil, err
	}
	if len(stacks) == 0 {
		return nil, nil
	}
	deployed, err := s.deployed(ctx)
	if err != nil {
		return nil, err
	}
	var out []Orphan
	for _, stack := range slices.Sorted(maps.Keys(stacks)) {
		h, err := s.appHolding(ctx, stack, deployed)
		if err != nil {
			return nil, err
		}
		if h.empty() {
			continue // a build's, found by its label; or another app's
		}
		o := Orphan{Stack: stack, Since: stacks[stack]}
		for _, v := range h.all() {
			o.Items = append(o.Items, v.item())
		}
		o.Live = s.inUse(stack)
		out = append(out, o)
	}
	return out, nil
}

// appStacks collects the stacks of apps, and since when they are there as far as the Swarm tells. Volumes are those of the
// manager: one that is all that is left on another node is not found. A secret or a volume
// may be all that is left of one: its name then begins with the stack's, which ends where the domain does.
func (s *Swarm) appStacks(ctx context.Context, stacks map[string]time.Time) error {
	add := func(stack string, made time.Time) {
		if old, known := stacks[stack]; s.appStack(stack) && (!known || (!made.IsZero() && made.Before(old))) {
			stacks[stack] = made
		}
	}
	services, err := s.docker.ServiceList(ctx, client.ServiceListOptions{})
	if notManager(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	for _, v := range services.Items {
		add(v.Spec.Labels[stackLabel], v.CreatedAt)
	}
	secrets, err := s.docker.SecretList(ctx, client.SecretListOptions{})
	if err != nil {
		return fmt.Errorf("list secrets: %w", err)
	}
	for _, v := range secrets.Items {
		for _, stack := range prefixes(v.Spec.Name) {
			add(stack, v.CreatedAt)
		}
	}
	configs, err := s.docker.ConfigList(ctx, client.ConfigListOptions{})
	if err != nil {
		return fmt.Errorf("list configs: %w", err)
	}
	for _, v := range configs.Items {
		for _, stack := range prefixes(v.Spec.Name) {
			add(stack, v.CreatedAt)
		}
	}
	volumes, err := s.docker.VolumeList(ctx, client.VolumeListOptions{Filters: client.Filters{}.Add("label", stackLabel)})
	if err != nil {
		return fmt.Errorf("list volumes: %w", err)
	}
	for _, v := range volumes.Items {
		made, _ := time.Parse(time.RFC3339, v.CreatedAt) // a driver need not say when
		add(v.Labels[stackLabel], made)
	}
	return nil
}

// prefixes are the names that end before an underscore of a name: a_b_c gives a and a_b. Where in a secret's name the
// stack's ends cannot be seen, so the pattern of domains decides.
func prefixes(name string) []string {
	var out []string
	for i, r := range name {
		if r == '_' && i > 0 {
			out = append(out, name[:i])
		}
	}
	return out
}
