package linter

import (
	"fmt"
	"strings"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
)

// checkUnknownKeys points at keys that no runner knows: most are typing errors, and in a `when` they match everything.
func checkUnknownKeys(c *check) { c.unknownKeys(c.pipeline.Unknown) }

// unknownKeys reports keys under the rule that runs. In a condition an unknown key is worst: what it should have
// limited is not limited.
func (c *check) unknownKeys(keys []resource.Key) {
	for _, key := range keys {
		// Keys beginning with x- are the author's own, to hang anchors on.
		if hasNoEffect(key) || strings.HasPrefix(key.Name, "x-") || key.Name == "" {
			continue
		}
		hint := ""
		if key.Similar != "" {
			hint = fmt.Sprintf(" (`%s` was meant?)", key.Similar)
		}
		switch key.Section {
		case resource.InWhen, resource.InTrigger, resource.InCondition:
			c.report(key.Pos, "the key `%s` is not known in a `%s` and is ignored: everything matches%s", key.Name, key.Section, hint)
		default:
			c.report(key.Pos, "the key `%s` is not known in a `%s` and is ignored%s", key.Name, key.Section, hint)
		}
	}
}
