package runs_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/procfs"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

func TestOneDamagedJournalStopsNoOtherCommand(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	dir := statedir.Dir(h.Settings.StateDir).Run("20200101-000000-0000")
	recovertest.Must(t, os.MkdirAll(dir, 0o700))
	recovertest.Must(t, os.WriteFile(filepath.Join(dir, journal.FileName), []byte("garbage\n{}\n"), 0o600))
	if i := h.Scan(g); i.Verdict != recover.VerdictIntact {
		t.Errorf("%s %v", i.Verdict, i.Reasons)
	}
	h.Purge()
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	if _, err := h.Runs().All(t.Context()); err != nil {
		t.Errorf("list the runs: %v", err)
	}
}

func TestAReportCanBeMadeAnewFromTheJournal(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	h.Purge()
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	again, err := h.Runs().Report(report.Run)
	recovertest.Must(t, err)
	if a, b := g.Report(report), g.Report(again); a.Outcome != b.Outcome || len(a.Steps) != len(b.Steps) || a.Bytes != b.Bytes {
		t.Errorf("%+v\n%+v", a, b)
	}
	if _, err := h.Runs().Report("19990101"); !errors.Is(err, recover.ErrNoRun) {
		t.Errorf("a run that never was: %v", err)
	}
}

func TestTheStatusOfAnInterruptedRunNamesTheLastThingItDid(t *testing.T) {
	h := runtest.NewHost(t)
	options := func(g *recovertest.Guest) recover.Options { return recovertest.Options(g) }
	k := runtest.CrashPoint(t, h, recover.CommandRescue, options, recovertest.GuestOptions{}, "suspend.begin", "")
	h = h.Elsewhere(t)
	g := h.Add(1, recovertest.GuestOptions{})
	h.Purge()
	run, _ := h.CrashAt(recover.CommandRescue, recovertest.Options(g), k)
	status, err := h.Runs().Find(run[:len(run)-2])
	recovertest.Must(t, err)
	if status.State != recover.RunInterrupted || len(status.Instances) != 1 || status.Instances[0].Last != "suspend.begin" ||
		status.Instances[0].Outcome != "" {
		t.Errorf("%+v", status)
	}
	steps := status.Instances[0].Steps
	if last := steps[len(steps)-1]; last.Name != journal.StepSuspend || last.State != recover.PhaseBegin || last.Seconds != 0 {
		t.Errorf("%+v", last)
	}
	report, err := h.Runs().Report(run)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeInterrupted || !strings.Contains(r.Error, "resume "+run) {
		t.Errorf("%+v", r)
	}
}

func TestOnlyPublishedFilesOfThisBootProveAnything(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	recovertest.Must(t, os.Remove(g.Base))
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if i := h.Scan(g); i.Verdict != recover.VerdictIntact {
		t.Fatalf("%s %v", i.Verdict, i.Reasons)
	}
	path := filepath.Join(statedir.Dir(h.Settings.StateDir).Run(report.Run), journal.FileName)
	data, err := os.ReadFile(path)
	recovertest.Must(t, err)
	boot, err := procfs.BootID(procfs.Dir)
	recovertest.Must(t, err)
	recovertest.Must(t, os.WriteFile(path, bytes.ReplaceAll(recovertest.OldJournal(data), []byte(boot), []byte("another-boot")), 0o600))
	if i := h.Scan(g); i.Verdict != recover.VerdictConflict {
		t.Errorf("another boot's inode numbers still count: %s", i.Verdict)
	}
	recovertest.Must(t, os.WriteFile(path, data, 0o600))
	// The file was changed since: it is no proof any more.
	recovertest.Must(t, os.WriteFile(g.Base, []byte("other"), 0o600))
	if i := h.Scan(g); i.Verdict != recover.VerdictConflict {
		t.Errorf("a file that was changed since is still proven: %s", i.Verdict)
	}
}
