package swarm_test

import (
	"maps"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// compose is a stack with one of each kind of object: two services on two networks, a secret, a config, named and
// anonymous volumes.
const compose = `
version: "3.8"
services:
  app:
    image: ` + swarmtest.Image + `
    networks: [internal]
    secrets: [key]
    configs: [conf]
    volumes: ["data:/data"]
  db:
    image: ` + swarmtest.ImageVolume + `
    networks: [internal]
networks: {internal: {}}
volumes: {data: {}}
secrets: {key: {file: ./key}}
configs: {conf: {file: ./key}}
`

func TestTeardownOfAStack(t *testing.T) {
	h := newHost(t, nil)
	before := h.census()
	j := h.attach("cc-ci-test-1", nil)
	j.write("key", "k")
	j.deploy("shop", compose)
	h.running("shop_app", 1)
	h.running("shop_db", 1)
	j.do("run", "-d", "-v", "loose:/x", "-v", "/anon2", swarmtest.ImageVolume)

	kinds := map[string]int{}
	for _, item := range j.teardown() {
		kinds[item.Kind]++
	}
	want := map[string]int{"service": 2, "container": 3, "network": 1, "secret": 1, "config": 1, "volume": 5}
	if !maps.Equal(kinds, want) {
		t.Errorf("removed %v, want %v", kinds, want)
	}
	if after := h.census(); !maps.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}
}
