package run_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// onExt4 runs a test on both kinds of ext4: inodes of 128 bytes have no room for the time of
// their making, and are told apart by their generation.
func onExt4(t *testing.T, test func(t *testing.T, h *runtest.Host)) {
	t.Helper()
	for name, args := range map[string][]string{"ext4": nil, "ext4 with small inodes": {"-I", "128"}} {
		t.Run(name, func(t *testing.T) { test(t, runtest.Ext4Host(t, args...)) })
	}
}

func numberOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	recovertest.Must(t, unix.Stat(path, &st))
	return st.Ino
}

// ext4 gives the number that a rescue has freed to the next file, which may be the next
// copy: then an earlier journal says of the disk in use that it was copied, and to where.
func TestAnOldBackupWithTheNumberOfAnEarlierCopyIsAConflict(t *testing.T) {
	onExt4(t, func(t *testing.T, h *runtest.Host) {
		g := h.Add(1, recovertest.GuestOptions{})
		copies := map[uint64]uint64{} // what the journals say, by number
		live := numberOf(t, g.Disk)
		for copies[live] == 0 || copies[live] == live {
			if len(copies) == 20 {
				t.Fatalf("no number came again: %v", copies)
			}
			recovertest.Must(t, os.Remove(g.Disk))
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			now := numberOf(t, g.Disk)
			copies[live], live = now, now
		}
		g.Writes(t, g.Opened(t), 0, "what only this disk has")
		recovertest.Must(t, os.Remove(g.Disk))
		recovertest.MakeNumbered(t, g.Disk, copies[live], recovertest.Payload(2, len(g.Content[g.Disk])))
		i := h.Scan(g)
		for _, f := range i.Files {
			if f.Path == g.Disk && (f.State != recover.FileReplaced || f.Proven || f.Inode != live) {
				t.Errorf("it is %s, proven %v: %s", f.State, f.Proven, f.Reason)
			}
		}
		if i.Verdict != recover.VerdictConflict {
			t.Errorf("%s %v", i.Verdict, i.Reasons)
		}
		report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || numberOf(t, g.Disk) != copies[live] {
			t.Errorf("%+v", r)
		}
		o := recovertest.Options(g)
		o.ReplaceExisting = true
		report, err = h.Run(t.Context(), recover.CommandRescue, o)
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
			t.Errorf("%+v", r)
		}
		recovertest.Must(t, g.Back())
	})
}

// What stands at a backing file's path got the number of the copy that was put back there.
func TestAStrangerWithTheNumberOfWhatWasPutBackIsNoProvenCopy(t *testing.T) {
	onExt4(t, func(t *testing.T, h *runtest.Host) {
		g := h.Add(1, recovertest.GuestOptions{Base: "b"})
		base := filepath.Join(h.Settings.InstancesPath, "_base/b")
		good := g.Content[base]
		recovertest.Must(t, os.Remove(base))
		report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
			t.Fatalf("%+v", r)
		}
		if i := h.Scan(g); i.Verdict != recover.VerdictIntact {
			t.Fatalf("after it was put back: %s %v", i.Verdict, i.Reasons)
		}
		number := numberOf(t, base)
		recovertest.Must(t, os.Remove(base))
		recovertest.MakeNumbered(t, base, number, []byte(strings.Repeat("x", len(good))))
		i := h.Scan(g)
		if i.Verdict != recover.VerdictConflict {
			t.Errorf("beside the stranger: %s %v", i.Verdict, i.Reasons)
		}
		for _, f := range i.Files {
			if f.Path == base && (f.State != recover.FileReplaced || f.Proven) {
				t.Errorf("it is %s, proven %v: %s", f.State, f.Proven, f.Reason)
			}
		}
		// Only the content proves a file then.
		recovertest.Must(t, os.Remove(base))
		recovertest.MakeNumbered(t, base, number, good)
		report, err = h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued || numberOf(t, base) != number {
			t.Errorf("with the very content: %+v", r)
		}
		if i := h.Scan(g); i.Verdict != recover.VerdictIntact {
			t.Errorf("and then: %s %v", i.Verdict, i.Reasons)
		}
	})
}
