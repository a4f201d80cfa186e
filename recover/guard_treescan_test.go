package recover

import (
	"os"
	"path/filepath"
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

// A live rescue compares by a scratch image beside the disk, which it removes.
func TestAFileOfARunIsNoLossOfTheInstance(t *testing.T) {
	h := newHost(t)
	v := h.add(1, guestOptions{})
	g := startGuard(h, GuardOptions{}, nil, nil)
	g.awaitScan()
	must(t, os.Remove(v.disk))
	g.await("the incident", func(s GuardStatus) bool { return len(s.Incidents) == 1 })
	scratch, other := filepath.Join(v.dir, ".os-rescue-run-vda"), filepath.Join(v.dir, "disk.eph0")
	must(t, os.WriteFile(scratch, []byte("x"), 0o600))
	must(t, os.WriteFile(other, []byte("x"), 0o600))
	g.await("another new file is held", func(GuardStatus) bool { _, held := g.paths()[other]; return held })
	if _, held := g.paths()[scratch]; held {
		t.Error("the run's file is held")
	}
	must(t, os.Remove(scratch))
	ran, err := h.run(t.Context(), CommandRescue, offlineOf(v))
	must(t, err)
	if ran.Instances[0].Outcome != OutcomeRescued {
		t.Fatalf("it says %+v", ran.Instances[0])
	}
	g.await("the end of the incident", func(s GuardStatus) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
}
