package scan

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

func TestAFileThatIsNoDiskKeepsADomainThatIsOffFromBeingIntact(t *testing.T) {
	root := t.TempDir()
	recovertest.Must(t, os.MkdirAll(filepath.Join(root, "i/u"), 0o755))
	disk := filepath.Join(root, classDisk)
	in, err := procfs.OpenRoot(root)
	recovertest.Must(t, err)
	defer in.Close()
	qcow2 := func(t *testing.T) {
		if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", disk, "1M").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	zeros := func(size int64) func(*testing.T) {
		return func(t *testing.T) {
			recovertest.Must(t, os.WriteFile(disk, nil, 0o600))
			recovertest.Must(t, os.Truncate(disk, size))
		}
	}
	for what, c := range map[string]struct {
		make   func(*testing.T)
		format string
		role   recover.Role
		active bool
		held   bool   // by the guard, which has had it open since before
		says   string // empty for an intact instance
	}{
		"an image":                       {make: qcow2, format: "qcow2"},
		"a new swap disk":                {make: zeros(1 << 20), format: "raw"},
		"an image that is called raw":    {make: qcow2, format: "raw"},
		"zeros that are called an image": {make: zeros(1 << 20), format: "qcow2", says: "qcow2"},
		"the beginning of an image": {make: func(t *testing.T) {
			qcow2(t)
			recovertest.Must(t, os.Truncate(disk, 80))
		}, format: "qcow2", says: "ends after 80 bytes"},
		"an empty image":       {make: zeros(0), format: "qcow2", says: "an empty file"},
		"an empty raw disk":    {make: zeros(0), format: "raw", says: "an empty file"},
		"an empty base":        {make: zeros(0), role: recover.RoleBacking, says: "an empty file"},
		"an empty NVRAM":       {make: zeros(0), format: "raw", role: recover.RoleNVRAM, says: "an empty file"},
		"an emptied disk":      {make: zeros(0), format: "qcow2", held: true, says: "is empty"},
		"an empty log":         {make: zeros(0), format: "raw", role: recover.RoleConsoleLog},
		"of a guest that runs": {make: zeros(0), format: "raw", active: true, says: "does not have it open"},
	} {
		t.Run(what, func(t *testing.T) {
			c.make(t)
			l := lookOf(t, in)
			l.root = in
			f := recover.File{Path: classDisk, Role: c.role, Format: c.format, Writable: true, Holders: []recover.Holder{}}
			if f.Role == "" {
				f.Role = recover.RoleDisk
			}
			i := recover.Instance{UUID: recovertest.UUID(1), Files: []recover.File{f}, Definition: recover.Domain{
				Disks: []recover.Disk{{Chain: []recover.Image{{Source: recover.SourceFile, Path: classDisk}}}}}}
			if c.active {
				i.Process.PID = 10
			}
			if c.held {
				st, err := in.Stat(classDisk)
				recovertest.Must(t, err)
				h := pinOf(classDisk, classDisk, 0, 1)
				h.Stat = st
				l.pins = pinned{{HeldFile: h.HeldFile, Owners: []string{i.UUID}, Meta: pin.Meta{Path: classDisk}}}
			}
			recovertest.Must(t, l.files(t.Context(), &i, nil, in))
			verdict.Instance(&i)
			want := recover.VerdictIntact
			switch {
			case c.active:
				want = recover.VerdictUnknown
			case c.says == "an empty file":
				want = recover.VerdictLost
			case c.says != "":
				want = recover.VerdictConflict
			}
			if said := strings.Join(i.Reasons, "; "); i.Verdict != want || !strings.Contains(said, c.says) {
				t.Errorf("%s: %q; want %s, and %q", i.Verdict, said, want, c.says)
			}
		})
	}
}
