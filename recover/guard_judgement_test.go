package recover

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

// The ways in which an instance ends, and what becomes of the files held for it.
func TestAGuardLetsGoOfNothingThatNovaHas(t *testing.T) {
	server := func(do func(*fakeServer)) func(*host, *testGuest) {
		return func(h *host, v *testGuest) { h.cloud.change(v.uuid, do) }
	}
	elsewhere := func(s *fakeServer) { s.Host = "other" }
	deleting := func(s *fakeServer) { s.TaskState, s.Host = "deleting", "other" }
	for _, c := range []struct {
		name     string
		nova     func(*host, *testGuest) // after the files and the domain are gone; nil: no Nova
		grace    time.Duration
		want     keeper.ReleaseReason // empty: it holds on
		alone    bool                 // Nova has no instance on a host of this name
		incident bool                 // it is one
	}{
		{name: "deleted through Nova", nova: func(h *host, v *testGuest) { h.cloud.deletes(v.uuid) }, want: keeper.ReleasedDeleted},
		{name: "moved to another host", nova: server(elsewhere), want: keeper.ReleasedMoved},
		{name: "moved, and this host's name is not known to be Nova's", nova: server(elsewhere), alone: true},
		{name: "shelved: on no host", nova: server(func(s *fakeServer) { s.Host = "" }), want: keeper.ReleasedMoved},
		{name: "a task under way", nova: server(deleting)},
		{name: "the last moment of a deletion", nova: server(func(s *fakeServer) { s.to(VMDeleted) })},
		{name: "the last moment of a shelving", nova: server(func(s *fakeServer) { s.to(VMShelvedOffloaded) })},
		{name: "a cell that is down", nova: func(h *host, _ *testGuest) { h.cloud.mu.Lock(); h.cloud.down = true; h.cloud.mu.Unlock() }},
		{name: "Nova that does not answer", nova: func(h *host, _ *testGuest) { h.cloud.away("Server", "Deleted") }},
		{name: "a 404 without proof", nova: func(h *host, v *testGuest) {
			h.cloud.mu.Lock()
			delete(h.cloud.servers, v.uuid)
			h.cloud.mu.Unlock()
		}},
		{name: "it still exists", nova: func(*host, *testGuest) {}, incident: true},
		{name: "no Nova, within the grace", grace: time.Hour},
		{name: "no Nova, after the grace", grace: 200 * time.Millisecond, want: keeper.ReleasedGrace},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			v := h.add(1, guestOptions{console: true})
			if !c.alone {
				h.add(2, guestOptions{}) // by which the host's name in Nova is known
			}
			if c.nova != nil {
				h.online()
			}
			if c.alone {
				h.cloud.change(v.uuid, func(s *fakeServer) { s.Host = "other" }) // from the first
			}
			g := startGuard(h, GuardOptions{Grace: c.grace}, nil, nil)
			g.awaitScan()
			if c.nova != nil {
				h.cloud.change(v.uuid, func(s *fakeServer) { s.TaskState = "deleting" })
			}
			v.destroyed()
			g.await("it is off", func(s GuardStatus) bool { return s.Report.Instances[0].State == StateShutOff })
			v.rm()
			v.forgotten()
			if c.nova != nil {
				c.nova(h, v)
				h.cloud.mu.Lock()
				if s := h.cloud.servers[v.uuid]; s != nil && c.name != "a task under way" {
					s.TaskState = "" // only now: until then a look must not take it for settled
				}
				h.cloud.mu.Unlock()
			}
			if c.want != "" {
				s := g.await("it is let go", func(s GuardStatus) bool { return s.Held.DeletedFiles == 0 && s.Released[c.want] > 0 })
				if s.Released[c.want] == 0 || len(s.Incidents) != 0 {
					t.Errorf("released %v, incidents %+v", s.Released, s.Incidents)
				}
				g.await("its record is gone", func(GuardStatus) bool {
					_, err := os.Stat(filepath.Join(h.settings.StateDir, "guard", v.uuid+".json"))
					return errors.Is(err, os.ErrNotExist)
				})
				return
			}
			time.Sleep(1500 * time.Millisecond)
			if p := g.paths(); !p[v.disk] {
				t.Errorf("it holds %v", p)
			}
			if s := g.Status(); (len(s.Incidents) > 0) != c.incident {
				t.Errorf("its incidents are %+v", s.Incidents)
			}
		})
	}
}

func TestWhatARunningGuestNoLongerHasIsLetGo(t *testing.T) {
	h := newHost(t)
	v := h.add(1, guestOptions{})
	extra := filepath.Join(v.dir, "disk.rescue")
	must(t, os.WriteFile(extra, []byte("x"), 0o600))
	g := startGuard(h, GuardOptions{}, nil, nil)
	g.awaitScan()
	must(t, os.Remove(extra))
	s := g.await("it is let go", func(s GuardStatus) bool { return s.Released[keeper.ReleasedUnneeded] == 1 })
	if len(s.Incidents) != 0 {
		t.Errorf("incidents: %+v", s.Incidents)
	}
}

// Somebody starts the guest on an older file: the newer one must not be lost.
func TestAFileThatWasNeededIsHeldWhenItsGuestRunsOnAnother(t *testing.T) {
	h := newHost(t)
	v := h.add(1, guestOptions{})
	g := startGuard(h, GuardOptions{}, nil, nil)
	g.awaitScan()
	h.purge()
	g.await("the incident", func(s GuardStatus) bool { return len(s.Incidents) == 1 })
	v.destroyed()
	for path := range v.content {
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte("older"), 0o600))
	}
	g.await("it is seen off", func(s GuardStatus) bool { return s.Report.Instances[0].Verdict == VerdictConflict })
	must(t, h.hv.Start(t.Context(), v.uuid, false))
	g.await("it is seen", func(s GuardStatus) bool { return len(s.Incidents) == 1 && s.Incidents[0].Replaced })
	must(t, ReleaseByHand(t.Context(), h.settings.StateDir, v.uuid))
	s := g.await("the operator's word", func(s GuardStatus) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
	if s.Released[keeper.ReleasedByHand] == 0 {
		t.Errorf("released %v", s.Released)
	}
}
