package run_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// inError is a host whose only guest has all its files, is in ERROR, and has no domain: a
// hard reboot has failed.
func inError(t *testing.T) (*runtest.Host, *recovertest.Guest) {
	t.Helper()
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Config: true})
	h.Online()
	g.Forgotten()
	h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { s.To(recover.VMError) })
	return h, g
}

func TestAWholeInstanceWithoutADomainIsTakenByAReboot(t *testing.T) {
	h, g := inError(t)
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeIntact || !strings.Contains(strings.Join(report.Warnings, "\n"), "--state ERROR") {
		t.Errorf("a rescue: %+v, %v", r, report.Warnings)
	}
	o := recover.Options{Selection: recover.Selection{All: true}, Reboot: recover.RebootOptions{States: []string{"ERROR"}}}
	report, err = h.Run(t.Context(), recover.CommandReboot, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
	recovertest.Must(t, h.Cloud.In(g.UUID, recover.VMActive, false, 1))
}

// Its files are deleted after the plan: Nova would find no disk.
func TestAnInstanceWithoutADomainThatLosesItsFilesIsNotRebooted(t *testing.T) {
	h, g := inError(t)
	o := recover.Options{Selection: recover.Selection{All: true}, Reboot: recover.RebootOptions{States: []string{"ERROR"}}}
	s, err := h.Engine().Prepare(t.Context(), recover.CommandReboot, o)
	recovertest.Must(t, err)
	defer s.Close()
	recovertest.Must(t, os.Remove(g.Disk))
	report, err := s.Execute(t.Context())
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || h.Cloud.Called("HardReboot", "") > 0 {
		t.Errorf("%+v", r)
	}
}

func TestARestoreLeavesAWholeInstanceWithoutADomainAlone(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	o := recovertest.Options(g)
	o.BackupDir = filepath.Join(t.TempDir(), "b")
	_, err := h.Run(t.Context(), recover.CommandBackup, o)
	recovertest.Must(t, err)
	h.Online()
	g.Forgotten()
	h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { s.To(recover.VMError) })
	report, err := h.Run(t.Context(), recover.CommandRestore, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeIntact || !strings.Contains(strings.Join(report.Warnings, "\n"), "--state ERROR") {
		t.Errorf("%+v, %v", r, report.Warnings)
	}
}
