package recover

import (
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

func TestUnderTheFloorOnlyWhatNobodyNeedsIsLetGo(t *testing.T) {
	h := newHost(t)
	needed, unneeded := h.add(1, guestOptions{}), h.add(2, guestOptions{})
	g := startGuard(h, GuardOptions{Grace: time.Hour}, nil, nil)
	g.awaitScan()
	needed.rm()
	g.await("the incident", func(s GuardStatus) bool { return len(s.Incidents) == 1 })
	unneeded.destroyed()
	g.await("it is off", func(s GuardStatus) bool {
		return s.Report.Instances[0].State == StateShutOff || s.Report.Instances[1].State == StateShutOff
	})
	unneeded.forgotten()
	unneeded.rm()
	g.await("both are held", func(s GuardStatus) bool { return s.Held.DeletedFiles >= 2 })
	g.Configure(GuardOptions{Grace: time.Hour, MinFree: 1, Interval: 100 * time.Millisecond})
	s := g.await("it makes room", func(s GuardStatus) bool { return s.Released[keeper.ReleasedSpace] > 0 && len(s.Problems) > 0 })
	time.Sleep(500 * time.Millisecond)
	if p := g.paths(); !p[needed.disk] || p[unneeded.disk] {
		t.Errorf("it holds %v", p)
	}
	if !strings.Contains(strings.Join(s.Problems, ";"), "make room") {
		t.Errorf("it says %v", s.Problems)
	}
}
