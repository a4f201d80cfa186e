package run_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func liveOptions(g *recovertest.Guest) recover.Options {
	o := recovertest.Options(g)
	o.Mode = recover.ModeLive
	return o
}

// spoils changes the guest's mirror before it is moved onto it, as a fault of QEMU's would.
func spoils(t *testing.T, g *recovertest.Guest) {
	t.Helper()
	staged, err := filepath.Glob(filepath.Join(g.H.Settings.InstancesPath, ".os-rescue-*", g.UUID+".disk.*"))
	recovertest.Must(t, err)
	if len(staged) != 1 {
		t.Fatalf("staged: %v", staged)
	}
	f, err := os.OpenFile(staged[0], os.O_WRONLY, 0)
	recovertest.Must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("spoilt"), 4096)
	recovertest.Must(t, err)
}

// fills leaves no room on the file system of the guest's disk until it is freed.
func fills(t *testing.T, g *recovertest.Guest) (free func()) {
	t.Helper()
	path := filepath.Join(g.H.Settings.InstancesPath, "filler"+time.Now().Format(".000000000"))
	var room unix.Statfs_t
	recovertest.Must(t, unix.Statfs(g.H.Settings.InstancesPath, &room))
	f, err := os.Create(path)
	recovertest.Must(t, err)
	defer f.Close()
	recovertest.Must(t, unix.Fallocate(int(f.Fd()), 0, 0, int64(room.Bfree-4)*room.Bsize))
	return func() { recovertest.Must(t, os.Remove(path)) }
}

// before returns what is kept of the disk as it was.
func before(t *testing.T, g *recovertest.Guest) []string {
	t.Helper()
	kept, err := filepath.Glob(g.Disk + ".before-*")
	recovertest.Must(t, err)
	return kept
}

// isKept is true when the only file beside the disk is the disk as it was.
func isKept(t *testing.T, g *recovertest.Guest) bool {
	t.Helper()
	kept := before(t, g)
	if len(kept) != 1 {
		return false
	}
	data, err := os.ReadFile(kept[0])
	recovertest.Must(t, err)
	return string(data) == string(g.Content[g.Disk])
}

// TestADiskThatDiffersIsNowhereACopy: until the old disk is kept in a file of its own, the lost
// inode is the last of it.
func TestADiskThatDiffersIsNowhereACopy(t *testing.T) {
	differing := func(t *testing.T) (h *runtest.Host, g *recovertest.Guest, run string, free func()) {
		h = runtest.SmallHost(t, "2m")
		g = h.Add(1, recovertest.GuestOptions{})
		h.Purge()
		e := h.Engine()
		e.Failpoint = func(point string) {
			switch point {
			case "place.begin":
				spoils(t, g)
			case "compare.failed":
				free = fills(t, g)
			}
		}
		report := executed(t, e, liveOptions(g))
		first, second := free, fills(t, g) // the comparison has let its own room go
		free = func() { first(); second() }
		r := g.Report(report)
		if r.Outcome != recover.OutcomeFailed || free == nil || strings.Contains(r.Error, "proven and on disk") ||
			!strings.Contains(r.Error, "not enough space") || !strings.Contains(r.Error, "held until this host goes down: "+g.Disk) {
			t.Fatalf("%+v", r)
		}
		if i := h.Scan(g); i.Verdict == recover.VerdictIntact || len(i.Superseded) != 1 {
			t.Errorf("a scan says %s: %+v", i.Verdict, i.Superseded)
		}
		return h, g, report.Run, free
	}
	t.Run("resumed", func(t *testing.T) {
		h, g, run, free := differing(t)
		report, err := h.Resume(t.Context(), run)
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome != recover.OutcomeFailed || g.Pinned() == 0 || strings.Contains(r.Error, "proven and on disk") {
			t.Errorf("with no room: pinned %d, %+v", g.Pinned(), r)
		}
		free()
		report, err = h.Resume(t.Context(), run)
		recovertest.Must(t, err)
		r := g.Report(report)
		if r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "beside it") || !isKept(t, g) || g.Pinned() > 0 {
			t.Errorf("pinned %d, kept %v: %+v", g.Pinned(), before(t, g), r)
		}
		if i := h.Scan(g); i.Verdict != recover.VerdictIntact {
			t.Errorf("then a scan says %s: %v", i.Verdict, i.Reasons)
		}
	})
	t.Run("shut off, and resumed", func(t *testing.T) {
		h, g, run, free := differing(t)
		free()
		g.Destroyed()
		report, err := h.Resume(t.Context(), run)
		recovertest.Must(t, err)
		if r := g.Report(report); !isKept(t, g) || !strings.Contains(strings.Join(r.Notes, ";"), "differs from what it was before") {
			t.Errorf("kept %v: %+v", before(t, g), r)
		}
	})
	for name, choice := range map[string]recover.AbandonChoice{"ended by hand, let go": {Release: true}, "ended by hand, kept": {}} {
		t.Run(name, func(t *testing.T) {
			h, g, run, free := differing(t)
			free()
			_, err := h.Abandon(t.Context(), run, choice)
			recovertest.Must(t, err)
			if g.Pinned() == 0 {
				t.Error("the last copy was let go with no word")
			}
			_, err = h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			if i := h.Scan(g); g.Pinned() == 0 || i.Verdict == recover.VerdictIntact {
				t.Errorf("after the next run: pinned %d, %s", g.Pinned(), i.Verdict)
			}
		})
	}
}

