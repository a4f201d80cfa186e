package scan

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// The guest writes inode 5, which stands at the path of its disk; inode 7 is held.
func TestALostFileThatIsHeldCountsAgainstTheOneThatTheGuestRunsOn(t *testing.T) {
	uuid := recovertest.UUID(1)
	for name, c := range map[string]struct {
		change func(p *pin.Held)
		want   recover.Verdict
	}{
		"the keeper's":                  {want: recover.VerdictConflict},
		"one of a disk that it has not": {change: func(p *pin.Held) { p.Meta.Path = "/i/u/disk.eph0" }, want: recover.VerdictConflict},
		"its backing file":              {change: func(p *pin.Held) { p.Meta.Role = recover.RoleBacking }, want: recover.VerdictConflict},
		"a stray":                       {change: func(p *pin.Held) { p.Meta.Role = recover.RoleOther }, want: recover.VerdictConflict},
		"what it booted from": {change: func(p *pin.Held) { p.Meta.Path, p.Meta.Role = "/i/u/kernel", recover.RoleOther },
			want: recover.VerdictIntact},
		"the guard's, needed": {change: func(p *pin.Held) { p.Meta.Run, p.Meta.Needed = pin.GuardRun, true },
			want: recover.VerdictConflict},
		"the guard's, of which nobody knows that it is needed": {change: func(p *pin.Held) { p.Meta.Run = pin.GuardRun },
			want: recover.VerdictIntact},
		"the guard's, of before a hard reboot": {change: func(p *pin.Held) {
			p.Meta.Run, p.Meta.Needed, p.Meta.Retired = pin.GuardRun, true, []string{uuid}
		}, want: recover.VerdictConflict},
		"a base of the guard's, of before a hard reboot": {change: func(p *pin.Held) {
			p.Meta.Run, p.Meta.Needed, p.Meta.Retired, p.Meta.Role = pin.GuardRun, true, []string{uuid}, recover.RoleBacking
		}, want: recover.VerdictIntact},
		"another instance's":      {change: func(p *pin.Held) { p.Owners = []string{recovertest.UUID(2)} }, want: recover.VerdictIntact},
		"a console log":           {change: func(p *pin.Held) { p.Meta.Role = recover.RoleConsoleLog }, want: recover.VerdictIntact},
		"one that has its name":   {change: func(p *pin.Held) { p.Stat.Nlink = 1 }, want: recover.VerdictIntact},
		"the one that it runs on": {change: func(p *pin.Held) { p.Stat.Ino = 5 }, want: recover.VerdictIntact},
	} {
		t.Run(name, func(t *testing.T) {
			l := lookOf(t, fakeTree{})
			p := pin.Held{HeldFile: pinOf(classDisk, classDisk+" (deleted)", 7, 0).HeldFile, Owners: []string{uuid},
				Meta: pin.Meta{Path: classDisk, Role: recover.RoleDisk, Run: "r1"}}
			if c.change != nil {
				c.change(&p)
			}
			l.pins = pinned{p}
			i := recover.Instance{UUID: uuid, PID: 10, Process: recover.ProcessIdentity{PID: 10},
				Files: []recover.File{{Path: classDisk, Role: recover.RoleDisk, Format: "raw", Writable: true}}}
			i.Definition.Boot = recover.BootFiles("/i/u/kernel", "", "")
			i.Definition.Disks = []recover.Disk{{Chain: []recover.Image{{Source: recover.SourceFile, Path: classDisk}}}}
			recovertest.Must(t, l.files(t.Context(), &i, []candidate{held(classDisk, 5, 1)}, fakeTree{classDisk: {Device: 1, Inode: 5}}))
			verdict.Instance(&i)
			if i.Verdict != c.want || !i.IsWhole() {
				t.Errorf("%s, whole: %t: %q %+v", i.Verdict, i.IsWhole(), i.Reasons, i.Files)
			}
			said := strings.Join(append(i.Reasons, i.Possible...), ";")
			names := strings.Contains(said, "inode 7") && strings.Contains(said, "os-rescue 20 as descriptor 3") &&
				strings.Contains(said, "keeper release "+uuid)
			if names != (c.want == recover.VerdictConflict) {
				t.Errorf("it says %s", said)
			}
		})
	}
}
