package recover

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOneDamagedJournalStopsNoOtherCommand(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	dir := stateDir(h.settings.StateDir).run("20200101-000000-0000")
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, journalName), []byte("garbage\n{}\n"), 0o600))
	if i := h.scan(g); i.Verdict != VerdictIntact {
		t.Errorf("%s %v", i.Verdict, i.Reasons)
	}
	h.purge()
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Errorf("%+v", r)
	}
	if _, err := h.runs().all(t.Context()); err != nil {
		t.Errorf("list the runs: %v", err)
	}
}

func TestAReportCanBeMadeAnewFromTheJournal(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	h.purge()
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	again, err := h.runs().report(report.Run)
	must(t, err)
	if a, b := g.report(report), g.report(again); a.Outcome != b.Outcome || len(a.Steps) != len(b.Steps) || a.Bytes != b.Bytes {
		t.Errorf("%+v\n%+v", a, b)
	}
	if _, err := h.runs().report("19990101"); !errors.Is(err, ErrNoRun) {
		t.Errorf("a run that never was: %v", err)
	}
}

func TestTheStatusOfAnInterruptedRunNamesTheLastThingItDid(t *testing.T) {
	h := newHost(t)
	k := crashPoint(t, h, CommandRescue, func(g *testGuest) Options { return options(g) }, guestOptions{}, "suspend.begin", "")
	h = h.elsewhere(t)
	g := h.add(1, guestOptions{})
	h.purge()
	run, _ := h.crashAt(CommandRescue, options(g), k)
	status, err := h.runs().find(run[:len(run)-2])
	must(t, err)
	if status.State != RunInterrupted || len(status.Instances) != 1 || status.Instances[0].Last != "suspend.begin" ||
		status.Instances[0].Outcome != "" {
		t.Errorf("%+v", status)
	}
	steps := status.Instances[0].Steps
	if last := steps[len(steps)-1]; last.Name != stepSuspend || last.State != PhaseBegin || last.Seconds != 0 {
		t.Errorf("%+v", last)
	}
	report, err := h.runs().report(run)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeFailed || !strings.Contains(r.Error, "resume "+run) {
		t.Errorf("%+v", r)
	}
}

func TestOnlyPublishedFilesOfThisBootProveAnything(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b"})
	must(t, os.Remove(g.base))
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if i := h.scan(g); i.Verdict != VerdictIntact {
		t.Fatalf("%s %v", i.Verdict, i.Reasons)
	}
	path := filepath.Join(stateDir(h.settings.StateDir).run(report.Run), journalName)
	data, err := os.ReadFile(path)
	must(t, err)
	boot, err := bootID(procDir)
	must(t, err)
	must(t, os.WriteFile(path, bytes.ReplaceAll(data, []byte(boot), []byte("another-boot")), 0o600))
	if i := h.scan(g); i.Verdict != VerdictConflict {
		t.Errorf("another boot's inode numbers still count: %s", i.Verdict)
	}
	must(t, os.WriteFile(path, data, 0o600))
	// The file was changed since: it is no proof any more.
	must(t, os.WriteFile(g.base, []byte("other"), 0o600))
	if i := h.scan(g); i.Verdict != VerdictConflict {
		t.Errorf("a file that was changed since is still proven: %s", i.Verdict)
	}
}
