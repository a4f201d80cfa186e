package run_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

const crashLog = "its QEMU crashed during the run: see /var/log/libvirt/qemu/instance-00000001.log"

// qemuCrashes has a guest's QEMU crash when the run calls that method of the hypervisor.
func qemuCrashes(h *runtest.Host, method string) {
	var once atomic.Bool
	h.HV.Before = func(called, uuid string) {
		if called == method && once.CompareAndSwap(false, true) {
			h.HV.Change(uuid, (*recovertest.FakeDomain).Crash)
		}
	}
}

func TestAGuestWhoseQEMUCrashesBeforeItsDisksAreMovedIsStartedAgain(t *testing.T) {
	for _, c := range []struct {
		mode   recover.Mode
		method string
		found  recover.DomainState
	}{
		{recover.ModeReboot, "freeze", recover.StateRunning},
		{recover.ModeReboot, "suspend", recover.StateRunning},
		{recover.ModeReboot, "xml", recover.StatePaused},
		{recover.ModeLive, "mirror-state", recover.StateRunning},
		{recover.ModeLive, "suspend", recover.StateRunning},
		{recover.ModeLive, "mirror", recover.StatePaused},
	} {
		t.Run(string(c.mode)+", before "+c.method, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b", Agent: true, Console: true, State: c.found})
			h.Purge()
			qemuCrashes(h, c.method)
			o := recovertest.Options(g)
			o.Mode = c.mode
			report, err := h.Run(t.Context(), recover.CommandRescue, o)
			recovertest.Must(t, err)
			r := g.Report(report)
			if r.Outcome != recover.OutcomeRescued || !strings.Contains(strings.Join(r.Notes, "\n"), crashLog) ||
				strings.Contains(strings.Join(r.Notes, "\n"), "powered itself off") {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.Serving(c.found))
		})
	}
}

func TestAGuestWhoseQEMUCrashesAfterTheMoveIsStartedAgainAndItsOldDisksStayHeld(t *testing.T) {
	for method, c := range map[string]struct {
		safe     string
		verified recover.Verify
	}{
		"resume":     {"not compared with the old ones", recover.VerifyStructure},
		"end-export": {"compared in full with the old ones", recover.VerifyRunning},
	} {
		t.Run(method, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b"})
			h.Purge()
			qemuCrashes(h, method)
			o := recovertest.Options(g)
			o.Mode = recover.ModeLive
			report, err := h.Run(t.Context(), recover.CommandRescue, o)
			recovertest.Must(t, err)
			r := g.Report(report)
			if r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "its QEMU crashed: see /var/log/libvirt/qemu/") ||
				!strings.Contains(r.Error, c.safe) || !strings.Contains(r.Error, "held until this host goes down: "+g.Disk) {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.Serving(recover.StateRunning))
			if g.Pinned() == 0 {
				t.Error("its old disk is not held any more")
			}
			h.HV.Before = nil
			report, err = h.Resume(t.Context(), report.Run)
			recovertest.Must(t, err)
			r = g.Report(report)
			if r.Outcome != recover.OutcomeRescued || r.Verified != c.verified || !strings.Contains(strings.Join(r.Notes, "\n"), crashLog) {
				t.Errorf("resumed: %+v", r)
			}
			recovertest.Must(t, g.Serving(recover.StateRunning))
			if g.Pinned() > 0 {
				t.Error("its old disk is still held")
			}
		})
	}
}

// Where the run that saw the crash could not start the guest, a resume does, and says why.
func TestAResumeStartsAGuestWhoseQEMUCrashed(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	h.Purge()
	qemuCrashes(h, "end-export")
	h.HV.Errs["start"] = recover.ErrUnavailable
	o := recovertest.Options(g)
	o.Mode = recover.ModeLive
	report, err := h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "it does not start") {
		t.Fatalf("%+v", r)
	}
	delete(h.HV.Errs, "start")
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.Crashed = false }) // a libvirtd that was restarted does not know
	report, err = h.Resume(t.Context(), report.Run)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued || !strings.Contains(strings.Join(r.Notes, "\n"), crashLog) {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}
