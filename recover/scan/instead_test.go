package scan

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// offIn is what a scan says of an instance of Nova's that is off, whose definition names that
// file of its directory as vda. prepare makes what stands there.
func offIn(t *testing.T, name string, pins pinned, prepare func(dir string)) recover.Instance {
	t.Helper()
	root, uuid := t.TempDir(), recovertest.UUID(1)
	dir := filepath.Join("/i", uuid)
	recovertest.Must(t, os.MkdirAll(root+dir, 0o755))
	recovertest.Must(t, os.WriteFile(filepath.Join(root, dir, recover.DiskInfoName), []byte("{}"), 0o600))
	prepare(root + dir)
	in, err := procfs.OpenRoot(root)
	recovertest.Must(t, err)
	defer in.Close()
	l := lookOf(t, in)
	l.root, l.pins = in, pins
	i := recover.Instance{UUID: uuid, Definition: recover.Domain{UUID: uuid, Nova: &recover.NovaMetadata{}, Disks: []recover.Disk{{
		Target: "vda", Chain: []recover.Image{{Source: recover.SourceFile, Path: filepath.Join(dir, name), Format: "raw"}},
	}}}}
	i.Files = ExpectedFiles(i.Definition, "/i")
	recovertest.Must(t, l.files(t.Context(), &i, nil, in))
	verdict.Instance(&i)
	return i
}

func TestWhatIsNoDiskIsTakenForNone(t *testing.T) {
	for name, c := range map[string]struct {
		make func(path string) error
		want recover.Verdict
	}{
		"an empty file": {func(path string) error { return os.WriteFile(path, nil, 0o600) }, recover.VerdictLost},
		"a directory":   {func(path string) error { return os.Mkdir(path, 0o700) }, recover.VerdictLost},
		"a FIFO":        {func(path string) error { return unix.Mkfifo(path, 0o600) }, recover.VerdictLost},
		// What it leads to may be mounted later, and be the disk.
		"a dangling symlink": {func(path string) error { return os.Symlink("/srv/disk", path) }, recover.VerdictUnknown},
		"a file":             {func(path string) error { return os.WriteFile(path, []byte("it"), 0o600) }, recover.VerdictIntact},
	} {
		t.Run(name, func(t *testing.T) {
			i := offIn(t, "disk", nil, func(dir string) { recovertest.Must(t, c.make(filepath.Join(dir, "disk"))) })
			if f := i.Files[0]; i.Verdict != c.want || f.State == recover.FileMissing && !strings.Contains(f.Reason, name) {
				t.Errorf("it is %s: %s", i.Verdict, f.Reason)
			}
		})
	}
}

func TestADiskThatIsThereUnderAnotherNameThanItsDefinitionsIsNotLost(t *testing.T) {
	data := []byte("data")
	for name, c := range map[string]struct {
		named string   // by the definition
		there []string // in the directory
		empty bool
		want  recover.Verdict
	}{
		"Nova's disk is there":                   {named: "disk.bak", there: []string{"disk"}, want: recover.VerdictUnknown},
		"an empty one is":                        {named: "disk.bak", there: []string{"disk"}, empty: true, want: recover.VerdictLost},
		"nothing is":                             {named: "disk.bak", want: recover.VerdictLost},
		"its config drive is":                    {named: "disk.bak", there: []string{"disk.config"}, want: recover.VerdictLost},
		"the definition names Nova's":            {named: "disk", there: []string{"disk.swap"}, want: recover.VerdictLost},
		"both are there, and nothing is amiss":   {named: "disk.bak", there: []string{"disk", "disk.bak"}, want: recover.VerdictIntact},
		"a file that is none of Nova's is there": {named: "disk.bak", there: []string{"notes"}, want: recover.VerdictLost},
	} {
		t.Run(name, func(t *testing.T) {
			i := offIn(t, c.named, nil, func(dir string) {
				for _, file := range c.there {
					body := data
					if c.empty {
						body = nil
					}
					recovertest.Must(t, os.WriteFile(filepath.Join(dir, file), body, 0o600))
				}
			})
			if i.Verdict != c.want {
				t.Errorf("it is %s: %v", i.Verdict, i.Reasons)
			}
			if c.want == recover.VerdictUnknown && !strings.Contains(i.Files[0].Reason, i.UUID+"/disk is there") {
				t.Errorf("%s", i.Files[0].Reason)
			}
		})
	}
}

func TestAFileOfTheGuardsBelongsWhereItsDefinitionHadIt(t *testing.T) {
	const uuid, base = "u", "/i/_base/b"
	renamed := func(link string, meta pin.Meta) pinned {
		meta.Role, meta.Run = recover.RoleBacking, pin.GuardRun
		return pinned{{HeldFile: held(link, 7, 1).HeldFile, Owners: []string{uuid}, Meta: meta}}
	}
	for name, c := range map[string]struct {
		pins pinned
		want string
	}{
		"it was renamed":            {renamed(base+".bak", pin.Meta{Path: base + ".bak", Belongs: base}), base},
		"no definition had it":      {renamed(base, pin.Meta{Path: base}), base},
		"it was defined anew since": {renamed(base+".bak", pin.Meta{Path: base + ".bak", Belongs: base, Retired: []string{uuid}}), base + ".bak"},
		"Nova itself has renamed it": {
			renamed("/i/u_resize/disk", pin.Meta{Path: "/i/u_resize/disk", Belongs: "/i/u/disk"}), "/i/u_resize/disk",
		},
	} {
		if files := c.pins.files(uuid, nil); len(files) != 1 || files[0].Path != c.want {
			t.Errorf("%s: %+v", name, files)
		}
		if files := c.pins.files(uuid, []recover.File{{Path: c.want}}); len(files) != 1 {
			t.Errorf("%s, and the definition names it: %+v", name, files)
		}
	}
}

// What the guard holds for the same target is one as well, wherever it is.
func TestADiskThatTheGuardHoldsUnderAnotherNameIsNotLost(t *testing.T) {
	volume := filepath.Join("/i", recovertest.UUID(1), "volume")
	for target, want := range map[string]recover.Verdict{"vda": recover.VerdictUnknown, "vdb": recover.VerdictLost} {
		p := pin.Held{HeldFile: held(volume, 7, 1).HeldFile, Owners: []string{recovertest.UUID(1)},
			Meta: pin.Meta{Path: volume, Belongs: volume, Role: recover.RoleDisk, Target: target, Run: pin.GuardRun}}
		i := offIn(t, "disk", pinned{p}, func(dir string) {
			recovertest.Must(t, os.WriteFile(filepath.Join(dir, "volume"), []byte("data"), 0o600))
		})
		if i.Verdict != want {
			t.Errorf("%s: it is %s: %v", target, i.Verdict, i.Reasons)
		}
	}
}
