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
		"all present":                         {running, []File{file(RoleDisk, FilePresent), file(RoleDiskInfo, FilePresent)}, VerdictIntact, "", false},
		"a disk deleted":                      {running, []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "", false},
		"disk.info alone is gone":             {running, []File{file(RoleDisk, FilePresent), file(RoleDiskInfo, FileMissing)}, VerdictRecoverable, "", false},
		"a console log nobody has is no loss": {running, []File{file(RoleDisk, FilePresent), file(RoleConsoleLog, FileMissing)}, VerdictIntact, "", false},
		"what no definition names":            {running, []File{file(RoleDisk, FilePresent), file(RoleOther, FileDeleted)}, VerdictIntact, "", false},
		"one displaced among the deleted":     {running, []File{file(RoleDisk, FileDeleted), file(RoleBacking, FileDisplaced)}, VerdictDisplaced, "displaced", true},
		"something new at a path":             {running, []File{file(RoleDisk, FileReplaced)}, VerdictConflict, "was deleted", true},
		"put back with the same content":      {running, []File{file(RoleDisk, FilePresent), {Role: RoleBacking, State: FileReplaced, Proven: true}}, VerdictIntact, "", false},
		"one missing among the deleted":       {running, []File{file(RoleDisk, FileDeleted), file(RoleBacking, FileMissing)}, VerdictLost, "nobody holds it", false},
		"off, and everything is gone": {with(func(d *Domain) { d.State, d.PID = StateShutOff, 0 }), []File{file(RoleDisk, FileMissing), file(RoleDiskInfo, FileMissing)},
			VerdictLost, "nobody holds it", false},
		"only a block device": {with(func(d *Domain) {
			d.Disks = []Disk{{Target: "vda", Chain: []Image{{Source: SourceBlock, Path: "/dev/sdb"}}}}
		}), nil, VerdictUnaffected, "", false},
		"a job under way":         {with(func(d *Domain) { d.Job = "save" }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "job", false},
		"a job and nothing lost":  {with(func(d *Domain) { d.Job = "save" }), []File{file(RoleDisk, FilePresent)}, VerdictIntact, "", false},
		"paused for an I/O error": {with(func(d *Domain) { d.State, d.PauseReason = StatePaused, PauseIOError }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "I/O error", false},
		"paused by its own owner": {with(func(d *Domain) { d.State, d.PauseReason = StatePaused, PauseUser }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "", false},
		"migrating":               {with(func(d *Domain) { d.State, d.PauseReason = StatePaused, PauseMigration }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "migrated", false},
		"a block job":             {with(func(d *Domain) { d.BlockJobs = map[string]string{"vda": "copy"} }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "vda copy", false},
		"between two states":      {with(func(d *Domain) { d.State = StateOther }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "between two states", false},
		"crashed, and kept":       {with(func(d *Domain) { d.State = StateCrashed }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "crashed", false},
		"an external data store": {with(func(d *Domain) {
			d.Disks = []Disk{{Target: "vda", Chain: disk.Chain, Unusual: []string{"external data store"}}}
		}), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "external data store", false},
		"paused for another cause": {with(func(d *Domain) { d.State, d.PauseReason = StatePaused, PauseOther }), []File{file(RoleDisk, FileDeleted)}, VerdictRecoverable, "not by a user", false},
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
