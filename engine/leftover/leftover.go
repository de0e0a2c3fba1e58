// Package leftover names one thing that a build left on the host.
//
// It exists so that the packages which find and remove such things (engine/process, engine/swarm, the workspace)
// and the engine that asks them share one plain type without importing each other.
package leftover

import "strings"

// Item is one thing on the host that belongs to a build: a process, a Docker object, a mount, a directory.
type Item struct {
	// Kind is the field's word for the thing, in lower case: process, container, service, volume, secret, config,
	// network, image, task, mount, directory, file.
	Kind string `json:"kind"`

	// Name is what an admin would pass to a command to find it: a PID, an object's name, a path.
	Name string `json:"name"`

	// Detail says more where there is more to say (a command line and an age, why it could not be removed);
	// it may be empty. It never holds a secret's value.
	Detail string `json:"detail,omitempty"`
}

// String is the item as the teardown step prints it: kind, name and, in brackets, the detail.
func (i Item) String() string {
	var b strings.Builder
	b.WriteString(i.Kind)
	b.WriteByte(' ')
	b.WriteString(i.Name)
	if i.Detail != "" {
		b.WriteString(" (")
		b.WriteString(i.Detail)
		b.WriteByte(')')
	}
	return b.String()
}
