package run_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/recover/scan"
)

// twoDisks is a running guest with two disks that nothing but their names tells apart, and
// what moves them away and removes them there.
func twoDisks(h *runtest.Host) (g *recovertest.Guest, lose func()) {
	t := h.T
	g = h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	second := filepath.Join(g.Dir, "disk.eph0")
	recovertest.Must(t, os.WriteFile(second, recovertest.Payload(78, 96<<10), 0o600))
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) {
		d.Disks = append(d.Disks, recover.Disk{Target: "vdb", Device: "disk", ChainKnown: true,
			Chain: []recover.Image{{Source: recover.SourceFile, Path: second, Format: "raw"}}})
	})
	recovertest.Must(t, h.HV.Start(t.Context(), g.UUID, false))
	info, err := scan.DiskInfoContent(scan.DiskInfo(h.HV.Get(g.UUID).Domain, h.Settings.InstancesPath))
	recovertest.Must(t, err)
	recovertest.Must(t, os.WriteFile(filepath.Join(g.Dir, recover.DiskInfoName), []byte(info), 0o600))
	away := filepath.Join(filepath.Dir(h.Settings.InstancesPath), "away")
	recovertest.Must(t, os.Mkdir(away, 0o755))
	return g, func() {
		for n, path := range []string{g.Disk, second} {
			to := filepath.Join(away, string(rune('a'+n)))
			if err := os.Rename(path, to); err != nil {
				t.Error(err)
			}
			if err := os.Remove(to); err != nil {
				t.Error(err)
			}
		}
	}
}

// Which of its deleted files is which disk nobody knows, and that is no permission.
func TestRebootNeverEndsAQEMUWhoseDeletedFilesNobodyCanMatch(t *testing.T) {
	check := func(t *testing.T, h *runtest.Host, g *recovertest.Guest, report recover.RunReport, pid int) {
		t.Helper()
		if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "unknown by now") {
			t.Fatalf("%+v", r)
		}
		recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
		recovertest.Must(t, h.Cloud.In(g.UUID, recover.VMActive, false, 0))
	}
	t.Run("lost while Nova answers 409", func(t *testing.T) {
		h := runtest.NewHost(t)
		g, lose := twoDisks(h)
		h.Online()
		pid := h.HV.Get(g.UUID).PID
		h.Cloud.Once["HardReboot"] = []error{recover.ErrTaskUnderWay}
		h.Cloud.Point = func(point string) {
			if point == "after HardReboot" {
				lose()
			}
		}
		report, err := h.Run(t.Context(), recover.CommandReboot, rebootAll())
		recovertest.Must(t, err)
		check(t, h, g, report, pid)
	})
	t.Run("lost between a kill and its resume", func(t *testing.T) {
		h := runtest.NewHost(t)
		g, lose := twoDisks(h)
		h.Online()
		pid := h.HV.Get(g.UUID).PID
		id, _ := h.CrashIn(recover.CommandReboot, rebootAll(), func(e *run.Engine, here func(string)) {
			e.Failpoint = func(point string) {
				if point == "reboot.begin" {
					here(point)
				}
			}
		})
		lose()
		report, err := h.Resume(t.Context(), id)
		recovertest.Must(t, err)
		check(t, h, g, report, pid)
	})
}
