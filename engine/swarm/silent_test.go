package swarm_test

import (
	"strings"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
)

// TestSilentNode has a build with a task on a node that has an endpoint and has not answered since the start. It is told
// once, by its endpoint; where the endpoint does not show which node it leads to, the other line says so.
func TestSilentNode(t *testing.T) {
	for hostname, want := range map[string]int{"127.0.0.1": 1, "worker": 2} {
		d := stacked(nil, nil, []any{})
		d["/info"] = map[string]any{"Swarm": map[string]any{"NodeID": "n1"}}
		d["/nodes"] = []any{map[string]any{"ID": "n1", "Description": map[string]any{"Hostname": "manager"}},
			map[string]any{"ID": "n2", "Description": map[string]any{"Hostname": hostname}}}
		d["/tasks"] = []any{map[string]any{"ID": "t", "NodeID": "n2", "Labels": map[string]any{"cc-ci.build": "b1"}}}
		const endpoint = "tcp://127.0.0.1:1" // where nobody listens
		s, err := swarm.Open(t.Context(), swarm.Config{Mode: swarm.ModeProxy, Endpoint: d.serve(t), LedgerDir: t.TempDir(), Nodes: []string{endpoint}})
		check(t, err)
		left, err := s.Remaining(t.Context(), "b1")
		check(t, err)
		var told []string
		for _, item := range left {
			if item.Kind == swarm.KindNode {
				told = append(told, item.String())
				if !strings.Contains(item.String(), endpoint) || !strings.Contains(item.Detail, "not checked") {
					t.Errorf("%s does not name the endpoint", item)
				}
			}
		}
		if len(told) != want {
			t.Errorf("%s: told %q, want %d lines", hostname, told, want)
		}
		check(t, s.Close())
	}
}
