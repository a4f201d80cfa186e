package scan

import (
	"os"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

func TestWhatIsStillPossibleForAnInstanceThatIsLost(t *testing.T) {
	all := []recover.Instance{
		{UUID: "a", Domain: "alive", Files: []recover.File{
			{Path: "/i/_base/b", Role: recover.RoleBacking, State: recover.FileDeleted, Holders: []recover.Holder{{PID: 1}}},
		}},
		{UUID: "b", Domain: "dead", Verdict: recover.VerdictLost, Files: []recover.File{
			{Path: "/i/_base/b", Role: recover.RoleBacking, State: recover.FileMissing, Remedy: recover.RemedyRestore},
			{Path: "/i/_base/c", Role: recover.RoleBacking, State: recover.FileMissing, Remedy: recover.RemedyRestore},
			{Path: "/i/b/disk", Role: recover.RoleDisk, Writable: true, State: recover.FileMissing, Remedy: recover.RemedyRestore},
			{Path: "/i/b/disk.config", Role: recover.RoleConfigDrive, State: recover.FileMissing, Remedy: recover.RemedyRestore},
			{Path: "/iso/d", Role: recover.RoleDisk, Target: "hda", State: recover.FileMissing, Remedy: recover.RemedyRestore},
			{Path: "/i/b/disk.base", Role: recover.RoleBacking, State: recover.FileMissing, Remedy: recover.RemedyRestore},
			{Path: "/i/b/disk.info", Role: recover.RoleDiskInfo, State: recover.FileMissing, Remedy: recover.RemedyMake},
			{Path: "/i/b/nvram", Role: recover.RoleNVRAM, State: recover.FileMissing, Remedy: recover.RemedyMake},
		}},
	}
	explainLost(all)
	got := all[1].Possible
	if len(got) == 6 && (!strings.Contains(got[4], "change-media dead hda --eject") ||
		!strings.Contains(got[5], "find / -xdev -path '*/b/disk.base*'")) {
		t.Errorf("a medium, and a layer: %q", got[4:])
	}
	if len(got) != 6 || !strings.Contains(got[0], "held by alive") || !strings.Contains(got[1], "Glance") ||
		!strings.Contains(got[2], "restore --from") || !strings.Contains(got[3], "config") {
		t.Errorf("%q", got)
	}
	if len(all[0].Possible) > 0 {
		t.Errorf("the living one: %q", all[0].Possible)
	}
}

// What its QEMU had open, and nobody could match, is held on when it has ended: an instance is
// not lost while that may be its disk.
func TestADiskThatIsNowhereMayBeAmongTheDeletedFilesThatAreHeld(t *testing.T) {
	disk := recover.File{Path: "/i/u/disk", Role: recover.RoleDisk, State: recover.FileMissing, Remedy: recover.RemedyRestore}
	log := recover.File{Path: "/i/u/console.log", Role: recover.RoleConsoleLog, State: recover.FileMissing}
	hold := func(change func(*pin.Held)) pin.Held {
		p := pin.Held{HeldFile: pinOf("/srv/x", "/srv/x (deleted)", 7, 0).HeldFile, Owners: []string{recovertest.UUID(1)},
			Meta: pin.Meta{Path: "/srv/x", Role: recover.RoleOther, Run: pin.GuardRun, Needed: true}}
		if change != nil {
			change(&p)
		}
		return p
	}
	for name, c := range map[string]struct {
		file recover.File
		pin  pin.Held
		pid  int
		want recover.Verdict
	}{
		"off":                      {disk, hold(nil), 0, recover.VerdictUnknown},
		"its QEMU runs without it": {disk, hold(nil), 10, recover.VerdictLost},
		"of another instance":      {disk, hold(func(p *pin.Held) { p.Owners = []string{recovertest.UUID(2)} }), 0, recover.VerdictLost},
		"of an earlier time":       {disk, hold(func(p *pin.Held) { p.Meta.Needed = false }), 0, recover.VerdictLost},
		"it has a name":            {disk, hold(func(p *pin.Held) { p.Stat.Nlink = 1 }), 0, recover.VerdictLost},
		"no disk of it is nowhere": {log, hold(nil), 0, recover.VerdictIntact},
		"one of the other's disks": {disk, hold(func(p *pin.Held) { p.Meta.Role = recover.RoleDisk }), 0, recover.VerdictLost},
	} {
		t.Run(name, func(t *testing.T) {
			l := lookOf(t, fakeTree{})
			l.pins = pinned{c.pin}
			i := recover.Instance{UUID: recovertest.UUID(1), PID: c.pid, Process: recover.ProcessIdentity{PID: c.pid}, Files: []recover.File{c.file}}
			i.Definition.Disks = []recover.Disk{{Chain: []recover.Image{{Source: recover.SourceFile, Path: c.file.Path}}}}
			l.addGuarded(&i, procfs.Root{})
			verdict.Instance(&i)
			if i.Verdict != c.want {
				t.Errorf("%s: %q", i.Verdict, i.Reasons)
			}
			said := strings.Join(append(i.Reasons, i.Possible...), ";")
			if c.want == recover.VerdictUnknown &&
				(!strings.Contains(said, "/srv/x (os-rescue 20:3)") || !strings.Contains(said, "/proc/PID/fd/FD")) {
				t.Errorf("it says %s", said)
			}
		})
	}
}

func TestWhereNothingIsLeftOfAnyInstanceAMountIsLookedForFirst(t *testing.T) {
	dir := t.TempDir()
	in, err := procfs.OpenRoot(dir)
	recovertest.Must(t, err)
	defer in.Close()
	recovertest.Must(t, os.MkdirAll(dir+"/i/locks", 0o755))
	gone := recover.File{Path: classDisk, State: recover.FileMissing}
	held := recover.File{Path: "/i/v/disk", State: recover.FileDeleted, Holders: []recover.Holder{{PID: 1}}}
	for what, c := range map[string]struct {
		files []recover.File // of another instance
		dir   string         // that is there
		want  bool
	}{
		"nothing":                       {files: []recover.File{gone}, want: true},
		"another, on a volume":          {files: []recover.File{{Path: "/srv/disk", State: recover.FilePresent}}, want: true},
		"another, which has its files":  {files: []recover.File{{Path: "/i/v/disk", State: recover.FilePresent}}},
		"another, of which one is held": {files: []recover.File{held}},
		"a directory":                   {files: []recover.File{gone}, dir: "/i/v"},
	} {
		t.Run(what, func(t *testing.T) {
			if c.dir != "" {
				recovertest.Must(t, os.Mkdir(dir+c.dir, 0o755))
				defer os.Remove(dir + c.dir)
			}
			all := []recover.Instance{
				{UUID: "u", Verdict: recover.VerdictLost, Files: []recover.File{gone}, Possible: []string{"a rebuild"}},
				{UUID: "v", Files: c.files},
			}
			explainUnmounted(in, "/i", all)
			got := all[0].Possible
			if isFirst := strings.Contains(got[0], "mount -a") && strings.Contains(got[0], "/i"); isFirst != c.want || len(all[1].Possible) > 0 {
				t.Errorf("%q, %q", got, all[1].Possible)
			}
		})
	}
}
