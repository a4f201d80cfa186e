package verdict

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
)

const diskPath = "/i/u/disk"

func TestTheVerdictSumsUpWhatStandsWhere(t *testing.T) {
	disk := recover.Disk{Target: "vda", Device: "disk", Chain: []recover.Image{{Source: recover.SourceFile, Path: diskPath, Format: "raw"}}}
	running := recover.Domain{State: recover.StateRunning, PID: 10, Disks: []recover.Disk{disk}}
	with := func(change func(*recover.Domain)) recover.Domain {
		d := running
		change(&d)
		return d
	}
	file := func(role recover.Role, state recover.FileState, remedy ...recover.Remedy) recover.File {
		f := recover.File{Path: diskPath, Role: role, State: state, Writable: role == recover.RoleDisk}
		switch {
		case len(remedy) > 0:
			f.Remedy = remedy[0]
		case state == recover.FileDeleted:
			f.Remedy = recover.RemedyCopy
		case state == recover.FileReplaced:
			f.Remedy = recover.RemedyReplace
		case state == recover.FileMissing && KindOf(role) == Essential:
			f.Remedy = recover.RemedyRestore
		case state == recover.FileMissing && KindOf(role) == Made:
			f.Remedy = recover.RemedyMake
		}
		return f
	}
	stray := recover.File{Path: "/i/x", Role: recover.RoleOther, State: recover.FileDeleted,
		Holders: []recover.Holder{{PID: 10, FD: 7, Process: "qemu-system-x86"}}}
	guarded := recover.File{Path: "/i/x", Role: recover.RoleOther, State: recover.FileDeleted, GuardHeld: true,
		Holders: []recover.Holder{{PID: 20}}}
	moved := file(recover.RoleBacking, recover.FileDisplaced, recover.RemedyMoveBack)
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
		"no NVRAM of a domain that is off, which a start makes": {
			domain: with(func(d *recover.Domain) { d.State, d.PID = recover.StateShutOff, 0 }),
			files: []recover.File{
				file(recover.RoleDisk, recover.FilePresent), file(recover.RoleNVRAM, recover.FileMissing, recover.RemedyMake),
			},
			verdict: recover.VerdictIntact,
			says:    "is not there",
		},
		"a deleted file of its QEMU that no definition names": {
			domain:   running,
			files:    []recover.File{file(recover.RoleDisk, recover.FilePresent), stray},
			verdict:  recover.VerdictUnknown,
			says:     "(qemu-system-x86 10:7)",
			possible: true,
		},
		"a disk gone, while its QEMU has a deleted file that no definition names": {
			domain:   running,
			files:    []recover.File{file(recover.RoleDisk, recover.FileMissing), stray},
			verdict:  recover.VerdictUnknown,
			says:     "nobody holds it",
			possible: true,
		},
		"a disk deleted beside a deleted file that no definition names": {
			domain:  running,
			files:   []recover.File{file(recover.RoleDisk, recover.FileDeleted), stray},
			verdict: recover.VerdictRecoverable,
			says:    "could not be matched",
		},
		"what no definition names, held by the guard to be put back": {
			domain:  running,
			files:   []recover.File{file(recover.RoleDisk, recover.FilePresent), guarded},
			verdict: recover.VerdictIntact,
		},
		"a moved base beside a deleted disk": {
			domain:  running,
			files:   []recover.File{file(recover.RoleDisk, recover.FileDeleted), moved},
			verdict: recover.VerdictRecoverable,
			says:    "displaced",
		},
		"a base hidden by a mount beside a deleted disk": {
			domain: running,
			files: []recover.File{
				file(recover.RoleBacking, recover.FileDisplaced, recover.RemedyMount),
				file(recover.RoleDisk, recover.FileDeleted),
			},
			verdict:  recover.VerdictConflict,
			says:     "displaced",
			possible: true,
		},
		"moved": {
			domain:   running,
			files:    []recover.File{file(recover.RoleDisk, recover.FileDisplaced, recover.RemedyMoveBack)},
			verdict:  recover.VerdictDisplaced,
			says:     "displaced",
			possible: true,
		},
		"moved with its disk.info": {
			domain: running,
			files: []recover.File{
				file(recover.RoleDisk, recover.FileDisplaced, recover.RemedyMoveBack),
				file(recover.RoleDiskInfo, recover.FileMissing),
			},
			verdict:  recover.VerdictDisplaced,
			says:     "displaced",
			possible: true,
		},
		"moved, and another file stands there": {
			domain:   running,
			files:    []recover.File{file(recover.RoleDisk, recover.FileDisplaced, recover.RemedyReplace)},
			verdict:  recover.VerdictConflict,
			says:     "displaced",
			possible: true,
		},
		"its name deleted, another hard link left": {
			domain:  running,
			files:   []recover.File{file(recover.RoleDisk, recover.FileDisplaced, recover.RemedyLinkBack)},
			verdict: recover.VerdictRecoverable,
		},
		"deleted, and its file system is not mounted there": {
			domain:   running,
			files:    []recover.File{file(recover.RoleDisk, recover.FileDeleted, recover.RemedyMount)},
			verdict:  recover.VerdictConflict,
			says:     "was deleted",
			possible: true,
		},
		"nobody can say which open file it is": {
			domain:   running,
			files:    []recover.File{file(recover.RoleDisk, recover.FileDeleted), file(recover.RoleDisk, recover.FileUnknown)},
			verdict:  recover.VerdictUnknown,
			says:     "can't be judged",
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
			domain:  with(func(d *recover.Domain) { d.State, d.PauseReason = recover.StatePaused, recover.PausePostcopy }),
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
			i := recover.Instance{PID: c.domain.PID, Definition: c.domain, Files: c.files}
			Instance(&i)
			reasons := strings.Join(i.Reasons, "; ")
			if i.Verdict != c.verdict || !strings.Contains(reasons, c.says) || c.says == "" && reasons != "" || c.possible != (len(i.Possible) > 0) {
				t.Errorf("%s (%s) %v; want %s, %q", i.Verdict, reasons, i.Possible, c.verdict, c.says)
			}
		})
	}
}

