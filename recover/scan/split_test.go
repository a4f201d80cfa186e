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
		t.Fatalf("%v: %s", err, out)
	}
	var err error
	g.tree, err = procfs.OpenRoot("/")
	recovertest.Must(t, err)
	t.Cleanup(func() { g.tree.Close() })
	return g
}

// open opens files as a QEMU does, until the test ends.
func (g guestFiles) open(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
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
func (g guestFiles) judged(t *testing.T, f recover.File, running bool, pins pinned) recover.Instance {
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
			g.open(t, g.disk, g.data)
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
