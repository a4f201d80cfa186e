package guard_test

import (
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestUnderTheFloorOnlyWhatNobodyNeedsIsLetGo(t *testing.T) {
	h := runtest.NewHost(t)
	needed, unneeded := h.Add(1, recovertest.GuestOptions{}), h.Add(2, recovertest.GuestOptions{})
	g := startGuard(h, guard.Options{Grace: time.Hour}, nil, nil)
	g.awaitScan()
	needed.Rm()
	g.await("the incident", func(s guard.Status) bool { return len(s.Incidents) == 1 })
	unneeded.Destroyed()
	g.await("it is off", func(s guard.Status) bool {
		return s.Report.Instances[0].State == recover.StateShutOff || s.Report.Instances[1].State == recover.StateShutOff
	})
	unneeded.Forgotten()
	g.awaitUndefined(unneeded)
	unneeded.Rm()
	g.await("both are held", func(s guard.Status) bool { return s.Held.DeletedFiles >= 2 })
	g.Configure(guard.Options{Grace: time.Hour, MinFree: 1, Interval: 100 * time.Millisecond})
	s := g.await("it makes room", func(s guard.Status) bool { return s.Released[keeper.ReleasedSpace] > 0 && len(s.Problems) > 0 })
	time.Sleep(500 * time.Millisecond)
	// What nobody can say anything of is held, whatever the room.
	unsure := h.Add(3, recovertest.GuestOptions{State: recover.StateShutOff})
	g.await("it is held", func(guard.Status) bool { _, ok := g.paths()[unsure.Disk]; return ok })
	unsure.Rm()
	unsure.Forgotten()
	time.Sleep(time.Second)
	if p := g.paths(); !p[needed.Disk] || p[unneeded.Disk] || !p[unsure.Disk] {
		t.Errorf("it holds %v", p)
	}
	if !strings.Contains(strings.Join(s.Problems, ";"), "make room") {
		t.Errorf("it says %v", s.Problems)
	}
}
