package recover

import (
	"strings"
	"testing"
)

func TestTheVerdictSumsUpWhatStandsWhere(t *testing.T) {
	disk := Disk{Target: "vda", Device: "disk", Chain: []Image{{Source: SourceFile, Path: classDisk, Format: "raw"}}}
	running := Domain{State: StateRunning, PID: 10, Disks: []Disk{disk}}
	with := func(change func(*Domain)) Domain {
		d := running
		change(&d)
		return d
	}
	file := func(role Role, state FileState) File { return File{Path: classDisk, Role: role, State: state} }
	for name, c := range map[string]struct {
		domain   Domain
		files    []File
		verdict  Verdict
		says     string
		possible bool
	}{
		"all present": {
			domain:  running,
			files:   []File{file(RoleDisk, FilePresent), file(RoleDiskInfo, FilePresent)},
			verdict: VerdictIntact,
		},
		"a disk deleted": {domain: running, files: []File{file(RoleDisk, FileDeleted)}, verdict: VerdictRecoverable},
		"disk.info alone is gone": {
			domain:  running,
			files:   []File{file(RoleDisk, FilePresent), file(RoleDiskInfo, FileMissing)},
			verdict: VerdictRecoverable,
		},
		"a console log nobody has is no loss": {
			domain:  running,
			files:   []File{file(RoleDisk, FilePresent), file(RoleConsoleLog, FileMissing)},
			verdict: VerdictIntact,
		},
		"what no definition names": {
			domain:  running,
			files:   []File{file(RoleDisk, FilePresent), file(RoleOther, FileDeleted)},
			verdict: VerdictIntact,
		},
		"one displaced among the deleted": {
			domain:   running,
			files:    []File{file(RoleDisk, FileDeleted), file(RoleBacking, FileDisplaced)},
			verdict:  VerdictDisplaced,
			says:     "displaced",
			possible: true,
		},
		"something new at a path": {
			domain:   running,
			files:    []File{file(RoleDisk, FileReplaced)},
			verdict:  VerdictConflict,
			says:     "was deleted",
			possible: true,
		},
		"put back with the same content": {
			domain:  running,
			files:   []File{file(RoleDisk, FilePresent), {Role: RoleBacking, State: FileReplaced, Proven: true}},
			verdict: VerdictIntact,
		},
		"one missing among the deleted": {
			domain:  running,
			files:   []File{file(RoleDisk, FileDeleted), file(RoleBacking, FileMissing)},
			verdict: VerdictLost,
			says:    "nobody holds it",
		},
		"off, and everything is gone": {
			domain:  with(func(d *Domain) { d.State, d.PID = StateShutOff, 0 }),
			files:   []File{file(RoleDisk, FileMissing), file(RoleDiskInfo, FileMissing)},
			verdict: VerdictLost,
			says:    "nobody holds it",
		},
		"only a block device": {domain: with(func(d *Domain) {
			d.Disks = []Disk{{Target: "vda", Chain: []Image{{Source: SourceBlock, Path: "/dev/sdb"}}}}
		}), verdict: VerdictUnaffected},
		"a job under way": {
			domain:  with(func(d *Domain) { d.Job = "save" }),
			files:   []File{file(RoleDisk, FileDeleted)},
			verdict: VerdictRecoverable,
			says:    "job",
		},
		"a job and nothing lost": {
			domain:  with(func(d *Domain) { d.Job = "save" }),
			files:   []File{file(RoleDisk, FilePresent)},
			verdict: VerdictIntact,
		},
		"paused for an I/O error": {
			domain:  with(func(d *Domain) { d.State, d.PauseReason = StatePaused, PauseIOError }),
			files:   []File{file(RoleDisk, FileDeleted)},
			verdict: VerdictRecoverable,
			says:    "I/O error",
		},
		"paused by its own owner": {
			domain:  with(func(d *Domain) { d.State, d.PauseReason = StatePaused, PauseUser }),
			files:   []File{file(RoleDisk, FileDeleted)},
			verdict: VerdictRecoverable,
		},
		"migrating": {
			domain:  with(func(d *Domain) { d.State, d.PauseReason = StatePaused, PauseMigration }),
			files:   []File{file(RoleDisk, FileDeleted)},
			verdict: VerdictRecoverable,
			says:    "migrated",
		},
		"a block job": {
			domain:  with(func(d *Domain) { d.BlockJobs = map[string]string{"vda": "copy"} }),
			files:   []File{file(RoleDisk, FileDeleted)},
			verdict: VerdictRecoverable,
			says:    "vda copy",
		},
		"between two states": {
			domain:  with(func(d *Domain) { d.State = StateOther }),
			files:   []File{file(RoleDisk, FileDeleted)},
			verdict: VerdictRecoverable,
			says:    "between two states",
		},
		"crashed, and kept": {
			domain:  with(func(d *Domain) { d.State = StateCrashed }),
			files:   []File{file(RoleDisk, FileDeleted)},
			verdict: VerdictRecoverable,
			says:    "crashed",
		},
		"an external data store": {domain: with(func(d *Domain) {
			d.Disks = []Disk{{Target: "vda", Chain: disk.Chain, Unusual: []string{"external data store"}}}
		}), files: []File{file(RoleDisk, FileDeleted)}, verdict: VerdictRecoverable, says: "external data store"},
		"paused for another cause": {
			domain:  with(func(d *Domain) { d.State, d.PauseReason = StatePaused, PauseOther }),
			files:   []File{file(RoleDisk, FileDeleted)},
			verdict: VerdictRecoverable,
			says:    "not by a user",
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := Instance{domain: c.domain, Files: c.files}
			judge(&i)
			reasons := strings.Join(i.Reasons, "; ")
			if i.Verdict != c.verdict || !strings.Contains(reasons, c.says) || c.says == "" && reasons != "" || c.possible != (len(i.Possible) > 0) {
				t.Errorf("%s (%s) %v; want %s, %q", i.Verdict, reasons, i.Possible, c.verdict, c.says)
			}
		})
	}
}

func TestWhatIsStillPossibleForAnInstanceThatIsLost(t *testing.T) {
	all := []Instance{
		{UUID: "a", Domain: "alive", Files: []File{{Path: "/i/_base/b", Role: RoleBacking, State: FileDeleted, Holders: []Holder{{PID: 1}}}}},
		{UUID: "b", Domain: "dead", Verdict: VerdictLost, Files: []File{
			{Path: "/i/_base/b", Role: RoleBacking, State: FileMissing}, {Path: "/i/_base/c", Role: RoleBacking, State: FileMissing},
			{Path: "/i/b/disk", Role: RoleDisk, State: FileMissing}, {Path: "/i/b/disk.config", Role: RoleConfigDrive, State: FileMissing},
			{Path: "/i/b/disk.info", Role: RoleDiskInfo, State: FileMissing}}},
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
