package run_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/recover/scan"
)

// onOverlay is a running guest that writes an overlay on its disk, as after an external
// snapshot. Its definition names the overlay too.
func onOverlay(h *runtest.Host) (g *recovertest.Guest, overlay string) {
	t := h.T
	g = h.Add(1, recovertest.GuestOptions{Base: "b", State: recover.StateShutOff})
	overlay = filepath.Join(g.Dir, "disk.snap1")
	g.Content[overlay] = recovertest.Payload(77, 96<<10)
	recovertest.Must(t, os.WriteFile(overlay, g.Content[overlay], 0o600))
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) {
		top := recover.Image{Source: recover.SourceFile, Path: overlay, Format: "raw"}
		d.Disks[0].Chain = append([]recover.Image{top}, d.Disks[0].Chain...)
	})
	recovertest.Must(t, h.HV.Start(t.Context(), g.UUID, false))
	info, err := scan.DiskInfoContent(scan.DiskInfo(h.HV.Get(g.UUID).Domain, h.Settings.InstancesPath))
	recovertest.Must(t, err)
	g.Content[filepath.Join(g.Dir, recover.DiskInfoName)] = []byte(info)
	return g, overlay
}

// redefine gives the guest's first disk another file in the persistent definition.
func redefine(h *runtest.Host, g *recovertest.Guest, path string) {
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) {
		d.Defined = &recover.Definition{Disks: []recover.Disk{{Target: "vda", Device: "disk",
			Chain: []recover.Image{{Source: recover.SourceFile, Path: path, Format: "raw"}}}}}
	})
}

func hasAll(text string, words ...string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
}

func TestNothingIsDestroyedThatWouldComeBackOnAnotherFile(t *testing.T) {
	for name, c := range map[string]struct {
		online bool
		named  bool // the definition names the overlay as well
		mode   recover.Mode
		o      func(*recover.Options)
		want   recover.Outcome
	}{
		"through libvirt": {mode: recover.ModeReboot, want: recover.OutcomeSkipped},
		"through libvirt, and it is to stay off": {mode: recover.ModeReboot, want: recover.OutcomeSkipped,
			o: func(o *recover.Options) { o.NoReboot = true }},
		"through Nova":             {online: true, named: true, mode: recover.ModeReboot, want: recover.OutcomeSkipped},
		"live":                     {mode: recover.ModeLive, want: recover.OutcomeRescued},
		"live if that is possible": {mode: recover.ModeAuto, want: recover.OutcomeRescued},
		"live, with Nova":          {online: true, named: true, mode: recover.ModeAuto, want: recover.OutcomeRescued},
		"through libvirt, whose definition is up": {named: true, mode: recover.ModeReboot, want: recover.OutcomeRescued},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g, overlay := onOverlay(h)
			if !c.named {
				redefine(h, g, g.Disk)
			}
			if c.online {
				h.Online()
			}
			pid := h.HV.Get(g.UUID).PID
			h.Purge()
			o := recovertest.Options(g)
			o.Mode, o.Offline = c.mode, !c.online
			if c.o != nil {
				c.o(&o)
			}
			report, err := h.Run(t.Context(), recover.CommandRescue, o)
			recovertest.Must(t, err)
			r := g.Report(report)
			if r.Outcome != c.want {
				t.Fatalf("%+v", r)
			}
			if c.want == recover.OutcomeSkipped {
				if !hasAll(r.Error, overlay, g.Disk, "--mode live", "blockcommit", "--base "+g.Disk) {
					t.Errorf("the refusal does not say enough: %s", r.Error)
				}
				if n := h.HV.Called("suspend", g.UUID) + h.HV.Called("destroy", g.UUID); n > 0 {
					t.Error("it was touched")
				}
				recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
				return
			}
			if d := h.HV.Get(g.UUID); d.Disks[0].Chain[0].Path != overlay {
				t.Errorf("it runs on %s", d.Disks[0].Chain[0].Path)
			}
			notes := strings.Join(r.Notes, "; ")
			if !hasAll(notes, overlay, g.Disk, "blockcommit") {
				t.Errorf("nothing is said of its next start: %q", notes)
			}
			recovertest.Must(t, g.Back())
			if i := h.Scan(g); i.Verdict != recover.VerdictConflict || !i.IsWhole() {
				t.Errorf("afterwards it is %s: %v", i.Verdict, i.Reasons)
			}
		})
	}
}