func TestADiskThatNobodySeesIsNoComfortWhileItsDomainIsOff(t *testing.T) {
	unseen := recover.Disk{Target: "vdb", Chain: []recover.Image{{Source: recover.SourceOther}}, LostAtEnd: []string{"it is a volume"}}
	image := recover.Disk{Target: "vda", Chain: []recover.Image{{Source: recover.SourceFile, Path: "/i/u/disk"}}}
	network := recover.Disk{Target: "vdc", Chain: []recover.Image{{Source: recover.SourceNetwork}}}
	medium := recover.Disk{Target: "hdc", ReadOnly: true, Chain: unseen.Chain, LostAtEnd: unseen.LostAtEnd}
	other := recover.Disk{Target: "vdd", Chain: []recover.Image{{Source: recover.SourceOther}}}
	present := recover.File{Path: "/i/u/disk", Role: recover.RoleDisk, State: recover.FilePresent}
	missing := recover.File{Path: "/i/u/disk", Role: recover.RoleDisk, State: recover.FileMissing, Remedy: recover.RemedyRestore}
	for name, c := range map[string]struct {
		pid     int
		disks   []recover.Disk
		files   []recover.File
		verdict recover.Verdict
	}{
		"off, only a volume":             {0, []recover.Disk{unseen}, nil, recover.VerdictUnknown},
		"off, a volume beside a file":    {0, []recover.Disk{image, unseen}, []recover.File{present}, recover.VerdictUnknown},
		"off, a volume beside a loss":    {0, []recover.Disk{image, unseen}, []recover.File{missing}, recover.VerdictLost},
		"off, what is never a file":      {0, []recover.Disk{network, other}, nil, recover.VerdictUnaffected},
		"off, a medium of a pool":        {0, []recover.Disk{image, medium}, []recover.File{present}, recover.VerdictIntact},
		"its QEMU has the volume open":   {1, []recover.Disk{unseen}, nil, recover.VerdictUnaffected},
		"the same, beside a file":        {1, []recover.Disk{image, unseen}, []recover.File{present}, recover.VerdictIntact},
		"off, a file and a network disk": {0, []recover.Disk{image, network}, []recover.File{present}, recover.VerdictIntact},
	} {
		t.Run(name, func(t *testing.T) {
			i := recover.Instance{PID: c.pid, Domain: "i-1", Definition: recover.Domain{Disks: c.disks}, Files: c.files}
			Instance(&i)
			words := strings.Join(append(i.Reasons, i.Possible...), "; ")
			said := strings.Contains(words, "vdb: it is a volume") && strings.Contains(words, "virsh domblklist i-1")
			if i.Verdict != c.verdict || said != (c.verdict == recover.VerdictUnknown) {
				t.Errorf("%s %q; want %s", i.Verdict, words, c.verdict)
			}
		})
	}
}

func TestARunIsNoCureForARenamedFileInWhosePlaceAnotherStands(t *testing.T) {
	i := recover.Instance{PID: 1, Files: []recover.File{{Path: "/i/u/disk", Role: recover.RoleDisk, State: recover.FileDisplaced,
		Remedy: recover.RemedyReplace, Found: "/i/u/disk.bak"}}}
	Instance(&i)
	if said := strings.Join(i.Possible, "; "); i.Verdict != recover.VerdictConflict || !strings.Contains(said, "neither a run") {
		t.Errorf("%s: %s", i.Verdict, said)
	}
}
