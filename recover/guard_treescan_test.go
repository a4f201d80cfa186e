package recover

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestAGuardNoticesADeletionAtOnceWhateverLibvirtDoes(t *testing.T) {
	h := newHost(t)
	v := h.add(1, guestOptions{base: "b1", console: true})
	hang := make(chan struct{})
	var hanging atomic.Bool
	h.hv.before = func(string, string) {
		if hanging.Load() {
			<-hang
		}
	}
	defer close(hang)
	g := startGuard(h, GuardOptions{Interval: time.Hour}, nil, nil)
	g.awaitScan()
	hanging.Store(true)
	deleted := time.Now()
	h.purge()
	s := g.await("the incident", func(s GuardStatus) bool { return len(s.Incidents) == 1 && len(s.Incidents[0].Paths) >= 3 })
	if took := time.Since(deleted); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	if i := s.Incidents[0]; i.UUID != v.uuid || i.Found != StateRunning || i.Bytes == 0 {
		t.Errorf("it says %+v", i)
	}
	if got := s.Report.Instances[0].Verdict; got != VerdictRecoverable {
		t.Errorf("its report says %s", got)
	}
	if n := strings.Count(g.log.String(), "files of an instance were deleted"); n != 1 {
		t.Errorf("it was said %d times:\n%s", n, g.log)
	}
}