func TestWhatIsDestroyedOfNobodyGoesOnWhateverTheNextStartOpens(t *testing.T) {
	t.Run("its base is put back", func(t *testing.T) {
		h := runtest.NewHost(t)
		g, overlay := onOverlay(h)
		redefine(h, g, g.Disk)
		recovertest.Must(t, os.Remove(g.Base))
		report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued || !hasAll(strings.Join(r.Notes, "; "), overlay, g.Disk) {
			t.Errorf("%+v", r)
		}
	})
	t.Run("it is backed up", func(t *testing.T) {
		h := runtest.NewHost(t)
		g, overlay := onOverlay(h)
		redefine(h, g, g.Disk)
		h.Purge()
		_, report := backUp(h, t, nil, g)
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued || !hasAll(strings.Join(r.Notes, "; "), overlay, g.Disk) {
			t.Errorf("%+v", r)
		}
	})
	t.Run("nothing is lost", func(t *testing.T) {
		h := runtest.NewHost(t)
		g, overlay := onOverlay(h)
		redefine(h, g, g.Disk)
		pid := h.HV.Get(g.UUID).PID
		report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || !hasAll(r.Error, overlay, g.Disk, "in place") {
			t.Errorf("%+v", r)
		}
		recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
	})
	t.Run("os-rescue reboot", func(t *testing.T) {
		h := runtest.NewHost(t)
		g, overlay := onOverlay(h)
		h.Online()
		report, err := h.Run(t.Context(), recover.CommandReboot, rebootAll())
		recovertest.Must(t, err)
		r := g.Report(report)
		if r.Outcome != recover.OutcomeSkipped || !hasAll(r.Error, overlay, g.Disk, "blockcommit") ||
			strings.Contains(r.Error, "rescue it first") {
			t.Errorf("%+v", r)
		}
		recovertest.Must(t, h.Cloud.In(g.UUID, recover.VMActive, false, 0))
	})
}

// Somebody redefines it after the plan was made.
func TestADefinitionThatChangesDuringARunIsNoticedBeforeTheDestroy(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	pid := h.HV.Get(g.UUID).PID
	other := filepath.Join(h.Settings.InstancesPath, "other")
	recovertest.Must(t, os.WriteFile(other, []byte("other"), 0o600))
	h.Purge()
	h.HV.Before = func(method, uuid string) {
		if method == "suspend" {
			redefine(h, g, other)
		}
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || !hasAll(r.Error, g.Disk, other, "Nothing was destroyed") {
		t.Errorf("%+v", r)
	}
	if h.HV.Called("destroy", g.UUID) > 0 {
		t.Error("it was destroyed")
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
}

// Nothing could foresee it: the last look was before.
func TestAGuestThatWasStartedOnAnotherFileIsAFailure(t *testing.T) {
	for name, online := range map[string]bool{"through libvirt": false, "through Nova": true} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b"})
			other := filepath.Join(h.Settings.InstancesPath, "other")
			if online {
				h.Online()
			}
			h.Purge()
			h.HV.Before = func(method, _ string) {
				if method == "destroy" {
					recovertest.Must(t, os.WriteFile(other, []byte("other"), 0o600))
					redefine(h, g, other)
				}
			}
			o := recovertest.Options(g)
			o.Offline = !online
			report, err := h.Run(t.Context(), recover.CommandRescue, o)
			recovertest.Must(t, err)
			r := g.Report(report)
			if r.Outcome != recover.OutcomeFailed || !hasAll(r.Error, "another file", other, "the proven copy stands at "+g.Disk) {
				t.Errorf("%+v", r)
			}
			if data, err := os.ReadFile(g.Disk); err != nil || string(data) != string(g.Content[g.Disk]) {
				t.Errorf("the copy is not at its path: %v", err)
			}
		})
	}
}

// The guest ends while its definition names what lies below its overlay: the guard or the
// keeper holds what it wrote.
func TestAGuestThatEndedOnAnOverlayIsNotStartedOnWhatLiesBelow(t *testing.T) {
	h := runtest.NewHost(t)
	g, overlay := onOverlay(h)
	redefine(h, g, g.Disk)
	h.Purge()
	o := recovertest.Options(g)
	o.Mode = recover.ModeReboot
	report, err := h.Run(t.Context(), recover.CommandRescue, o) // refused, and pinned
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeSkipped {
		t.Fatalf("%+v", r)
	}
	g.Destroyed()
	i := h.Scan(g)
	if i.Verdict != recover.VerdictConflict || !hasAll(strings.Join(i.Reasons, "; "), overlay, g.Disk) {
		t.Errorf("%s: %v", i.Verdict, i.Reasons)
	}
	report, err = h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	r := g.Report(report)
	if r.Outcome != recover.OutcomeRescued || !hasAll(strings.Join(r.Notes, "; "), overlay, g.Disk) {
		t.Errorf("%+v", r)
	}
	if d := h.HV.Get(g.UUID); d.QEMU != nil {
		t.Error("it was started")
	}
	delete(g.Content, filepath.Join(g.Dir, recover.DiskInfoName)) // made anew, from what the definition names
	recovertest.Must(t, g.Back())
}

// What a start would open is in the image.
func TestAGuestWhoseSavedMemoryCantBeReadIsUnknown(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	if i := h.Scan(g); i.Verdict != recover.VerdictIntact {
		t.Fatalf("it is %s: %v", i.Verdict, i.Reasons)
	}
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.SavedUnread = "the image is truncated" })
	i := h.Scan(g)
	if said := strings.Join(append(i.Reasons, i.Possible...), "\n"); i.Verdict != recover.VerdictUnknown ||
		!strings.Contains(said, "the image is truncated") || !strings.Contains(said, "managedsave-remove") {
		t.Errorf("it is %s: %s", i.Verdict, said)
	}
}
