package scan

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

func TestWhatIsStillPossibleForAnInstanceThatIsLost(t *testing.T) {
	all := []recover.Instance{
		{UUID: "a", Domain: "alive", Files: []recover.File{
			{Path: "/i/_base/b", Role: recover.RoleBacking, State: recover.FileDeleted, Holders: []recover.Holder{{PID: 1}}},
		}},
		{UUID: "b", Domain: "dead", Verdict: recover.VerdictLost, Files: []recover.File{
			{Path: "/i/_base/b", Role: recover.RoleBacking, State: recover.FileMissing},
			{Path: "/i/_base/c", Role: recover.RoleBacking, State: recover.FileMissing},
			{Path: "/i/b/disk", Role: recover.RoleDisk, State: recover.FileMissing},
			{Path: "/i/b/disk.config", Role: recover.RoleConfigDrive, State: recover.FileMissing},
			{Path: "/i/b/disk.info", Role: recover.RoleDiskInfo, State: recover.FileMissing},
		}},
	}
	explainLost(all)
	got := all[1].Possible
	if len(got) != 4 || !strings.Contains(got[0], "held by alive") || !strings.Contains(got[1], "Glance") ||
		!strings.Contains(got[2], "restore --from") || !strings.Contains(got[3], "config") {
		t.Errorf("%q", got)
	}
	if len(all[0].Possible) > 0 {
		t.Errorf("the living one: %q", all[0].Possible)
	}
}
