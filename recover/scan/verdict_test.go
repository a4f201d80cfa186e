package scan

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

func TestTheVerdictSumsUpWhatStandsWhere(t *testing.T) {
	disk := recover.Disk{Target: "vda", Device: "disk", Chain: []recover.Image{{Source: recover.SourceFile, Path: classDisk, Format: "raw"}}}
	running := recover.Domain{State: recover.StateRunning, PID: 10, Disks: []recover.Disk{disk}}
	with := func(change func(*recover.Domain)) recover.Domain {
		d := running
		change(&d)
		return d
	}
	file := func(role recover.Role, state recover.FileState) recover.File {
		return recover.File{Path: classDisk, Role: role, State: state}
	}
	for name, c := range map[string]struct {
		domain   recover.Domain
		files    []recover.File
		verdict  recover.Verdict
		says     string
		possible bool
	}{
		"all present": {
			domain:  running,
			files:   []recover.File{file(recover.RoleDisk, recover.FilePresent), file(recover.RoleDiskInfo, recover.FilePresent)},
			verdict: recover.VerdictIntact,
		},
		"a disk deleted": {
			domain:  running,
			files:   []recover.File{file(recover.RoleDisk, recover.FileDeleted)},
			verdict: recover.VerdictRecoverable,
		},
		"disk.info alone is gone": {
			domain:  running,
			files:   []recover.File{file(recover.RoleDisk, recover.FilePresent), file(recover.RoleDiskInfo, recover.FileMissing)},
			verdict: recover.VerdictRecoverable,
		},
		"a console log nobody has is no loss": {
			domain:  running,
			files:   []recover.File{file(recover.RoleDisk, recover.FilePresent), file(recover.RoleConsoleLog, recover.FileMissing)},
			verdict: recover.VerdictIntact,
		},
		"what no definition names": {
			domain:  running,
			files:   []recover.File{file(recover.RoleDisk, recover.FilePresent), file(recover.RoleOther, recover.FileDeleted)},
			verdict: recover.VerdictIntact,
		},
		"one displaced among the deleted": {
			domain:   running,
			files:    []recover.File{file(recover.RoleDisk, recover.FileDeleted), file(recover.RoleBacking, recover.FileDisplaced)},
			verdict:  recover.VerdictDisplaced,
			says:     "displaced",
			possible: true,
		},
		"something new at a path": {
			domain:   running,
			files:    []recover.File{file(recover.RoleDisk, recover.FileReplaced)},
			verdict:  recover.VerdictConflict,
			says:     "was deleted",
			possible: true,
		},
		"put back with the same content": {
			domain: running,
			files: []recover.File{
				file(recover.RoleDisk, recover.FilePresent),
				{Role: recover.RoleBacking, State: recover.FileReplaced, Proven: true},
			},
			verdict: recover.VerdictIntact,
		},
		"one missing among the deleted": {
			domain:  running,
			files:   []recover.File{file(recover.RoleDisk, recover.FileDeleted), file(recover.RoleBacking, recover.FileMissing)},
			verdict: recover.VerdictLost,
			says:    "nobody holds it",
		},
		"off, and everything is gone": {
			domain:  with(func(d *recover.Domain) { d.State, d.PID = recover.StateShutOff, 0 }),
			files:   []recover.File{file(recover.RoleDisk, recover.FileMissing), file(recover.RoleDiskInfo, recover.FileMissing)},
			verdict: recover.VerdictLost,
			says:    "nobody holds it",
		},
		"only a block device": {domain: with(func(d *recover.Domain) {
			d.Disks = []recover.Disk{{Target: "vda", Chain: []recover.Image{{Source: recover.SourceBlock, Path: "/dev/sdb"}}}}
		}), verdict: recover.VerdictUnaffected},
		"a job under way": {
			domain:  with(func(d *recover.Domain) { d.Job = "save" }),
			files:   []recover.File{file(recover.RoleDisk, recover.FileDeleted)},
			verdict: recover.VerdictRecoverable,
			says:    "job",
		},
		"a job and nothing lost": {
			domain:  with(func(d *recover.Domain) { d.Job = "save" }),
			files:   []recover.File{file(recover.RoleDisk, recover.FilePresent)},
			verdict: recover.VerdictIntact,
		},
		"paused for an I/O error": {
			domain:  with(func(d *recover.Domain) { d.State, d.PauseReason = recover.StatePaused, recover.PauseIOError }),
			files:   []recover.File{file(recover.RoleDisk, recover.FileDeleted)},
			verdict: recover.VerdictRecoverable,
			says:    "I/O error",
		},
		"paused by its own owner": {
			domain:  with(func(d *recover.Domain) { d.State, d.PauseReason = recover.StatePaused, recover.PauseUser }),
			files:   []recover.File{file(recover.RoleDisk, recover.FileDeleted)},
			verdict: recover.VerdictRecoverable,
		},
		"migrating": {
			domain:  with(func(d *recover.Domain) { d.State, d.PauseReason = recover.StatePaused, recover.PauseMigration }),
			files:   []recover.File{file(recover.RoleDisk, recover.FileDeleted)},
			verdict: recover.VerdictRecoverable,
			says:    "migrated",
		},
		"a block job": {
			domain:  with(func(d *recover.Domain) { d.BlockJobs = map[string]string{"vda": "copy"} }),
			files:   []recover.File{file(recover.RoleDisk, recover.FileDeleted)},
			verdict: recover.VerdictRecoverable,
			says:    "vda copy",
		},
		"between two states": {
			domain:  with(func(d *recover.Domain) { d.State = recover.StateOther }),
			files:   []recover.File{file(recover.RoleDisk, recover.FileDeleted)},
			verdict: recover.VerdictRecoverable,
			says:    "between two states",
		},
		"crashed, and kept": {
			domain:  with(func(d *recover.Domain) { d.State = recover.StateCrashed }),
			files:   []recover.File{file(recover.RoleDisk, recover.FileDeleted)},
			verdict: recover.VerdictRecoverable,
			says:    "crashed",
		},
		"an external data store": {domain: with(func(d *recover.Domain) {
			d.Disks = []recover.Disk{{Target: "vda", Chain: disk.Chain, Unusual: []string{"external data store"}}}
		}), files: []recover.File{file(recover.RoleDisk, recover.FileDeleted)}, verdict: recover.VerdictRecoverable, says: "external data store"},
		"paused for another cause": {
			domain:  with(func(d *recover.Domain) { d.State, d.PauseReason = recover.StatePaused, recover.PauseOther }),
			files:   []recover.File{file(recover.RoleDisk, recover.FileDeleted)},
			verdict: recover.VerdictRecoverable,
			says:    "not by a user",
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := recover.Instance{Definition: c.domain, Files: c.files}
			Judge(&i)
			reasons := strings.Join(i.Reasons, "; ")
			if i.Verdict != c.verdict || !strings.Contains(reasons, c.says) || c.says == "" && reasons != "" || c.possible != (len(i.Possible) > 0) {
				t.Errorf("%s (%s) %v; want %s, %q", i.Verdict, reasons, i.Possible, c.verdict, c.says)
			}
		})
	}
}

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
