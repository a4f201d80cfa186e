package run_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// renamed moves an instance's directory away, as somebody does who tidies up.
func renamed(t *testing.T, g *recovertest.Guest) string {
	t.Helper()
	recovertest.Must(t, os.Rename(g.Dir, g.Dir+".bak"))
	return g.Dir + ".bak"
}

// linked removes the disk's name, and leaves a hard link beside it.
func linked(t *testing.T, g *recovertest.Guest) string {
	t.Helper()
	other := filepath.Join(g.H.Settings.InstancesPath, "kept")
	recovertest.Must(t, os.Link(g.Disk, other))
	recovertest.Must(t, os.Remove(g.Disk))
	return other
}

func TestAFileThatStillHasANameGetsTheRightOneWhileItsGuestRuns(t *testing.T) {
	for name, c := range map[string]struct {
		lose    func(t *testing.T, g *recovertest.Guest) string
		verdict recover.Verdict
		action  recover.Action
		ask     int // instances that need consent
		stays   bool
	}{
		"its directory was renamed":  {renamed, recover.VerdictDisplaced, recover.ActionMoveBack, 1, false},
		"a hard link of it was left": {linked, recover.VerdictRecoverable, recover.ActionLinkBack, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b", Config: true})
			before, err := os.Stat(g.Disk)
			recovertest.Must(t, err)
			pid := h.HV.Get(g.UUID).PID
			other := c.lose(t, g)
			if v := h.Scan(g).Verdict; v != c.verdict {
				t.Fatalf("scanned: %s", v)
			}
			plan, err := h.Engine().DryRun(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
			recovertest.Must(t, err)
			todo := runtest.PlanOf(t, plan, g.UUID)
			if todo.Action != c.action || len(plan.Disruptive()) != c.ask || !strings.Contains(strings.Join(todo.Steps, "; "), g.Disk+" back") {
				t.Fatalf("planned: %s, %d disturbed, %s %v", todo.Action, len(plan.Disruptive()), todo.Refusal, todo.Steps)
			}
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued || r.PauseSeconds != 0 || r.DowntimeSeconds != 0 {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.Serving(recover.StateRunning))
			recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
			now, err := os.Stat(g.Disk)
			recovertest.Must(t, err)
			if !os.SameFile(before, now) {
				t.Error("it is another file")
			}
			if c.action == recover.ActionMoveBack {
				other += "/disk"
			}
			if _, err := os.Stat(other); c.stays != (err == nil) {
				t.Errorf("the other name: %v", err)
			}
			if v := h.Scan(g).Verdict; v != recover.VerdictIntact {
				t.Errorf("afterwards: %s", v)
			}
		})
	}
}

// TestAMovedBaseBesideADeletedDiskIsMovedBackBeforeTheDiskIsRescued: in both modes, and
// nothing that was moved back is taken back with what is undone after a live rescue.
func TestAMovedBaseBesideADeletedDiskIsMovedBackBeforeTheDiskIsRescued(t *testing.T) {
	for _, mode := range []recover.Mode{recover.ModeReboot, recover.ModeLive} {
		t.Run(string(mode), func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b"})
			base, err := os.Stat(g.Base)
			recovertest.Must(t, err)
			recovertest.Must(t, os.Rename(filepath.Dir(g.Base), filepath.Dir(g.Base)+".old"))
			recovertest.Must(t, os.RemoveAll(g.Dir))
			o := recovertest.OfflineOptions(g)
			o.Mode = mode
			report, err := h.Run(t.Context(), recover.CommandRescue, o)
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.Serving(recover.StateRunning))
			now, err := os.Stat(g.Base)
			recovertest.Must(t, err)
			if !os.SameFile(base, now) {
				t.Error("the base was copied")
			}
			points := runtest.Points(h.Journal(report.Run))
			moved, copied := slices.Index(points, "move-back.done"), slices.Index(points, "publish.begin")
			if moved < 0 || copied >= 0 && moved > copied {
				t.Errorf("moved at %d, published at %d", moved, copied)
			}
		})
	}
}

func TestANameIsGivenBackWhereverTheRunIsKilled(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, g *recovertest.Guest) string{"renamed": renamed, "linked": linked} {
		for k := 1; ; k++ {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b", Config: true})
			pid := h.HV.Get(g.UUID).PID
			before, err := os.Stat(g.Disk)
			recovertest.Must(t, err)
			lose(t, g)
			run, point := h.CrashAt(recover.CommandRescue, recovertest.OfflineOptions(g), k)
			if run == "" {
				break
			}
			if _, err := h.Resume(t.Context(), run); err != nil && point != "run.done" {
				t.Fatalf("%s, killed at %s: %v", name, point, err)
			}
			if err := g.Serving(recover.StateRunning); err != nil {
				t.Fatalf("%s, killed at %s: %v", name, point, err)
			}
			recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
			now, err := os.Stat(g.Disk)
			recovertest.Must(t, err)
			if !os.SameFile(before, now) {
				t.Errorf("%s, killed at %s: it is another file", name, point)
			}
			if v := h.Scan(g).Verdict; v != recover.VerdictIntact {
				t.Errorf("%s, killed at %s: %s", name, point, v)
			}
		}
	}
}

