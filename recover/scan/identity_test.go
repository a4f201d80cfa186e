package scan

import (
	"os"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/statedir"
	"github.com/os-rescue/os-rescue/recover/verdict"
)

func TestAFileIsPresentOnlyIfItsBirthIsThatOfTheOpenOne(t *testing.T) {
	numbered := func(n uint64, birth string) recover.Inode { return recover.Inode{Inode: n, Birth: birth} }
	for name, c := range map[string]struct {
		open, at recover.Inode
		state    recover.FileState
	}{
		"it":                                   {numbered(7, "b5"), numbered(7, "b5"), recover.FilePresent},
		"of its number, a nanosecond younger":  {numbered(7, "b5"), numbered(7, "b6"), recover.FileReplaced},
		"of its number, the next generation":   {numbered(7, "g05"), numbered(7, "g06"), recover.FileReplaced},
		"of its birth":                         {numbered(7, "b5"), numbered(8, "b5"), recover.FileReplaced},
		"it, on a file system without births":  {numbered(7, ""), numbered(7, ""), recover.FilePresent},
		"another, on one that has none either": {numbered(7, ""), numbered(8, ""), recover.FileReplaced},
	} {
		link, links := classDisk, uint64(1)
		if c.state != recover.FilePresent {
			link, links = classDisk+" (deleted)", 0
		}
		h := held(link, c.open.Inode, links)
		h.Stat.Birth = c.open.Birth
		c.at.Device = h.Stat.Dev
		disk := recover.File{Path: classDisk, Role: recover.RoleDisk, Writable: true}
		tree := fakeTree{classDisk: c.at}
		got := judged(t, false, []recover.File{disk}, []candidate{h}, tree, tree).Files[0]
		if got.State != c.state || got.Identity() != h.Inode() {
			t.Errorf("%s: %s, %v", name, got.State, got.Identity())
		}
	}
}

// TestARunProvesWhatItHasPutBackWhereNoBirthIsTold: QEMU has the old file open, so only the
// run itself knows that the number at the path is that of its own copy still.
func TestARunProvesWhatItHasPutBackWhereNoBirthIsTold(t *testing.T) {
	const base = "/i/_base/b"
	copied := recover.Inode{Device: 1, Inode: 8}
	for name, c := range map[string]struct {
		keeps recover.Inode
		state recover.Verdict
	}{
		"it has had it open":     {copied, recover.VerdictIntact},
		"it has another one":     {recover.Inode{Device: 1, Inode: 9}, recover.VerdictConflict},
		"a scan, which has none": {recover.Inode{}, recover.VerdictConflict},
	} {
		t.Run(name, func(t *testing.T) {
			tree := fakeTree{base: copied}
			old := readOnly(held(base+" (deleted)", 7, 0))
			dir := t.TempDir()
			record := journal.Published{Source: old.Inode().Key(), Device: copied.Device, Inode: copied.Inode, Size: 100}
			published(t, dir, base, record)
			s := New(recover.Settings{InstancesPath: "/i", StateDir: dir}, nil, nil)
			if c.keeps != (recover.Inode{}) {
				s = s.Keeping(func(at recover.Inode) bool { return at == c.keeps })
			}
			l := lookOf(t, tree)
			l.published, l.keeps = s.runs.Published, s.keeps
			i := recover.Instance{UUID: recovertest.UUID(1), Process: recover.ProcessIdentity{PID: 10}}
			i.Definition.Disks = []recover.Disk{{Chain: []recover.Image{{Source: recover.SourceFile, Path: base}}}}
			i.Files = []recover.File{{Path: base, Role: recover.RoleBacking, Holders: []recover.Holder{}}}
			recovertest.Must(t, l.files(t.Context(), &i, []candidate{old}, tree))
			verdict.Instance(&i)
			if i.Verdict != c.state {
				t.Errorf("%s: %v", i.Verdict, i.Reasons)
			}
		})
	}
}

// published writes the journal of a run that put a file back.
func published(t *testing.T, state, path string, rec journal.Published) {
	t.Helper()
	const run = "20260101-000000000-abcd"
	dir := statedir.Dir(state).Run(run)
	recovertest.Must(t, os.MkdirAll(dir, 0o700))
	log, _, err := journal.Open(dir, nil)
	recovertest.Must(t, err)
	defer log.Close()
	boot, err := procfs.BootID(procfs.Dir)
	recovertest.Must(t, err)
	recovertest.Must(t, log.Write(journal.Record{Step: journal.StepRun, Phase: recover.PhaseBegin}, journal.Header{BootID: boot}))
	recovertest.Must(t, log.Write(journal.Record{Instance: "u", Step: journal.StepPublish, Phase: recover.PhaseDone, Path: path}, rec))
}