// TestARawDiskThatWasNotComparedIsNotLetGo: nothing of it can be checked.
func TestARawDiskThatWasNotComparedIsNotLetGo(t *testing.T) {
	for name, c := range map[string]struct {
		spoil   func(ctx context.Context, h *runtest.Host, stop func()) func(point string)
		outcome recover.Outcome
	}{
		"the export fails": {func(_ context.Context, h *runtest.Host, _ func()) func(string) {
			h.HV.Errs["export"] = recover.ErrUnavailable
			return nil
		}, recover.OutcomeFailed},
		"the comparison dies": {func(_ context.Context, h *runtest.Host, _ func()) func(string) {
			return func(point string) {
				if point == "compare.begin" {
					recovertest.Must(h.T, h.HV.EndExport(h.T.Context(), recovertest.UUID(1)))
				}
			}
		}, recover.OutcomeFailed},
		"it is interrupted": {func(_ context.Context, _ *runtest.Host, stop func()) func(string) {
			return func(point string) {
				if point == "compare.begin" {
					stop()
				}
			}
		}, recover.OutcomeInterrupted},
	} {
		for _, how := range []string{"resumed", "shut off, and resumed", "ended by hand"} {
			t.Run(name+", "+how, func(t *testing.T) {
				h := runtest.NewHost(t)
				g := h.Add(1, recovertest.GuestOptions{})
				h.Purge()
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				e := h.Engine()
				e.Failpoint = c.spoil(ctx, h, stop)
				s, err := e.Prepare(ctx, recover.CommandRescue, liveOptions(g))
				recovertest.Must(t, err)
				report, err := s.Execute(ctx)
				s.Close()
				recovertest.Must(t, err)
				r := g.Report(report)
				if r.Outcome != c.outcome || g.Pinned() == 0 || !strings.Contains(r.Error, "not verified") ||
					!strings.Contains(r.Error, "the keeper holds its lost files") || !strings.Contains(r.Error, "resume "+report.Run) ||
					strings.Contains(strings.Join(r.Notes, ";"), "checked as images") {
					t.Fatalf("pinned %d: %+v", g.Pinned(), r)
				}
				recovertest.Must(t, g.Serving(recover.StateRunning))
				delete(h.HV.Errs, "export")
				switch how {
				case "ended by hand":
					_, err := h.Abandon(t.Context(), report.Run, recover.AbandonChoice{Release: true})
					recovertest.Must(t, err)
					if g.Pinned() == 0 {
						t.Error("it was let go with no word")
					}
					return
				case "shut off, and resumed":
					g.Destroyed()
				}
				report, err = h.Resume(t.Context(), report.Run)
				recovertest.Must(t, err)
				if r := g.Report(report); r.Outcome != recover.OutcomeRescued || !isKept(t, g) || g.Pinned() > 0 {
					t.Errorf("resumed: pinned %d, kept %v: %+v", g.Pinned(), before(t, g), r)
				}
			})
		}
	}
}

// TestARunThatWasKilledBeforeTheProofOfARawDiskKeepsIt, and no other: after a comparison under
// the suspend, and where nobody wants one, there is nothing to keep.
func TestARunThatWasKilledBeforeTheProofOfARawDiskKeepsIt(t *testing.T) {
	first := runtest.NewHost(t)
	for verify, kept := range map[recover.Verify]bool{recover.VerifyRunning: true, recover.VerifyFull: false, recover.VerifyStructure: false} {
		options := func(g *recovertest.Guest) recover.Options {
			o := liveOptions(g)
			o.Verify = verify
			return o
		}
		for _, point := range []string{journal.StepPivot + ".done", journal.StepPublish + ".done", journal.StepConfirm + ".done"} {
			t.Run(string(verify)+" at "+point, func(t *testing.T) {
				name := ""
				if point == journal.StepPublish+".done" {
					name = "disk"
				}
				k := runtest.CrashPoint(t, first, recover.CommandRescue, options, recovertest.GuestOptions{}, point, name)
				h := first.Elsewhere(t)
				g := h.Add(1, recovertest.GuestOptions{})
				h.Purge()
				run, _ := h.CrashAt(recover.CommandRescue, options(g), k)
				report, err := h.Resume(t.Context(), run)
				recovertest.Must(t, err)
				r := g.Report(report)
				if r.Outcome != recover.OutcomeRescued || g.Pinned() > 0 || isKept(t, g) != kept {
					t.Errorf("pinned %d, kept %v: %+v", g.Pinned(), before(t, g), r)
				}
				if want := verify; !kept && r.Verified != want {
					t.Errorf("verified %s", r.Verified)
				}
				h.HV.EndAll()
			})
		}
	}
}
