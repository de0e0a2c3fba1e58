package runtime

import (
	"fmt"
	"io"
	"slices"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
	"git.autonomic.zone/recipe-maintainers/cc-ci/runtime/logs"
)

// opening writes what is said at the top of a step's log: the Spec's warnings once, by whichever step comes first,
// then the step's own notes.
func (b *build) opening(step *engine.Step, log io.Writer) {
	if b.warned.CompareAndSwap(false, true) {
		for _, w := range b.spec.Warnings {
			say(log, "warning: "+w)
		}
		for _, name := range b.unmasked {
			say(log, "warning: secret "+name+" is too short, or too long, to be masked in logs")
		}
		for _, name := range b.partly {
			say(log, "warning: secret "+name+" is so long that it and its lines are masked in logs, but not all of its encodings")
		}
	}
	for _, n := range step.Notes {
		say(log, n)
	}
}

// closing writes what is said at the end of a step's log: what it left running, how it was ended, what it used.
func (b *build) closing(state *engine.State, log io.Writer) {
	if state == nil {
		return
	}
	for _, l := range state.Leftovers {
		say(log, "still running: "+l)
	}
	switch state.Reason {
	case engine.Exited:
	case engine.Signaled:
		say(log, fmt.Sprintf("ended by a signal: exit code %d", state.ExitCode))
	default:
		say(log, fmt.Sprintf("ended: %s, exit code %d", state.Reason, state.ExitCode))
	}
	if state.CPUSeconds > 0 || state.PeakMemory > 0 {
		say(log, fmt.Sprintf("used %.1f s of CPU, %s of memory at the peak", state.CPUSeconds, size(state.PeakMemory)))
	}
}

// mask makes the masker of the build, and notes which of its secrets cannot be masked, or not in every form.
func (b *build) mask() {
	values, names := secretsOf(b.spec)
	b.masker = logs.NewMasker(values)
	shown := b.masker.Unmasked()
	for _, i := range shown {
		if values[i] != "" && !slices.Contains(b.unmasked, names[i]) {
			b.unmasked = append(b.unmasked, names[i])
		}
	}
	for _, i := range b.masker.PartlyMasked() {
		if !slices.Contains(shown, i) && !slices.Contains(b.partly, names[i]) {
			b.partly = append(b.partly, names[i])
		}
	}
}

// secretsOf are all values that no log of the stage may show, and what they are called. One masker serves all steps,
// since a secret of one can reach the log of another by way of a file.
func secretsOf(spec *engine.Spec) (values, names []string) {
	for _, value := range spec.Mask {
		values, names = append(values, value), append(names, "of the clone, or of the environment plugin,")
	}
	for _, step := range spec.Steps {
		for _, secret := range step.Secrets {
			values, names = append(values, secret.Value), append(names, secret.Name)
		}
	}
	return values, names
}

// say writes a line of the runner's own.
func say(out io.Writer, line string) {
	if n, ok := out.(interface{ Note(string, ...any) }); ok {
		n.Note("%s", line) // begins a line of its own where the step has not ended its last
		return
	}
	// A step's log takes every line until it is closed.
	_, _ = fmt.Fprintln(out, line)
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n <= 0:
		return "an unknown amount"
	case n < 1<<20:
		return fmt.Sprintf("%d KiB", (n+1<<10-1)>>10)
	}
	return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20)
}
