package compiler

import (
	"github.com/drone/drone-go/drone"
	"github.com/drone/runner-go/secret"
)

// Input is everything that a Spec is made of. The server's details have all of it; `exec` and `compile` fill it from
// flags. Nil pointers mean empty values. Nothing in it is changed.
type Input struct {
	// File is the configuration's name in messages; `.drone.yml` where the server does not say.
	File string

	// Config is the configuration as the server sent it, before substitution.
	Config []byte

	Build  *drone.Build
	Repo   *drone.Repo
	Stage  *drone.Stage
	System *drone.System

	// Netrc is nil where the clone needs no credentials.
	Netrc *drone.Netrc

	// Secrets finds secrets by name (see the function Secrets); nil finds none. It is asked once for each name that a
	// step of this build needs, from one goroutine.
	Secrets secret.Provider

	// Name is the stage's name on this host (engine.BuildName), Root its directory, absolute. Neither needs to exist.
	Name string
	Root string

	Options Options
}

// Options are the runner's settings that change what a build sees.
type Options struct {
	// Host are variables of the runner's own environment. Only PATH and USER are taken from it.
	Host map[string]string

	// Environ is given to every step and to substitution (DRONE_RUNNER_ENVIRON and the like).
	Environ map[string]string

	// Proxy are the proxy variables in both cases, as environ.Proxy of runner-go lists them.
	Proxy map[string]string

	// Path replaces the runner's PATH for all steps (DRONE_RUNNER_PATH).
	Path string

	// Symlinks lie in the build's root: the key is what a link points to, the value its place below the root.
	Symlinks map[string]string

	// NetrcAllSteps keeps the credentials of the clone for all steps (DRONE_NETRC_CLONE_ONLY=false).
	NetrcAllSteps bool

	// NoClone leaves the automatic clone out, whatever the pipeline says; `exec` and `compile` set it where they are given
	// no address to clone from.
	NoClone bool

	// Strict refuses what is otherwise a warning (DRONE_RUNNER_LINT=strict).
	Strict bool
}

// defaultFile is the name of a configuration that has none.
const defaultFile = ".drone.yml"

// withDefaults fills what may be left out, so that nothing after it has to ask.
func (in Input) withDefaults() Input {
	if in.File == "" {
		in.File = defaultFile
	}
	if in.Build == nil {
		in.Build = new(drone.Build)
	}
	if in.Repo == nil {
		in.Repo = new(drone.Repo)
	}
	if in.Stage == nil {
		in.Stage = new(drone.Stage)
	}
	if in.System == nil {
		in.System = new(drone.System)
	}
	return in
}
