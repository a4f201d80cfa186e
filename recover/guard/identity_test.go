package guard

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/beneath"
	"github.com/os-rescue/os-rescue/recover/identity"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/runs"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// The guard lets a deleted file go for a copy of it that a run has proven, and for nothing
// that only looks like that copy.
func TestAGuardLetsGoForTheVeryCopyThatWasProven(t *testing.T) {
	const proven, unneeded = keeper.ReleasedProven, keeper.ReleasedUnneeded
	for name, c := range map[string]struct {
		source func(i *recover.Inode) // changes what the journal says was copied
		copied func(i *recover.Inode) // changes what it says that became
		since  bool                   // the copy was written since
		qemu   string                 // has the deleted file open still, to write or to read it
		want   keeper.ReleaseReason
	}{
		"the copy":                                                   {want: proven},
		"a stranger with the copy's number":                          {copied: func(i *recover.Inode) { i.Birth += "1" }, want: unneeded},
		"a copy of another file of the number":                       {source: func(i *recover.Inode) { i.Birth += "1" }, want: unneeded},
		"a journal without births":                                   {copied: func(i *recover.Inode) { i.Birth = "" }, want: unneeded},
		"a copy of a disk that is written":                           {qemu: "writes"},
		"nothing of a disk that is written":                          {copied: func(i *recover.Inode) { i.Inode++ }, qemu: "writes"},
		"a copy of a file that is only read":                         {qemu: "reads", want: proven},
		"a copy that was written since, of a file that is only read": {since: true, qemu: "reads"},
		"a copy that was written since, of a file that nobody reads": {since: true, want: unneeded},
	} {
		t.Run(name, func(t *testing.T) {
			b := newIncidentBed(t)
			hold := b.holds.deleted()[0]
			recovertest.Must(t, os.WriteFile(hold.Path, []byte("content"), 0o600))
			at, err := identity.At(unix.AT_FDCWD, hold.Path, 0)
			recovertest.Must(t, err)
			source, copied := hold.inode(), at.Inode()
			if c.source != nil {
				c.source(&source)
			}
			if c.copied != nil {
				c.copied(&copied)
			}
			written := at.Mtim.Nano()
			if c.since {
				written--
			}
			state := statedir.Dir(t.TempDir())
			run := state.Run("20260101-000000-0000")
			recovertest.Must(t, os.MkdirAll(run, 0o700))
			log, _, err := journal.Open(run, nil)
			recovertest.Must(t, err)
			boot, err := procfs.BootID(procfs.Dir)
			recovertest.Must(t, err)
			recovertest.Must(t, log.Write(journal.Record{Step: journal.StepRun, Phase: recover.PhaseBegin}, journal.Header{BootID: boot}))
			recovertest.Must(t, log.Write(journal.Record{Step: journal.StepPublish, Phase: recover.PhaseDone, Path: hold.Path},
				journal.Published{Source: source.Key(), Device: copied.Device, Inode: copied.Inode, Birth: copied.Birth, Size: at.Size,
					Written: written}))
			log.Close()

			i := recover.Instance{UUID: b.lost.UUID, PID: 1, State: recover.StateRunning, Verdict: recover.VerdictIntact}
			i.Files = []recover.File{{Path: hold.Path, Role: recover.RoleDisk, State: recover.FilePresent,
				Device: at.Dev, Inode: at.Ino, Birth: at.Birth}}
			if c.qemu != "" {
				i.Nameless = []recover.File{{Path: hold.Path, Role: recover.RoleOther, State: recover.FileDeleted, Device: hold.Device,
					Inode: hold.Inode, Birth: hold.Birth, Holders: []recover.Holder{{PID: 1, FD: 3, Writable: c.qemu == "writes"}}}}
			}
			root, err := beneath.OpenRoot("/")
			recovertest.Must(t, err)
			copies := newComparer(b.holds, root, func() {})
			a := &arbiter{copies: copies, runs: runs.Of(string(state)), root: root, holds: b.holds, records: b.records, incidents: b.all,
				nova: &novaSide{}, problems: newProblems(),
				options: func() Options { return Options{MinFree: 2, Grace: time.Hour} }} // always too little
			a.decide(t.Context(), recover.Report{Taken: time.Now().Add(time.Minute), Instances: []recover.Instance{i}})
			_, released := b.holds.sum()
			if c.want == "" && len(released) != 0 || c.want != "" && released[c.want] != 1 {
				t.Errorf("released: %v, want %q", released, c.want)
			}
		})
	}
}
