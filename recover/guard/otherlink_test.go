package guard_test

import (
	"os"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// What a scan of the command line says, which sees the guard's descriptors in /proc.
func TestADiskOfAGuestThatIsOffWhoseOtherLinkIsLeftIsLinkedBack(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	recovertest.Must(t, os.Link(g.Disk, h.Settings.InstancesPath+"/spare"))
	guarding := startGuard(h, guard.Options{}, nil, nil)
	guarding.await("the disk is held", func(guard.Status) bool { _, held := guarding.paths()[g.Disk]; return held })
	recovertest.Must(t, os.Remove(g.Disk))
	s := guarding.await("it is seen", func(s guard.Status) bool {
		i := s.Report.Instances
		return len(i) == 1 && i[0].Verdict == recover.VerdictRecoverable && i[0].Files[0].Path == g.Disk
	})
	if f := s.Report.Instances[0].Files[0]; f.Remedy != recover.RemedyLinkBack || s.Report.Instances[0].Verdict != recover.VerdictRecoverable {
		t.Errorf("%s, %s: %s", s.Report.Instances[0].Verdict, f.Remedy, f.Reason)
	}
	if i := h.Scan(g); i.Verdict != s.Report.Instances[0].Verdict {
		t.Errorf("a scan says %s", i.Verdict)
	}
}
