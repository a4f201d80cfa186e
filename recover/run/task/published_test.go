package task

import (
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
)

func TestOnlyTheFileThatTheInterruptedRunPublishedIsItsOwn(t *testing.T) {
	const path = "/i/u/disk"
	plan := recover.FilePlan{Path: path, Device: 1, Inode: 7, Birth: "b100"}
	rec := journal.Published{Source: plan.Key(), Device: 1, Inode: 8, Birth: "b200"}
	old := journal.Published{Source: "1:7", Device: 1, Inode: 8} // of a release that knew no births
	other := journal.Published{Source: "1:7:b101", Device: 1, Inode: 8, Birth: "b200"}
	for name, c := range map[string]struct {
		rec  journal.Published
		at   recover.Inode
		held bool
		want bool
	}{
		"its own":                            {rec, recover.Inode{Device: 1, Inode: 8, Birth: "b200"}, false, true},
		"its own, after a boot":              {rec, recover.Inode{Device: 9, Inode: 8, Birth: "b200"}, false, true},
		"another one of its number":          {rec, recover.Inode{Device: 1, Inode: 8, Birth: "b201"}, true, false},
		"another one":                        {rec, recover.Inode{Device: 1, Inode: 9, Birth: "b200"}, true, false},
		"of an old journal, open":            {old, recover.Inode{Device: 1, Inode: 8, Birth: "b200"}, true, true},
		"of an old journal, not open":        {old, recover.Inode{Device: 1, Inode: 8, Birth: "b200"}, false, false},
		"of an old journal, of no birth":     {old, recover.Inode{Device: 1, Inode: 8}, false, false},
		"a copy of another file":             {other, rec.Identity(), true, false},
		"of an old journal, of another file": {journal.Published{Source: "1:6", Device: 1, Inode: 8}, rec.Identity(), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			uuid := recovertest.UUID(1)
			h := map[string]*journal.History{uuid: {Published: map[string]journal.Published{path: c.rec}}}
			if got := New(&Run{History: h}, recover.InstancePlan{UUID: uuid}).PublishedBefore(plan, c.at, c.held); got != c.want {
				t.Errorf("it is its own: %v", got)
			}
			placed := New(&Run{History: map[string]*journal.History{uuid: {}}}, recover.InstancePlan{UUID: uuid})
			placed.NotePlaced(path, c.rec)
			if got := placed.PublishedBefore(plan, c.at, c.held); got != c.want {
				t.Errorf("placed by the undo, it is its own: %v", got)
			}
		})
	}
}
