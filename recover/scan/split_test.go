package scan

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

// guestFiles are real files of a guest in a directory of their own; this process is its QEMU.
type guestFiles struct {
	dir  string
	disk string
	data string // the file that has the data of the disk
	tree procfs.Root
}

// guestOn makes the disk of a guest; split, if it keeps its data in another file.
func guestOn(t *testing.T, format string, split bool) guestFiles {
	t.Helper()
	dir := t.TempDir()
	g := guestFiles{dir: dir, disk: filepath.Join(dir, "disk"), data: filepath.Join(dir, "data")}
	args := []string{"create", "-q", "-f", format}
	if split {
		args = append(args, "-o", "data_file="+g.data)
	}
	if out, err := exec.Command("qemu-img", append(args, g.disk, "1M")...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img (needed for this test): %v %s", err, out)
	}
	var err error
	g.tree, err = procfs.OpenRoot("/")
	recovertest.Must(t, err)
	t.Cleanup(func() { g.tree.Close() })
	return g
}

// open opens files as a QEMU does, until the test ends.
func (g guestFiles) open(t *testing.T, writable bool, paths ...string) {
	t.Helper()
	flag := os.O_RDONLY
	if writable {
		flag = os.O_RDWR
	}
	for _, path := range paths {
		f, err := os.OpenFile(path, flag, 0)
		recovertest.Must(t, err)
		t.Cleanup(func() { f.Close() })
	}
}

// held are the files in its directory that this process has open.
func (g guestFiles) held(t *testing.T) []candidate {
	t.Helper()
	own, err := procfs.HeldBy(t.Context(), os.Getpid())
	recovertest.Must(t, err)
	return slices.DeleteFunc(candidates(own), func(c candidate) bool { return !strings.HasPrefix(c.Link, g.dir+"/") })
}

// judged is the guest after a scan.
func (g guestFiles) judged(t *testing.T, f recover.File, running bool, pins pinned, changes ...func(*recover.Domain)) recover.Instance {
	t.Helper()
	l := lookOf(t, g.tree)
	l.root, l.pins = g.tree, pins
	f.Path, f.Target, f.Holders = g.disk, "vda", []recover.Holder{}
	i := recover.Instance{UUID: recovertest.UUID(1), Domain: "instance-1", Files: []recover.File{f}, Definition: recover.Domain{
		Disks: []recover.Disk{{Target: "vda", Chain: []recover.Image{{Source: recover.SourceFile, Path: g.disk, Format: f.Format}}}}}}
	var own []candidate
	if running {
		i.PID, own = os.Getpid(), g.held(t)
		i.Process.PID, i.Definition.PID = i.PID, i.PID
	}
	for _, change := range changes {
		change(&i.Definition)
	}
	recovertest.Must(t, l.files(t.Context(), &i, own, g.tree))
	verdict.Instance(&i)
	return i
}

func TestAnImageWhoseDataIsInAnotherFileIsIntactOnlyWhereItsQEMUHasThatAtItsName(t *testing.T) {
	disk := recover.File{Role: recover.RoleDisk, Format: "qcow2", Writable: true}
	for what, c := range map[string]struct {
		off      bool
		file     recover.File
		change   func(t *testing.T, g guestFiles)
		verdict  recover.Verdict
		says     string
		possible string
	}{
		"running": {file: disk, verdict: recover.VerdictIntact},
		"running, the data renamed": {file: disk, verdict: recover.VerdictUnknown, change: func(t *testing.T, g guestFiles) {
			recovertest.Must(t, os.Rename(g.data, g.data+".moved"))
		}, says: "/data.moved (/proc/", possible: "dd bs=1M"},
		"running, another file where the data was": {file: disk, verdict: recover.VerdictUnknown, change: func(t *testing.T, g guestFiles) {
			recovertest.Must(t, os.Rename(g.data, g.data+".moved"))
			recovertest.Must(t, os.WriteFile(g.data, make([]byte, 1<<20), 0o600))
		}, says: "/data.moved (/proc/", possible: "dd bs=1M"},
		"running, the data deleted": {file: disk, verdict: recover.VerdictUnknown, change: func(t *testing.T, g guestFiles) {
			recovertest.Must(t, os.Remove(g.data))
		}, says: "/data (deleted) (/proc/", possible: "nothing may stop, reboot or migrate it"},
		"running, the disk deleted": {file: disk, verdict: recover.VerdictRecoverable, change: func(t *testing.T, g guestFiles) {
			recovertest.Must(t, os.Remove(g.disk))
		}},
		"off": {file: disk, off: true, verdict: recover.VerdictUnknown, says: "keeps the guest's data in another file"},
		"off, as a base": {file: recover.File{Role: recover.RoleBacking}, off: true, verdict: recover.VerdictUnknown,
			says: "keeps the guest's data in another file"},
		"off, and called raw": {file: recover.File{Role: recover.RoleDisk, Format: "raw", Writable: true}, off: true,
			verdict: recover.VerdictIntact},
		"off, both deleted, and held by the guard": {file: disk, off: true, verdict: recover.VerdictUnknown,
			change: func(t *testing.T, g guestFiles) {
				recovertest.Must(t, os.Remove(g.disk))
				recovertest.Must(t, os.Remove(g.data))
			}, says: "keeps the guest's data in another file"},
	} {
		t.Run(what, func(t *testing.T) {
			g := guestOn(t, "qcow2", true)
			g.open(t, true, g.disk, g.data)
			var pins pinned
			for _, h := range g.held(t) {
				pins = append(pins, pin.Held{HeldFile: h.HeldFile, Owners: []string{recovertest.UUID(1)}, Meta: pin.Meta{Path: h.Link}})
			}
			if c.change != nil {
				c.change(t, g)
			}
			if !c.off {
				pins = nil
			}
			for n := range pins {
				pins[n].Stat.Nlink = nlink(t, pins[n].FD)
			}
			i := g.judged(t, c.file, !c.off, pins)
			said, possible := strings.Join(i.Reasons, "; "), strings.Join(i.Possible, "; ")
			if i.Verdict != c.verdict || !strings.Contains(said, c.says) || !strings.Contains(possible, c.possible) {
				t.Errorf("%s: %q, %q; want %s, %q, %q", i.Verdict, said, possible, c.verdict, c.says, c.possible)
			}
			if strings.Contains(possible, "--map") {
				t.Errorf("--map can't help: %q", possible)
			}
		})
	}
}

