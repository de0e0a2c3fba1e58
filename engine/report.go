package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
)

// Report is what a teardown found and did. The `teardown` step prints it, and it is kept as JSON for machines.
type Report struct {
	Build string `json:"build"`

	// Leftovers is what the pipeline left behind and teardown removed.
	Leftovers []leftover.Item `json:"leftovers"`

	// Removed is what the runner itself had made for the build and removed: its directory.
	Removed []leftover.Item `json:"removed"`

	// Kept is what an exempted repository's build (DRONE_RUNNER_KEEP) left running: reported, not removed.
	Kept []leftover.Item `json:"kept"`

	// Survivors is what is still there after teardown.
	Survivors []leftover.Item `json:"survivors"`

	// Unverified is what could not be looked at: nodes of the Swarm that do not answer. It is no leak, but no proof
	// either.
	Unverified []leftover.Item `json:"unverified"`

	// Finished is when the last look was taken, Seconds how long the teardown took.
	Finished time.Time `json:"finished"`
	Seconds  float64   `json:"seconds"`
}

// newReport is the report of a teardown that has not begun. Its lists are empty, not null: machines read it.
func newReport(build string) *Report {
	none := []leftover.Item{}
	return &Report{Build: build, Leftovers: none, Removed: none, Kept: none, Survivors: none, Unverified: none}
}

// Lines is the report for people, a line each.
func (r *Report) Lines() []string {
	var lines []string
	add := func(verb string, items []leftover.Item) {
		for _, item := range items {
			lines = append(lines, verb+" "+item.String())
		}
	}
	add("left behind by the pipeline, removed:", r.Leftovers)
	add("kept (DRONE_RUNNER_KEEP):", r.Kept)
	add("removed:", r.Removed)
	add("not verified:", r.Unverified)
	add("STILL THERE:", r.Survivors)
	verdict := "clean: nothing is left on the host"
	switch {
	case len(r.Survivors) > 0:
		verdict = fmt.Sprintf("leak: %d left on the host", len(r.Survivors))
	case len(r.Kept) > 0:
		verdict = fmt.Sprintf("kept: %d left running on purpose", len(r.Kept))
	}
	return append(lines, fmt.Sprintf("%s (%.1f s)", verdict, r.Seconds))
}

// WithoutDetails takes out of a teardown's report and error what says more than a name. A command line may hold a secret
// of the build, and which secrets the build of a crash had was known to the process that crashed only. The report on disk,
// which only the runner's user can read, keeps them.
func WithoutDetails(report *Report, err error) {
	var lists [][]leftover.Item
	if report != nil {
		lists = append(lists, report.Leftovers, report.Removed, report.Kept, report.Survivors)
	}
	var leak *LeakError
	if errors.As(err, &leak) {
		lists = append(lists, leak.Items)
	}
	for _, items := range lists {
		for i := range items {
			items[i].Detail = ""
		}
	}
}

// sortUnverified moves what only stands for a place that nobody could look at out of the survivors.
func (r *Report) sortUnverified() {
	survivors := []leftover.Item{}
	for _, item := range r.Survivors {
		if item.Kind == swarm.KindNode {
			r.Unverified = append(r.Unverified, item)
		} else {
			survivors = append(survivors, item)
		}
	}
	r.Survivors = survivors
}

// reports keeps the newest teardown reports as files.
type reports struct {
	dir  string
	keep int
}

// save writes the report as <build>.json and removes the oldest beyond the number to keep. A teardown that found nothing
// is not worth one, and must not replace the report of the teardown that did the work: a crash after that one, and before
// its stage was reported, has the build torn down once more.
func (s reports) save(r *Report) error {
	if s.dir == "" || !r.found() {
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the teardown report: %w", err)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("create the report directory: %w", err)
	}
	path := filepath.Join(s.dir, r.Build+".json")
	if err := os.WriteFile(path+".tmp", append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the teardown report: %w", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("write the teardown report: %w", err)
	}
	return s.prune()
}

// prune removes the oldest reports beyond those to keep.
func (s reports) prune() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("list teardown reports: %w", err)
	}
	type aged struct {
		path string
		time time.Time
	}
	var files []aged
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !strings.HasSuffix(entry.Name(), ".json") {
			continue // gone meanwhile, or not ours
		}
		files = append(files, aged{filepath.Join(s.dir, entry.Name()), info.ModTime()})
	}
	slices.SortFunc(files, func(a, b aged) int { return b.time.Compare(a.time) })
	var errs []error
	for _, file := range files[min(s.keep, len(files)):] {
		if err := os.Remove(file.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove an old teardown report: %w", err))
		}
	}
	return errors.Join(errs...)
}
