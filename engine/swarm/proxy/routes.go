package proxy

import (
	"net/http"
	"regexp"
	"strings"
)

// route is one call of the Docker API and what becomes of it. In a pattern {} stands for one path element and {..}
// for several (the names of images). No method stands for every one.
type route struct {
	method  string
	pattern *regexp.Regexp
	handle  func(*call) error
}

// The variables that refusals name: the first forbids, the others each have a list that allows.
const (
	varPolicy   = "DRONE_RUNNER_DOCKER_POLICY=own"
	varNetworks = "allow it with DRONE_RUNNER_DOCKER_NETWORKS"
	varMounts   = "allow it with DRONE_RUNNER_DOCKER_MOUNTS"
	varCaps     = "allow it with DRONE_RUNNER_DOCKER_CAPS"
)

// at makes a route.
func at(method, pattern string, handle func(*call) error) route {
	expr := strings.NewReplacer("{}", "([^/]+)", "{..}", "(.+)").Replace(pattern)
	return route{method, regexp.MustCompile("^" + expr + "$"), handle}
}

// table is the Docker API as a build sees it, from top to bottom; the first match counts. Every call has to have a line:
// one that is new in Docker is refused by the last until somebody has thought about it. args of a call are what {} and
// {..} matched.
func table() []route {
	return []route{
		// What everybody may ask.
		at("GET", "/_ping", pass), at("HEAD", "/_ping", pass), at("GET", "/version", pass), at("GET", "/info", pass),
		at("POST", "/auth", passBody), at("GET", "/distribution/{..}/json", pass),
		at("GET", "/events", events), at("GET", "/system/df", diskUsage),

		// Containers.
		// Calls that take a body have a function of their own; owned drops whatever a client sends along.
		at("GET", "/containers/json", list), at("POST", "/containers/create", createContainer),
		at("POST", "/containers/prune", prune), at("POST", "/containers/{}/exec", createExec),
		at("POST", "/containers/{}/update", updateContainer), at("PUT", "/containers/{}/archive", putArchive),
		at("POST", "/containers/{}/start", startContainer), at("DELETE", "/containers/{}", removeContainer),
		at("GET", "/containers/{}/json", inspected(container)),
		at("GET", "/containers/{}/(?:top|logs|changes|export|stats|attach/ws|archive)", owned(container)),
		at("HEAD", "/containers/{}/archive", owned(container)),
		at("POST", "/containers/{}/(?:stop|restart|kill|pause|unpause|rename|resize|attach|wait)", owned(container)),
		// Commands in containers are judged by their container.
		at("GET", "/exec/{}/json", ownedExec), at("POST", "/exec/{}/resize", ownedExec), at("POST", "/exec/{}/start", startExec),

		// Volumes.
		// PUT /volumes/{} changes cluster volumes, which builds cannot make, and has no line.
		at("GET", "/volumes", listVolumes), at("POST", "/volumes/create", createVolume), at("POST", "/volumes/prune", prune),
		at("GET", "/volumes/{}", inspected(volume)), at("DELETE", "/volumes/{}", owned(volume)),

		// Networks.
		at("GET", "/networks", listNetworks), at("POST", "/networks/create", createNetwork),
		at("POST", "/networks/prune", pruneNetworks), at("GET", "/networks/{}", inspectNetwork),
		at("DELETE", "/networks/{}", removeNetwork),
		at("POST", "/networks/{}/connect", connectNetwork), at("POST", "/networks/{}/disconnect", connectNetwork),

		// What the Swarm shares: services and their tasks, secrets, configs.
		// A worker or a daemon outside of a Swarm answers these by 503, and the client is told so.
		at("GET", "/services", list), at("POST", "/services/create", createService),
		at("POST", "/services/{}/update", updateService), at("DELETE", "/services/{}", removeService),
		at("GET", "/services/{}", inspected(service)), at("GET", "/services/{}/logs", owned(service)),
		at("GET", "/tasks", list), at("GET", "/tasks/{}", inspected(task)), at("GET", "/tasks/{}/logs", owned(task)),
		// Secrets and configs: only their labels can be changed, and values of secrets never be read back.
		at("GET", "/secrets", list), at("POST", "/secrets/create", createSecret),
		at("GET", "/secrets/{}", inspected(secret)), at("DELETE", "/secrets/{}", owned(secret)),
		at("POST", "/secrets/{}/update", updateSecret),
		at("GET", "/configs", list), at("POST", "/configs/create", createConfig),
		at("GET", "/configs/{}", inspected(config)), at("DELETE", "/configs/{}", owned(config)),
		at("POST", "/configs/{}/update", updateConfig),

		// Images may be read by all: they are the host's cache. To push one takes the client's own login at the registry.
		at("GET", "/images/json", pass), at("GET", "/images/search", pass), at("GET", "/images/get", pass),
		at("POST", "/images/create", createImage), at("POST", "/images/load", loadImages), at("POST", "/images/prune", pruneImages),
		at("GET", "/images/{..}/json", pass), at("GET", "/images/{..}/attestations", pass), at("GET", "/images/{..}/history", pass), at("GET", "/images/{..}/get", pass),
		at("POST", "/images/{..}/push", pass), at("POST", "/images/{..}/tag", tagImage), at("DELETE", "/images/{..}", removeImage),
		// Builds. /session is the way back to the client's own files, for BuildKit.
		at("POST", "/build", build), at("POST", "/build/prune", pruneBuild), at("POST", "/build/cancel", pass),
		at("POST", "/commit", commit), at("POST", "/session", pass),
		at("POST", "/grpc", refuse("buildkit", "BuildKit's /grpc cannot be attributed; build with `docker build` of the classic builder (DOCKER_BUILDKIT=0)")),

		// The host and the Swarm itself; then everything that has no line above. Nodes may be read: clients ask them where
		// tasks run.
		at("GET", "/nodes", pass), at("GET", "/nodes/{}", pass), at("GET", "/plugins", pass),
		at("", "/nodes/{..}", refuse("nodes", "a build must not change nodes")),
		at("", "/swarm", refuse("swarm", "the swarm's join tokens are not for builds")),
		at("", "/swarm/{..}", refuse("swarm", "a build must not join, leave, update or unlock the swarm")),
		at("", "/plugins/{..}", refuse("plugins", "a build must not look into, add or change plugins")),
		at("", "/{..}", refuse("unknown-call", "the runner does not know this call of the Docker API")),
	}
}

// serve finds the call's route and takes it. Every handler is called under every policy and asks for itself: own() is
// true where the policy is enforced, and under Keep only what makes or removes things is looked at.
func (c *call) serve() error {
	for _, r := range c.p.routes {
		if r.method != "" && r.method != c.r.Method {
			continue
		}
		if m := r.pattern.FindStringSubmatch(c.path); m != nil {
			c.args = m[1:]
			return r.handle(c)
		}
	}
	return &invalid{http.StatusNotFound, "page not found"}
}

// pass forwards a call that everyone may make; passBody does so with what the client sends along.
func pass(c *call) error { return c.forward(nil) }

func passBody(c *call) error {
	c.bodied = true
	return c.forward(nil)
}

// refuse forbids a call where the policy is enforced. Under Open the build has all of the daemon, the Swarm's join tokens
// too.
func refuse(rule, reason string) func(*call) error {
	return func(c *call) error {
		if c.own() {
			return &Refusal{rule, reason, varPolicy}
		}
		return c.forward(nil)
	}
}
