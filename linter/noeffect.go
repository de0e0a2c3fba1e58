package linter

import (
	"slices"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
)

// checkNoEffect points at keys that other runners know and this one does not act on. They are a warning, since the old
// runner ran such pipelines. `when.paths` is for extensions of the server that rewrite pipelines; Drone itself
// compares it nowhere.
func checkNoEffect(c *check) {
	for _, key := range c.pipeline.Unknown {
		if hasNoEffect(key) {
			c.report(key.Pos, "`%s` has no effect in an exec pipeline", key.Name)
		}
	}
	for _, s := range c.pipeline.Steps {
		if paths := s.When.Paths; !paths.Empty() {
			at := append(slices.Clone(paths.Include), paths.Exclude...)[0].Pos
			c.report(at, "`when.paths` has no effect: the server does not say which files changed")
		}
	}
}

// hasNoEffect reports whether another type of pipeline has the key. It is no typing error then, but a pipeline that
// was moved here, and its author should hear that the key is not acted on. The keys are those of the docker,
// kubernetes, ssh and cloud runners; one of none of them is checkUnknownKeys'.
func hasNoEffect(key resource.Key) bool {
	switch key.Section {
	case resource.InPipeline:
		return slices.Contains([]string{
			"environment", "host_network", "image_pull_secrets", "metadata", "network", "pool", "server", "service_account",
			"services", "tolerations", "node_selector", "node_name", "user", "volumes", "dns_config", "deps",
		}, key.Name)
	case resource.InStep:
		return slices.Contains([]string{
			"args", "command", "devices", "dns", "dns_search", "entrypoint", "extra_hosts", "links", "memswap_limit",
			"mem_limit", "network_mode", "ports", "privileged", "pull", "resources", "settings", "shm_size", "tty",
			"user", "volumes", "working_dir",
		}, key.Name)
	}
	return false
}
