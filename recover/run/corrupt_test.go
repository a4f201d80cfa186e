package run_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/manifest"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// The image has been corrupt for long, and no later run will find it whole.
func TestACorruptImageHasAWayOn(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{NoNova: true, State: recover.StateShutOff})
	recovertest.Must(t, os.Remove(g.Disk))
	recovertest.CreateQcow2(t, g.Disk, "1M")
	recovertest.Corrupt(t, g.Disk)
	data, err := os.ReadFile(g.Disk)
	recovertest.Must(t, err)
	g.Content[g.Disk] = data
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.Disks[0].Chain[0].Format = "qcow2" })
	recovertest.Must(t, h.HV.Start(t.Context(), g.UUID, false))
	pid := h.HV.Get(g.UUID).PID
	h.Purge()
	says := func(what, text string, words ...string) {
		t.Helper()
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("%s: nothing about %q in %q", what, word, text)
			}
		}
	}

	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	r := g.Report(report)
	says("a rescue", r.Error, recover.ErrCorrupt.Error(), "Nothing was destroyed", "--mode live", "os-rescue backup")
	if r.Outcome != recover.OutcomeFailed || strings.Contains(r.Error, "When the cause is gone") {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))

	dir, report := backUp(h, t, nil, g)
	r = g.Report(report)
	says("a backup", strings.Join(r.Notes, "; "), g.Disk, "is corrupt", "equals it to the byte")
	m, err := manifest.Read(dir, "")
	recovertest.Must(t, err)
	for _, f := range m.Instances[0].Files {
		if (f.Corrupt != "") != (f.Path == g.Disk) {
			t.Errorf("%s: %q", f.Path, f.Corrupt)
		}
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))

	o := recovertest.Options(g)
	o.BackupDir, o.NoReboot, o.AcceptOlder = dir, true, true
	says("a restore", h.Planned(g, recover.CommandRestore, o).Refusal, "was corrupt when it was backed up", "--mode live")
	h.KillKeeper()
	h.HV.Change(g.UUID, (*recovertest.FakeDomain).Off)
	report, err = h.Run(t.Context(), recover.CommandRestore, o)
	recovertest.Must(t, err)
	r = g.Report(report)
	says("a restore of what is off", strings.Join(r.Notes, "; "), "put back as it was backed up", "corrupt")
	if got, err := os.ReadFile(g.Disk); err != nil || !bytes.Equal(got, data) || r.Outcome != recover.OutcomeRescued {
		t.Errorf("%v, %d bytes; %+v", err, len(got), r)
	}
}
