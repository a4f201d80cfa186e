package run_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// A resume right after a boot may come before the file system with the copies is mounted.
func TestAResumeBeforeItsFileSystemIsMountedSettlesNothing(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	h.Purge()
	id := crashAtPoint(h, recover.CommandRescue, recovertest.Options(g), "look-again.done")
	h.KillKeeper()
	staging := filepath.Dir(stagedDisk(t, h))
	recovertest.Must(t, os.Rename(staging, staging+".away"))
	report, err := h.Resume(t.Context(), id)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "is its file system mounted?") {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, os.RemoveAll(staging))
	recovertest.Must(t, os.Rename(staging+".away", staging))
	report, err = h.Resume(t.Context(), id)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("when it is mounted: %+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}

// What the guest wrote last is only in the copy that a killed restore made of what was held.
func TestAKilledRestoresCopyOfWhatWasHeldIsNotReplacedByTheBackupAfterABoot(t *testing.T) {
	h, g, disk, dir := keptPaused(t)
	h.HV.Before = func(method, _ string) {
		if method == "destroy" {
			g.Writes(t, disk, 3000, "the last words")
		}
	}
	o := recovertest.Options(g)
	o.BackupDir = dir
	ended := false
	id, _ := h.CrashIn(recover.CommandRestore, o, func(e *run.Engine, here func(string)) {
		e.Failpoint = func(now string) {
			if ended = ended || now == "destroy.done"; ended && now == "publish.begin" {
				here(now)
			}
		}
	})
	if id == "" {
		t.Fatal("nothing is published after the destroy")
	}
	h.HV.Before = nil
	recovertest.Must(t, disk.Close())
	h.KillKeeper()
	report, err := h.Resume(t.Context(), id)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}

// What is left of a copy that was proven is named as what it is.
func TestAProvenCopyThatWasDamagedOrRemovedIsNotCalledUnfinished(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		befalls func(t *testing.T, place string)
		says    string
	}{
		"damaged": {func(t *testing.T, place string) { writeAt(t, place, 5000, "another") }, "%s is kept, and is not what was proven"},
		"removed": {func(t *testing.T, place string) { recovertest.Must(t, os.Remove(place)) }, "its copy %s is not there"},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b"})
			h.Purge()
			id := crashAtPoint(h, recover.CommandRescue, recovertest.Options(g), "look-again.done")
			h.KillKeeper()
			place := stagedDisk(t, h)
			c.befalls(t, place)
			report, err := h.Resume(t.Context(), id)
			recovertest.Must(t, err)
			r := g.Report(report)
			if r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, fmt.Sprintf(c.says, place)) ||
				strings.Contains(r.Error, "not finished") {
				t.Errorf("%+v", r)
			}
			if _, err := os.Lstat(g.Disk); err == nil {
				t.Error("it was published")
			}
		})
	}
}
