package guard_test

import (
	"context"
	"slices"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// checked is a check of the host that asks the guard.
func checked(t *testing.T, h *runtest.Host) check.Report {
	t.Helper()
	r, err := check.Make(t.Context(), check.SourcesOf(h.Settings, func(ctx context.Context) (recover.Report, error) { return h.ScanAll(ctx) }),
		check.Options{})
	recovertest.Must(t, err)
	return r
}

// Its owner has deleted it, and what becomes of its files is no incident. Nothing is let
// go: the owner can still restore it, and then it is one.
func TestSoftDeletedIsNoIncidentAndNothingIsLetGo(t *testing.T) {
	for name, before := range map[string]bool{"deleted before its files": true, "in its incident": false} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
			h.Online()
			soft := func() { h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { s.To(recover.VMSoftDeleted) }) }
			if before {
				soft()
			}
			gd := startGuard(h, guard.Options{}, nil, nil)
			gd.awaitScan()
			g.Rm()
			if !before {
				gd.await("the incident", func(s guard.Status) bool { return len(s.Incidents) == 1 })
				if r := checked(t, h); r.Level != check.Critical {
					t.Errorf("in the incident: %s", r.Level)
				}
				soft()
			}
			gd.await("soft-deleted, and its files held", func(s guard.Status) bool {
				return len(s.Incidents) == 0 && slices.Equal(s.SoftDeleted, []string{g.UUID}) && s.Held.DeletedFiles > 0
			})
			r := checked(t, h)
			said := slices.ContainsFunc(r.Findings, func(f check.Finding) bool { return f.Kind == check.FindingSoftDeleted && f.Level == check.OK })
			if r.Lost() != 0 || !said || r.Level == check.Critical {
				t.Errorf("%s: %+v", r.Level, r.Findings)
			}
			h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { s.To(recover.VMStopped) })
			gd.await("the incident of a restored one", func(s guard.Status) bool { return len(s.Incidents) == 1 && len(s.SoftDeleted) == 0 })
		})
	}
}