// TestAMovedFileIsMovedBackThoughItsGuestHasEndedMeanwhile: then nobody has it open, and its
// birth tells it.
func TestAMovedFileIsMovedBackThoughItsGuestHasEndedMeanwhile(t *testing.T) {
	for name, other := range map[string]bool{"it is the file": false, "another file has its name by then": true} {
		h := runtest.NewHost(t)
		g := h.Add(1, recovertest.GuestOptions{Base: "b"})
		before, err := os.Stat(g.Disk)
		recovertest.Must(t, err)
		bak := renamed(t, g)
		run, _ := h.CrashIn(recover.CommandRescue, recovertest.OfflineOptions(g), func(e *run.Engine, here func(string)) {
			e.Failpoint = func(point string) {
				if point == "move-back.begin" {
					here(point)
				}
			}
		})
		g.Destroyed()
		if other {
			recovertest.Must(t, os.Rename(bak+"/disk", bak+"/disk.2"))
			recovertest.Must(t, os.WriteFile(bak+"/disk", []byte("another"), 0o600))
		}
		report, err := h.Resume(t.Context(), run)
		recovertest.Must(t, err)
		now, err := os.Stat(g.Disk)
		if back := err == nil && os.SameFile(before, now); back == other {
			t.Errorf("%s: it is back: %v; %+v", name, back, g.Report(report))
		}
		if r := g.Report(report); (r.Outcome == recover.OutcomeRescued) == other {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestAFileIsNotTakenFromAnInstanceThatTheRunIsNotAbout: a disk was moved to where another
// instance, which nobody selected, has its own.
func TestAFileIsNotTakenFromAnInstanceThatTheRunIsNotAbout(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b", NoNova: true})
	other := h.Add(2, recovertest.GuestOptions{NoNova: true})
	recovertest.Must(t, os.Remove(other.Disk))
	recovertest.Must(t, os.Rename(g.Disk, other.Disk))
	plan, err := h.Engine().DryRun(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
	recovertest.Must(t, err)
	if r := runtest.PlanOf(t, plan, g.UUID).Refusal; !strings.Contains(r, other.Disk) || !strings.Contains(r, "link it there") {
		t.Errorf("planned although another instance has it: %q", r)
	}
}

func TestANameThatCantBeGivenBackIsLeftAsItWas(t *testing.T) {
	occupy := func(t *testing.T, g *recovertest.Guest) {
		recovertest.Must(t, os.MkdirAll(g.Dir, 0o755))
		recovertest.Must(t, os.WriteFile(g.Disk, []byte("another"), 0o600))
	}
	for name, c := range map[string]struct {
		lose    func(t *testing.T, g *recovertest.Guest) string
		point   string // when it happens; before the plan if empty
		happens func(t *testing.T, g *recovertest.Guest)
		says    string
	}{
		"something has taken the path of a moved disk":  {renamed, "move-back.begin", occupy, "another file stands there"},
		"something has taken the path of a linked disk": {linked, "link-back.begin", occupy, "another file stands there"},
		"another file has got the name that the disk has": {renamed, "move-back.begin", func(t *testing.T, g *recovertest.Guest) {
			recovertest.Must(t, os.Rename(g.Dir+".bak/disk", g.Dir+".bak/disk.2"))
			recovertest.Must(t, os.WriteFile(g.Dir+".bak/disk", []byte("another"), 0o600))
		}, "not the file that QEMU has open"},
		"the last name of the disk is deleted": {linked, "link-back.begin", func(t *testing.T, g *recovertest.Guest) {
			recovertest.Must(t, os.Remove(filepath.Join(g.H.Settings.InstancesPath, "kept")))
		}, "no such file"},
		"what comes after it fails": {renamed, "confirm.begin", func(t *testing.T, g *recovertest.Guest) {
			recovertest.Must(t, os.Remove(g.Base))
		}, "after its files were put back"},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b", NoNova: true})
			pid := h.HV.Get(g.UUID).PID
			before, err := os.Stat(g.Disk)
			recovertest.Must(t, err)
			other := c.lose(t, g)
			e := h.Engine()
			e.Failpoint = func(point string) {
				if point == c.point {
					c.happens(t, g)
				}
			}
			report := executed(t, e, recovertest.OfflineOptions(g))
			r := g.Report(report)
			if r.Outcome == recover.OutcomeRescued || !strings.Contains(r.Error, c.says) {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
			if now, err := os.Stat(g.Disk); err == nil && os.SameFile(before, now) {
				t.Errorf("it has the name although the run failed: %+v", r)
			}
			if c.point == "confirm.begin" {
				if now, err := os.Stat(filepath.Join(other, "disk")); err != nil || !os.SameFile(before, now) {
					t.Errorf("it was not moved to where it was found: %v", err)
				}
				if _, err := os.Stat(g.Dir); err == nil {
					t.Error("the directory that was made for it is left")
				}
			}
		})
	}
}

func executed(t *testing.T, e *run.Engine, o recover.Options) recover.RunReport {
	t.Helper()
	s, err := e.Prepare(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	defer s.Close()
	report, err := s.Execute(t.Context())
	recovertest.Must(t, err)
	return report
}
