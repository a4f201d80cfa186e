package run_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// The keeper has the disk of a guest that somebody has started on an older copy: no command
// says that nothing is lost, and none lets the disk go. Shut off, it comes back.
func TestADiskOfTheKeepersIsNotForgottenForAnOlderCopy(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	disk := g.Opened(t)
	old, err := os.ReadFile(g.Disk)
	recovertest.Must(t, err)
	g.Writes(t, disk, 10, "newer")
	disk.Close()
	g.Rm()
	interrupted, point := h.CrashAt(recover.CommandRescue, recovertest.Options(g), 12)
	recovertest.Must(t, os.MkdirAll(g.Dir, 0o755))
	recovertest.Must(t, os.WriteFile(g.Disk, old, 0o600))
	if h.HV.Get(g.UUID).PID != 0 {
		g.Destroyed()
	}
	recovertest.Must(t, h.HV.Start(t.Context(), g.UUID, false))

	disputed := func(after string) {
		t.Helper()
		if i := h.Scan(g); i.Verdict != recover.VerdictConflict || len(i.Superseded) != 1 || g.Pinned() == 0 {
			t.Fatalf("after %s: it is %s, the keeper holds %d: %q", after, i.Verdict, g.Pinned(), i.Reasons)
		}
		r, err := check.Make(t.Context(), check.SourcesOf(h.Settings, h.ScanAll), check.Options{})
		recovertest.Must(t, err)
		if !slices.ContainsFunc(r.Findings, func(f check.Finding) bool { return f.Kind == check.FindingReplaced && f.Level == check.Critical }) {
			t.Errorf("after %s: %+v", after, r.Findings)
		}
	}
	disputed("a crash at " + point)
	report, err := h.Resume(t.Context(), interrupted)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome == recover.OutcomeRescued || r.Outcome == recover.OutcomeIntact {
		t.Errorf("the resume: %+v", r)
	}
	disputed("a resume")
	_, err = h.Abandon(t.Context(), interrupted, recover.AbandonChoice{})
	recovertest.Must(t, err)
	disputed("the end of that run")
	report, err = h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "keeper release") {
		t.Errorf("another run: %+v", r)
	}
	disputed("another run")

	g.Destroyed()
	o := recovertest.Options(g)
	o.ReplaceExisting = true
	report, err = h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("the word of an operator: %+v", r)
	}
	delete(g.Content, g.Dir+"/"+recover.DiskInfoName)
	recovertest.Must(t, g.Back())
}

// A lost disk that is held on after a run has put it back is no reason to doubt the copy.
func TestAProvenCopySupersedesWhatIsHeld(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	disk, err := os.Open(g.Disk)
	recovertest.Must(t, err)
	defer disk.Close()
	lost := h.Scan(g).Files[0]
	g.Rm()
	_, err = h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	c, err := keeper.Start(t.Context(), keeper.Options{Dir: h.Settings.StateDir, Command: h.Settings.KeeperCommand})
	recovertest.Must(t, err)
	defer c.Close()
	meta, err := json.Marshal(pin.Meta{Path: g.Disk, Role: recover.RoleDisk, Run: "an earlier one"})
	recovertest.Must(t, err)
	recovertest.Must(t, c.Hold(t.Context(), g.UUID, lost.Identity().Key(), meta, disk))
	if i := h.Scan(g); i.Verdict != recover.VerdictIntact || g.Pinned() != 1 {
		t.Errorf("it is %s: %q", i.Verdict, i.Reasons)
	}
}
