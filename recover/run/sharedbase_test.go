package run_test

import (
	"os"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// The base of an instance that is off is open in the QEMU of another one.
func TestABaseThatAnotherInstanceHasOpenIsPutBackForOneThatIsOff(t *testing.T) {
	h := runtest.NewHost(t)
	off := h.Add(1, recovertest.GuestOptions{Base: "b", State: recover.StateShutOff})
	other := h.Add(2, recovertest.GuestOptions{Base: "b"})
	recovertest.Must(t, os.Remove(off.Base))
	if v := h.Scan(off).Verdict; v != recover.VerdictRecoverable {
		t.Fatalf("it is %s", v)
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(off))
	recovertest.Must(t, err)
	if r := off.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, off.Back())
	if st, err := os.Stat(off.Base); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", st, err)
	}
	for _, g := range []*recovertest.Guest{off, other} {
		if v := h.Scan(g).Verdict; v != recover.VerdictIntact {
			t.Errorf("%s is %s afterwards", g.UUID, v)
		}
	}
}

// What stands at the base's path is none while another instance has the deleted one open.
func TestAStrangerAtTheBasesPathIsNoBaseOfAnInstanceThatIsOff(t *testing.T) {
	h := runtest.NewHost(t)
	off := h.Add(1, recovertest.GuestOptions{Base: "b", State: recover.StateShutOff})
	other := h.Add(2, recovertest.GuestOptions{Base: "b"})
	recovertest.Must(t, os.Remove(off.Base))
	recovertest.Must(t, os.WriteFile(off.Base, []byte("another"), 0o600))
	if v := h.Scan(off).Verdict; v != recover.VerdictConflict {
		t.Errorf("it is %s", v)
	}
	other.Destroyed() // and now nobody can know
	if v := h.Scan(off).Verdict; v != recover.VerdictIntact {
		t.Errorf("it is %s when nobody has the base open", v)
	}
}

func TestARunThatRefusesLeavesDirectoriesAsTheyAre(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	recovertest.Must(t, os.Remove(g.Base))
	recovertest.Must(t, os.WriteFile(g.Base, []byte("another"), 0o600))
	directoriesOfNobody(h)
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeSkipped {
		t.Fatalf("%+v", r)
	}
	if uid := ownerOf(t, h.Settings.InstancesPath); uid != 0 {
		t.Errorf("%s is %d's now", h.Settings.InstancesPath, uid)
	}
}
