package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/bridge/journal"
)

// fullDisk takes so many bytes of the next write only, once.
type fullDisk struct {
	bytes.Buffer
	room int
}

func (d *fullDisk) Write(p []byte) (int, error) {
	if room := d.room; room > 0 {
		d.room = 0
		n, err := d.Buffer.Write(p[:room])
		return n, errors.Join(err, errors.New("no space left on device"))
	}
	return d.Buffer.Write(p)
}

// TestTornAuditLine fills the disk in the middle of a line: the decision is an error, and the next line stands alone.
func TestTornAuditLine(t *testing.T) {
	disk := &fullDisk{room: 20}
	a := &audit{out: disk}
	if err := a.write(&journal.Request{}, "refused", "first"); err == nil {
		t.Fatal("half a line is no error")
	}
	for _, rule := range []string{"second", "third"} {
		if err := a.write(&journal.Request{}, "refused", rule); err != nil {
			t.Fatal(err)
		}
	}
	var rules []string
	for line := range bytes.Lines(disk.Bytes()) {
		var e entry
		if json.Unmarshal(line, &e) == nil {
			rules = append(rules, e.Rule)
		}
	}
	if !slices.Equal(rules, []string{"second", "third"}) {
		t.Errorf("whole lines: %q in\n%s", rules, disk)
	}
}
