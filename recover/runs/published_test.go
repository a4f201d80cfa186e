package runs_test

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// published is what a state directory says whose only run, of this boot, has published that.
func published(t *testing.T, path string, rec journal.Published) runs.Published {
	t.Helper()
	state := statedir.Dir(t.TempDir())
	run := state.Run("20260101-000000-0000")
	recovertest.Must(t, os.MkdirAll(run, 0o700))
	log, _, err := journal.Open(run, nil)
	recovertest.Must(t, err)
	defer log.Close()
	boot, err := procfs.BootID(procfs.Dir)
	recovertest.Must(t, err)
	recovertest.Must(t, log.Write(journal.Record{Step: journal.StepRun, Phase: recover.PhaseBegin}, journal.Header{BootID: boot}))
	recovertest.Must(t, log.Write(journal.Record{Step: journal.StepPublish, Phase: recover.PhaseDone, Path: path}, rec))
	all, err := runs.Of(string(state)).Published()
	recovertest.Must(t, err)
	return all
}

func TestOnlyTheVeryFileThatWasPublishedIsAProvenCopy(t *testing.T) {
	const path = "/i/_base/x"
	rec := journal.Published{Source: "1:7:b100", Device: 1, Inode: 8, Birth: "b200", Size: 10}
	old := journal.Published{Source: "1:7", Device: 1, Inode: 8, Size: 10} // of a release that knew no births
	mine, birthless := recover.Inode{Device: 1, Inode: 7, Birth: "b100"}, recover.Inode{Device: 1, Inode: 7}
	at := func(inode uint64, birth string, size int64) identity.Status {
		return identity.Status{Stat_t: unix.Stat_t{Dev: 1, Ino: inode, Size: size}, Birth: birth}
	}
	qemu := recover.Holder{PID: 5, Process: "qemu", Writable: true}
	keeper := recover.Holder{PID: 6, Process: "os-rescue"}
	for name, c := range map[string]struct {
		rec      journal.Published
		lost     recover.Inode // mine if zero
		at       identity.Status
		writable bool
		holder   recover.Holder
		held     bool // somebody has the file at the path open
		want     bool
	}{
		"the copy": {rec: rec, at: at(8, "b200", 10), holder: keeper, want: true},
		"another file that got the copy's number":  {rec: rec, at: at(8, "b201", 10), holder: keeper, held: true},
		"another file that was born with the copy": {rec: rec, at: at(9, "b200", 10), holder: keeper, held: true},
		"a copy of a file that had the lost one's number": {rec: rec, lost: recover.Inode{Device: 1, Inode: 7, Birth: "b101"},
			at: at(8, "b200", 10), holder: keeper, held: true},
		"a backing file whose size has changed":         {rec: rec, at: at(8, "b200", 11), holder: keeper},
		"a disk that its guest made longer":             {rec: rec, at: at(8, "b200", 11), writable: true, holder: keeper, want: true},
		"a disk that its QEMU still writes elsewhere":   {rec: rec, at: at(8, "b200", 10), writable: true, holder: qemu, held: true},
		"an old record, and nobody has the copy open":   {rec: old, at: at(8, "b200", 10), holder: keeper},
		"an old record, and somebody has the copy open": {rec: old, at: at(8, "b200", 10), holder: keeper, held: true, want: true},
		"an old record, and its disk is still written":  {rec: old, at: at(8, "b200", 10), writable: true, holder: qemu, held: true},
		"no births, and nobody has the copy open":       {rec: old, lost: birthless, at: at(8, "", 10), holder: keeper},
		"no births, and somebody has the copy open":     {rec: old, lost: birthless, at: at(8, "", 10), holder: keeper, held: true, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.lost == (recover.Inode{}) {
				c.lost = mine
			}
			f := recover.File{Path: path, Device: c.lost.Device, Inode: c.lost.Inode, Birth: c.lost.Birth, Writable: c.writable,
				Holders: []recover.Holder{c.holder}}
			if got := published(t, path, c.rec).Has(f, c.at, c.held); got != c.want {
				t.Errorf("it is proven: %v", got)
			}
			f.Path += ".other"
			if published(t, path, c.rec).Has(f, c.at, true) {
				t.Error("it is proven at another path")
			}
		})
	}
}

func TestACopyThatWasWrittenSinceIsNotSureToBeOne(t *testing.T) {
	const path = "/i/_base/x"
	drive := journal.Published{Source: "1:7:b100", Device: 1, Inode: 8, Birth: "b200", Size: 10, Written: 3_000_000_005}
	disk := drive
	disk.Written = 0
	at := func(inode uint64, size, sec, nsec int64) identity.Status {
		return identity.Status{Stat_t: unix.Stat_t{Dev: 1, Ino: inode, Size: size, Mtim: unix.Timespec{Sec: sec, Nsec: nsec}}, Birth: "b200"}
	}
	for name, c := range map[string]struct {
		rec  journal.Published
		at   identity.Status
		want bool
	}{
		"as it was published":               {drive, at(8, 10, 3, 5), true},
		"written a nanosecond later":        {drive, at(8, 10, 3, 6), false},
		"given an older time":               {drive, at(8, 10, 2, 5), false},
		"longer":                            {drive, at(8, 11, 3, 5), false},
		"another file of its size and time": {drive, at(9, 10, 3, 5), false},
		"a disk, which its guest writes":    {disk, at(8, 12, 9, 9), true},
	} {
		t.Run(name, func(t *testing.T) {
			f := recover.File{Path: path, Device: 1, Inode: 7, Birth: "b100", Holders: []recover.Holder{{PID: 6}}}
			if got := published(t, path, c.rec).IsUnwritten(f, c.at, false); got != c.want {
				t.Errorf("it is unwritten: %v", got)
			}
			f.Inode = 6
			if published(t, path, c.rec).IsUnwritten(f, c.at, false) {
				t.Error("a file of which it is no copy counts for the copied one")
			}
		})
	}
}

func TestARecordThatIsNoneProvesNothing(t *testing.T) {
	for _, source := range []string{"", ":", "1:7:", "1:7:x", "stored:disk"} {
		got := published(t, "/x", journal.Published{Source: source, Device: 1, Inode: 8, Birth: "b1"})
		if len(got) != 0 {
			t.Errorf("%q: %s", source, fmt.Sprint(got))
		}
	}
}
