package recover

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

func TestARestartLosesNoHoldAndForgetsNothing(t *testing.T) {
	h := newHost(t)
	v, off := h.add(1, guestOptions{base: "b1", console: true}), h.add(2, guestOptions{state: StateShutOff})
	s := &shelf{files: map[string]*os.File{}}
	g := startGuard(h, GuardOptions{}, s, nil)
	g.awaitScan()
	h.purge()
	before := g.await("the incidents", func(s GuardStatus) bool { return len(s.Incidents) == 2 })
	v.forgotten()
	must(t, g.stop())
	c, err := keeper.Connect(t.Context(), h.settings.StateDir)
	must(t, err)
	holds, err := c.List(t.Context())
	must(t, err)
	c.Close()
	if len(holds) == 0 {
		t.Error("the keeper was given nothing")
	}
	again := startGuard(h, GuardOptions{}, s, s.inherit(t))
	after := again.await("the next life", func(s GuardStatus) bool { return !s.Scanned.IsZero() && len(s.Incidents) == 2 })
	if after.Held.DeletedFiles != before.Held.DeletedFiles || !after.Incidents[0].Since.Equal(before.Incidents[0].Since) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	again.await("the keeper has let go", func(GuardStatus) bool {
		status, err := keeperStatus(t.Context(), h.settings.StateDir)
		must(t, err)
		return len(status.Holds) == 0
	})
	ran, err := h.run(t.Context(), CommandRescue, offlineOf(v, off))
	must(t, err)
	for _, i := range ran.Instances {
		if i.Outcome != OutcomeRescued {
			t.Fatalf("it says %+v", i)
		}
	}
	hasContent(t, v)
	hasContent(t, off)
	again.await("the end", func(s GuardStatus) bool { return s.Held.DeletedFiles == 0 })
	must(t, again.stop())
	for _, f := range s.inherit(t) {
		var st unix.Stat_t
		must(t, unix.Fstat(int(f.Fd()), &st))
		if st.Nlink == 0 {
			t.Errorf("the shelf still has a deleted file, %s", f.Name())
		}
	}
}