func nlink(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	recovertest.Must(t, unix.Fstat(fd, &st))
	return uint64(st.Nlink) //nolint:unconvert // 32 bits on arm64
}

func TestADiskThatWasOverwrittenUnderItsQEMUIsNotIntact(t *testing.T) {
	disk := recover.File{Role: recover.RoleDisk, Format: "qcow2", Writable: true}
	raw := recover.File{Role: recover.RoleDisk, Format: "raw", Writable: true}
	empty := func(t *testing.T, g guestFiles) { recovertest.Must(t, os.Truncate(g.disk, 0)) }
	zero := func(t *testing.T, g guestFiles) {
		f, err := os.OpenFile(g.disk, os.O_WRONLY, 0)
		recovertest.Must(t, err)
		defer f.Close()
		_, err = f.WriteAt(make([]byte, 1<<16), 0)
		recovertest.Must(t, err)
	}
	for what, c := range map[string]struct {
		format string
		file   recover.File
		change func(t *testing.T, g guestFiles)
		domain func(d *recover.Domain)
		says   string // empty for an intact instance
	}{
		"whole":             {format: "qcow2", file: disk},
		"emptied":           {format: "qcow2", file: disk, change: empty, says: "it is empty"},
		"its header zeroed": {format: "qcow2", file: disk, change: zero, says: "does not begin like one"},
		"a base, emptied": {format: "raw", file: recover.File{Role: recover.RoleBacking, Format: "raw"}, change: empty,
			says: "it is empty"},
		"a raw disk":          {format: "raw", file: raw},
		"a raw disk, zeroed":  {format: "raw", file: raw, change: zero},
		"a raw disk, emptied": {format: "raw", file: raw, change: empty, says: "it is empty"},
		"an empty cdrom":      {format: "raw", file: recover.File{Role: recover.RoleDisk, Format: "raw"}, change: empty},
		"an overlay that is thrown away": {format: "qcow2", file: recover.File{Role: recover.RoleDisk, Format: "qcow2",
			Writable: true, Temporary: true}, change: zero},
		"under a block job": {format: "qcow2", file: disk, change: zero,
			domain: func(d *recover.Domain) { d.BlockJobs = map[string]string{"vda": "copy"} }},
		"under a migration": {format: "qcow2", file: disk, change: zero, domain: func(d *recover.Domain) { d.Job = "migration in" }},
		"a slice of a file": {format: "qcow2", file: disk, change: zero,
			domain: func(d *recover.Domain) { d.Disks[0].Unusual = []string{"slices"} }},
	} {
		t.Run(what, func(t *testing.T) {
			g := guestOn(t, c.format, false)
			g.open(t, c.file.Writable, g.disk)
			if c.change != nil {
				c.change(t, g)
			}
			if c.domain == nil {
				c.domain = func(*recover.Domain) {}
			}
			i := g.judged(t, c.file, true, nil, c.domain)
			said, possible := strings.Join(i.Reasons, "; "), strings.Join(i.Possible, "; ")
			switch want := c.says != ""; {
			case !want && (i.Verdict != recover.VerdictIntact || said != ""):
				t.Errorf("%s: %q; want an intact instance", i.Verdict, said)
			case want && (i.Verdict != recover.VerdictUnknown || !strings.Contains(said, "overwritten or truncated in place") ||
				!strings.Contains(said, c.says) || !strings.Contains(possible, "nothing but a backup")):
				t.Errorf("%s: %q, %q; want %q", i.Verdict, said, possible, c.says)
			}
		})
	}
}
