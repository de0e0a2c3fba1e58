package swarm

import (
	"regexp"
	"slices"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
)

func set(names ...string) map[string]bool {
	out := map[string]bool{}
	for _, n := range names {
		out[n] = true
	}
	return out
}

// TestStackOf tells whose stack a name belongs to. A mistake here would remove somebody else's secret.
func TestStackOf(t *testing.T) {
	for _, c := range []struct {
		name        string
		own, others map[string]bool
		want        string
	}{
		{"app_key_v1", set("app"), nil, "app"},
		{"app_key_v1", nil, set("app"), ""},
		{"app_b_key_v1", set("app"), set("app_b"), ""},
		{"app_b_key_v1", set("app", "app_b"), set("app_c"), "app_b"},
		{"app_b_key_v1", set("app_b"), set("app"), "app_b"},
		{"apple_key", set("app"), nil, ""},
		{"app", set("app"), nil, ""},
		{"other_key", set("app"), nil, ""},
	} {
		if got := stackOf(c.name, c.own, c.others); got != c.want {
			t.Errorf("%s among %v and %v: %q, want %q", c.name, c.own, c.others, got, c.want)
		}
	}
}

func TestAppStack(t *testing.T) {
	s := &Swarm{apps: regexp.MustCompile(`^[a-z0-9]{1,4}-[0-9a-f]{6}\.ci\.example\.org$`)}
	for stack, want := range map[string]bool{
		"shop-0a1b2c_ci_example_org": true, "shop-0a1b2c_ci_example_org_x": false, "traefik_ci_example_org": false, "": false,
	} {
		if got := s.appStack(stack); got != want {
			t.Errorf("%q: %v, want %v", stack, got, want)
		}
	}
	if (&Swarm{}).appStack("shop-0a1b2c_ci_example_org") {
		t.Error("without a pattern no stack is an app's")
	}
}

func TestPrefixes(t *testing.T) {
	if got := prefixes("a_b__c"); !slices.Equal(got, []string{"a", "a_b", "a_b_"}) {
		t.Errorf("got %q", got)
	}
}

func TestOwnerless(t *testing.T) {
	item := func(kind, name string) leftover.Item { return leftover.Item{Kind: kind, Name: name} }
	base := Snapshot{item("volume", "old"): true, item("secret", "gone"): true}
	later := Snapshot{item("volume", "old"): true, item("volume", "new"): true, item("service", "new"): true}
	got := base.Ownerless(later)
	if len(got) != 2 || got[0].Kind != "service" || got[1].Name != "new" {
		t.Errorf("got %v", got)
	}
}
