package guard_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestARestartLosesNoHoldAndForgetsNothing(t *testing.T) {
	h := runtest.NewHost(t)
	v, off := h.Add(1, recovertest.GuestOptions{Base: "b1", Console: true}), h.Add(2, recovertest.GuestOptions{State: recover.StateShutOff})
	s := recovertest.NewShelf()
	g := startGuard(h, guard.Options{}, s, nil)
	g.awaitScan()
	h.Purge()
	before := g.await("the incidents", func(s guard.Status) bool { return len(s.Incidents) == 2 })
	v.Forgotten()
	recovertest.Must(t, g.stop())
	c, err := keeper.Connect(t.Context(), h.Settings.StateDir)
	recovertest.Must(t, err)
	holds, err := c.List(t.Context())
	recovertest.Must(t, err)
	c.Close()
	if len(holds) == 0 {
		t.Error("the keeper was given nothing")
	}
	again := startGuard(h, guard.Options{}, s, s.Inherit(t))
	after := again.await("the next life", func(s guard.Status) bool { return !s.Scanned.IsZero() && len(s.Incidents) == 2 })
	if after.Held.DeletedFiles != before.Held.DeletedFiles || !after.Incidents[0].Since.Equal(before.Incidents[0].Since) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	ran, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(v, off))
	recovertest.Must(t, err)
	for _, i := range ran.Instances {
		if i.Outcome != recover.OutcomeRescued {
			t.Fatalf("it says %+v", i)
		}
	}
	hasContent(t, v)
	hasContent(t, off)
	again.await("the end", func(s guard.Status) bool { return s.Held.DeletedFiles == 0 && len(keptPaths(h)) == 0 })
	recovertest.Must(t, again.stop())
	for _, f := range s.Inherit(t) {
		var st unix.Stat_t
		recovertest.Must(t, unix.Fstat(int(f.Fd()), &st))
		if st.Nlink == 0 {
			t.Errorf("the shelf still has a deleted file, %s", f.Name())
		}
	}
}
