package linter

import (
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
)

// checkWhen points at conditions that can never hold: values that the server never sends, malformed patterns. They are
// warnings, since a step that never runs harms nothing but its author's plans. The trigger is the server's to compare,
// and the same mistakes keep the whole pipeline from running there, without a word.
func checkWhen(c *check) {
	// The server's events (Drone's core/event.go); a `custom` build is one that a person or a program asked for.
	events := []string{"push", "pull_request", "tag", "promote", "rollback", "cron", "custom"}
	for _, s := range c.pipeline.Steps {
		c.values("event", &s.When.Event, events)
		c.values("status", &s.When.Status, []string{"success", "failure"})
	}
	for _, p := range patterns(c.pipeline) {
		if !doublestar.ValidatePattern(p.Value) {
			c.report(p.Pos, "the pattern %q is malformed and matches nothing", p.Value)
		}
	}
	c.values("event", &c.pipeline.Trigger.Event, events)
	c.values("status", &c.pipeline.Trigger.Status, []string{"success", "failure"})
}

// values compares the literal values of a condition with the known ones; patterns are the author's business. Excluded
// values are compared, too: to exclude what never comes excludes nothing.
func (c *check) values(key string, cond *resource.Condition, known []string) {
	for _, v := range append(slices.Clone(cond.Include), cond.Exclude...) {
		if strings.ContainsAny(v.Value, `*?[{\$`) || slices.Contains(known, v.Value) {
			continue
		}
		c.report(v.Pos, "`%s: %s` never matches: known are %s", key, v.Value, strings.Join(known, ", "))
	}
}
