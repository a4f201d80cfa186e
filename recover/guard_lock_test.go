package recover

import (
	"strings"
	"testing"
	"time"
)

func TestAffectedInstancesAreLockedAtOnceAndUnlockedWhenTheyAreBack(t *testing.T) {
	h := newHost(t)
	v, theirs := h.add(1, guestOptions{}), h.add(2, guestOptions{})
	h.online()
	h.cloud.change(theirs.uuid, func(s *fakeServer) { s.Locked, s.LockedReason = true, "an admin's" })
	g := startGuard(h, GuardOptions{Lock: true}, nil, nil)
	g.awaitScan()
	h.purge()
	g.await("both are locked", func(s GuardStatus) bool {
		return len(s.Incidents) == 2 && s.Incidents[0].Locked && s.Incidents[1].Locked
	})
	if s := h.cloud.get(v.uuid); !s.Locked || !strings.HasPrefix(s.LockedReason, "os-rescue guard") {
		t.Errorf("Nova has it locked %v for %q", s.Locked, s.LockedReason)
	}
	h.cloud.fail("Unlock", ErrCloudUnavailable)
	o := options(v, theirs)
	ran, err := h.run(t.Context(), CommandRescue, o)
	must(t, err)
	for _, i := range ran.Instances {
		if i.Outcome != OutcomeRescued {
			t.Fatalf("it says %+v", i)
		}
	}
	g.await("the end", func(s GuardStatus) bool { return len(s.Incidents) == 0 })
	g.await("Nova's silence", func(s GuardStatus) bool {
		return strings.Contains(strings.Join(s.Problems, ";"), "still locked by the guard")
	})
	h.cloud.fail("Unlock", nil)
	for end := time.Now().Add(10 * time.Second); h.cloud.get(v.uuid).Locked; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it stays locked")
		}
	}
	if !h.cloud.get(theirs.uuid).Locked {
		t.Error("somebody else's lock was undone")
	}
}
