package guard_test

import (
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

func TestAffectedInstancesAreLockedAtOnceAndUnlockedWhenTheyAreBack(t *testing.T) {
	h := runtest.NewHost(t)
	v, theirs := h.Add(1, recovertest.GuestOptions{}), h.Add(2, recovertest.GuestOptions{})
	h.Online()
	h.Cloud.Change(theirs.UUID, func(s *recovertest.FakeServer) { s.Locked, s.LockedReason = true, "an admin's" })
	g := startGuard(h, guard.Options{Lock: true}, nil, nil)
	g.awaitScan()
	h.Purge()
	g.await("both are locked", func(s guard.Status) bool {
		return len(s.Incidents) == 2 && s.Incidents[0].Locked && s.Incidents[1].Locked
	})
	if s := h.Cloud.Get(v.UUID); !s.Locked || !strings.HasPrefix(s.LockedReason, "os-rescue guard") {
		t.Errorf("Nova has it locked %v for %q", s.Locked, s.LockedReason)
	}
	h.Cloud.Fail("Unlock", recover.ErrCloudUnavailable)
	o := recovertest.Options(v, theirs)
	ran, err := h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	for _, i := range ran.Instances {
		if i.Outcome != recover.OutcomeRescued {
			t.Fatalf("it says %+v", i)
		}
	}
	g.await("the end", func(s guard.Status) bool { return len(s.Incidents) == 0 })
	g.await("Nova's silence", func(s guard.Status) bool {
		return strings.Contains(strings.Join(s.Problems, ";"), "still locked by the guard")
	})
	h.Cloud.Fail("Unlock", nil)
	patience.Wait(t, "it is unlocked", func() bool { return !h.Cloud.Get(v.UUID).Locked })
	if !h.Cloud.Get(theirs.UUID).Locked {
		t.Error("somebody else's lock was undone")
	}
}
