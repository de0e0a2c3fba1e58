package compiler

import (
	"slices"
	"strings"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

// edges writes the graph as `step<dep,dep`, in the order of the steps.
func edges(spec *engine.Spec) string {
	var list []string
	for _, s := range spec.Steps {
		list = append(list, s.Name+"<"+strings.Join(s.DependsOn, ","))
	}
	return strings.Join(list, " ")
}

func TestOrder(t *testing.T) {
	tests := map[string]struct{ clone, steps, want string }{
		"serial":                       {"{}", "[{name: a}, {name: b}, {name: c}]", "clone< a<clone b<a c<b"},
		"serial without clone":         {"{disable: true}", "[{name: a}, {name: b}]", "a< b<a"},
		"serial with a step left out":  {"{}", "[{name: a}, {name: b, when: {event: tag}}, {name: c}]", "clone< a<clone c<a"},
		"graph":                        {"{}", "[{name: a}, {name: b}, {name: c, depends_on: [a, b]}]", "clone< a<clone b<clone c<a,b"},
		"graph that names the clone":   {"{}", "[{name: a, depends_on: [clone]}, {name: b}]", "clone< a<clone b<clone"},
		"graph without clone":          {"{disable: true}", "[{name: a, depends_on: [clone]}, {name: b}]", "a< b<"},
		"two without clone":            {"{disable: true}", "[{name: a}, {name: b, depends_on: [clone, a]}]", "a< b<a"},
		"own step clone":               {"{disable: true}", "[{name: clone}, {name: b, depends_on: [clone]}]", "clone< b<clone"},
		"graph with a step left out":   {"{}", "[{name: a}, {name: b, depends_on: [a], when: {event: tag}}, {name: c, depends_on: [b]}]", "clone< a<clone c<a"},
		"two left out in a row":        {"{}", "[{name: a}, {name: b, depends_on: [a], when: {event: tag}}, {name: c, depends_on: [b], when: {event: tag}}, {name: d, depends_on: [c, a]}]", "clone< a<clone d<a"},
		"all that it waits for is out": {"{}", "[{name: a, when: {event: tag}}, {name: b, depends_on: [a]}]", "clone< b<clone"},
		"only left out ones form it":   {"{}", "[{name: a}, {name: b}, {name: c, depends_on: [a], when: {event: tag}}]", "clone< a<clone b<clone"},
		"later before earlier":         {"{}", "[{name: a, depends_on: [b]}, {name: b}]", "clone< a<b b<clone"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			spec := prepared(t, sample("kind: pipeline\ntype: exec\nclone: "+test.clone+"\nsteps: "+test.steps+"\n"))
			if got := edges(spec); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// A graph that the old runner took for an empty one: the build was green and had run nothing.
func TestMissingDependencyIsRefused(t *testing.T) {
	for steps, want := range map[string]string{
		"- {name: a, depends_on: [b]}\n":                               ".drone.yml:6:26: step `a` depends on `b`, which is no step of this pipeline (depends-on)",
		"- {name: a, depends_on: [b]}\n- {name: b, depends_on: [a]}\n": ".drone.yml:7:26: steps wait for each other: a -> b -> a (cycle)",
		"- {name: a, depends_on: [a]}\n":                               ".drone.yml:6:26: steps wait for each other: a -> a (cycle)",
	} {
		equal(t, steps, refusal(t, sample(pipeline(steps))), want)
	}
}

func TestStepAttributes(t *testing.T) {
	spec := prepared(t, sample(pipeline(`- {name: plain}
- {name: detached, detach: true}
- {name: ignored, failure: Ignore}
- {name: fails, failure: always}
- {name: both, when: {status: [success, failure]}}
- {name: cleanup, when: {status: failure}}
- {name: good, when: {status: success}}
- {name: not-good, when: {status: {exclude: [success]}}}
- {name: any, when: {status: "*"}}
- {name: changed, when: {status: [changed]}}
`)))
	var detached, ignored []string
	policies := map[string]engine.RunPolicy{}
	for _, s := range spec.Steps {
		policies[s.Name] = s.Run
		if s.Detach {
			detached = append(detached, s.Name)
		}
		if s.IgnoreFailure {
			ignored = append(ignored, s.Name)
		}
	}
	if !slices.Equal(detached, []string{"detached"}) || !slices.Equal(ignored, []string{"ignored"}) {
		t.Errorf("detached %q, ignored %q", detached, ignored)
	}
	for name, want := range map[string]engine.RunPolicy{
		"plain": engine.RunOnSuccess, "both": engine.RunAlways, "cleanup": engine.RunOnFailure, "good": engine.RunOnSuccess,
		"not-good": engine.RunOnFailure, "any": engine.RunAlways, "changed": engine.RunOnSuccess,
	} {
		if policies[name] != want {
			t.Errorf("%s runs %q, want %q", name, policies[name], want)
		}
	}
}

func TestWhenComparesEachField(t *testing.T) {
	in := sample(pipeline(`- {name: action, when: {action: opened}}
- {name: branch, when: {branch: "ma*"}}
- {name: cron, when: {cron: nightly}}
- {name: event, when: {event: [tag, push]}}
- {name: instance, when: {instance: drone.example.com}}
- {name: ref, when: {ref: "refs/heads/**"}}
- {name: repo, when: {repo: octo/*}}
- {name: target, when: {target: production}}
- {name: none-of-them, when: {branch: main, event: tag}}
- {name: excluded, when: {branch: {include: ["*"], exclude: main}}}
`))
	in.Build.Action, in.Build.Cron, in.Build.Deploy = "opened", "nightly", "production"
	var names []string
	for _, s := range prepared(t, in).Steps {
		names = append(names, s.Name)
	}
	if want := []string{"action", "branch", "cron", "event", "instance", "ref", "repo", "target"}; !slices.Equal(names, want) {
		t.Errorf("steps %q", names)
	}
	in.Build.Action, in.Build.Cron, in.Build.Deploy, in.Build.Event = "", "", "", "cron"
	in.Build.Target, in.Build.Ref, in.Repo.Slug, in.System.Host = "x", "refs/tags/1", "other/x", "y"
	if spec := prepared(t, in); len(spec.Steps) != 1 || spec.Steps[0].Name != "excluded" {
		t.Errorf("of another build: %s", edges(spec))
	}
}
