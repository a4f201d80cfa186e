package guard_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// The ways in which an instance ends, and what becomes of the files held for it.
func TestAGuardLetsGoOfNothingThatNovaHas(t *testing.T) {
	server := func(do func(*recovertest.FakeServer)) func(*runtest.Host, *recovertest.Guest) {
		return func(h *runtest.Host, v *recovertest.Guest) { h.Cloud.Change(v.UUID, do) }
	}
	elsewhere := func(s *recovertest.FakeServer) { s.Host = "other" }
	deleting := func(s *recovertest.FakeServer) { s.TaskState, s.Host = "deleting", "other" }
	for _, c := range []struct {
		name     string
		nova     func(*runtest.Host, *recovertest.Guest) // after the files and the domain are gone; nil: no Nova
		grace    time.Duration
		want     keeper.ReleaseReason // empty: it holds on
		alone    bool                 // Nova has no instance on a host of this name
		incident bool                 // it is one
	}{
		{
			name: "deleted through Nova",
			nova: func(h *runtest.Host, v *recovertest.Guest) { h.Cloud.Deletes(v.UUID) },
			want: keeper.ReleasedDeleted,
		},
		{name: "moved to another host", nova: server(elsewhere), want: keeper.ReleasedMoved},
		{name: "moved, and this host's name is not known to be Nova's", nova: server(elsewhere), alone: true},
		{name: "shelved: on no host", nova: server(func(s *recovertest.FakeServer) { s.Host = "" }), want: keeper.ReleasedMoved},
		{name: "a task under way", nova: server(deleting)},
		{name: "the last moment of a deletion", nova: server(func(s *recovertest.FakeServer) { s.To(recover.VMDeleted) })},
		{name: "the last moment of a shelving", nova: server(func(s *recovertest.FakeServer) { s.To(recover.VMShelvedOffloaded) })},
		{name: "a cell that is down", nova: func(h *runtest.Host, _ *recovertest.Guest) {
			h.Cloud.Mu.Lock()
			h.Cloud.Down = true
			h.Cloud.Mu.Unlock()
		}},
		{name: "Nova that does not answer", nova: func(h *runtest.Host, _ *recovertest.Guest) { h.Cloud.Away("Server", "Deleted") }},
		{name: "a 404 without proof", nova: func(h *runtest.Host, v *recovertest.Guest) {
			h.Cloud.Mu.Lock()
			delete(h.Cloud.Instances, v.UUID)
			h.Cloud.Mu.Unlock()
		}},
		{name: "it still exists", nova: func(*runtest.Host, *recovertest.Guest) {}, incident: true},
		{name: "no Nova, within the grace", grace: time.Hour},
		{name: "no Nova, after the grace", grace: 200 * time.Millisecond, want: keeper.ReleasedGrace},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := runtest.NewHost(t)
			v := h.Add(1, recovertest.GuestOptions{Console: true})
			if !c.alone {
				h.Add(2, recovertest.GuestOptions{}) // by which the host's name in Nova is known
			}
			if c.nova != nil {
				h.Online()
			}
			if c.alone {
				h.Cloud.Change(v.UUID, func(s *recovertest.FakeServer) { s.Host = "other" }) // from the first
			}
			g := startGuard(h, guard.Options{Grace: c.grace}, nil, nil)
			g.awaitScan()
			if c.nova != nil {
				h.Cloud.Change(v.UUID, func(s *recovertest.FakeServer) { s.TaskState = "deleting" })
			}
			v.Destroyed()
			g.await("it is off", func(s guard.Status) bool { return s.Report.Instances[0].State == recover.StateShutOff })
			v.Rm()
			v.Forgotten()
			if c.nova != nil {
				c.nova(h, v)
				h.Cloud.Mu.Lock()
				if s := h.Cloud.Instances[v.UUID]; s != nil && c.name != "a task under way" {
					s.TaskState = "" // only now: until then a look must not take it for settled
				}
				h.Cloud.Mu.Unlock()
			}
			if c.want != "" {
				s := g.await("it is let go", func(s guard.Status) bool { return s.Held.DeletedFiles == 0 && s.Released[c.want] > 0 })
				if s.Released[c.want] == 0 || len(s.Incidents) != 0 {
					t.Errorf("released %v, incidents %+v", s.Released, s.Incidents)
				}
				g.await("its record is gone", func(guard.Status) bool {
					_, err := os.Stat(filepath.Join(h.Settings.StateDir, "guard", v.UUID+".json"))
					return errors.Is(err, os.ErrNotExist)
				})
				return
			}
			if c.incident {
				g.await("the incident", func(s guard.Status) bool { return len(s.Incidents) > 0 })
			}
			time.Sleep(1500 * time.Millisecond) // in which it could have been let go
			if p := g.paths(); !p[v.Disk] {
				t.Errorf("it holds %v", p)
			}
			if s := g.Status(); (len(s.Incidents) > 0) != c.incident {
				t.Errorf("its incidents are %+v", s.Incidents)
			}
		})
	}
}

func TestWhatARunningGuestNoLongerHasIsLetGo(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{})
	extra := filepath.Join(v.Dir, "disk.rescue")
	recovertest.Must(t, os.WriteFile(extra, []byte("x"), 0o600))
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	recovertest.Must(t, os.Remove(extra))
	s := g.await("it is let go", func(s guard.Status) bool { return s.Released[keeper.ReleasedUnneeded] == 1 })
	if len(s.Incidents) != 0 {
		t.Errorf("incidents: %+v", s.Incidents)
	}
}

// Somebody starts the guest on an older file: the newer one must not be lost.
func TestAFileThatWasNeededIsHeldWhenItsGuestRunsOnAnother(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{})
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	h.Purge()
	g.await("the incident", func(s guard.Status) bool { return len(s.Incidents) == 1 })
	v.Destroyed()
	for path := range v.Content {
		recovertest.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		recovertest.Must(t, os.WriteFile(path, []byte("older"), 0o600))
	}
	g.await("it is seen off", func(s guard.Status) bool { return s.Report.Instances[0].Verdict == recover.VerdictConflict })
	recovertest.Must(t, h.HV.Start(t.Context(), v.UUID, false))
	g.await("it is seen", func(s guard.Status) bool { return len(s.Incidents) == 1 && s.Incidents[0].Replaced })
	recovertest.Must(t, guard.ReleaseByHand(t.Context(), h.Settings.StateDir, v.UUID))
	s := g.await("the operator's word", func(s guard.Status) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
	if s.Released[keeper.ReleasedByHand] == 0 {
		t.Errorf("released %v", s.Released)
	}
}

// slowServer is a Nova that answers the first question about one instance only when
// the test says so.
type slowServer struct {
	recover.Cloud
	uuid  string
	once  sync.Once
	asked chan struct{}
	reply chan struct{}
}

func (s *slowServer) Server(ctx context.Context, uuid string) (recover.Server, error) {
	if uuid == s.uuid {
		s.once.Do(func() {
			close(s.asked)
			<-s.reply
		})
	}
	return s.Cloud.Server(ctx, uuid)
}

// Nobody but the guard holds the disk of a guest that is off: what an older scan says of
// it is no reason to let it go.
func TestAFileThatIsDeletedWhileNovaIsAskedIsJudgedByTheNextScan(t *testing.T) {
	h := runtest.NewHost(t)
	off := h.Add(1, recovertest.GuestOptions{State: recover.StateShutOff})
	other := h.Add(2, recovertest.GuestOptions{State: recover.StateShutOff})
	h.Online()
	cloud := &slowServer{Cloud: h.Cloud, uuid: other.UUID, asked: make(chan struct{}), reply: make(chan struct{})}
	signIn := func(context.Context) (recover.Cloud, error) { return cloud, nil }
	g := startGuard(h, guard.Options{SignIn: signIn}, nil, nil)
	g.awaitScan()
	recovertest.Must(t, os.Remove(other.Disk))
	other.Forgotten()
	select {
	case <-cloud.asked:
	case <-t.Context().Done():
		t.Fatal("Nova was not asked")
	}
	recovertest.Must(t, os.Remove(off.Disk))
	g.await("the deletion is seen", func(s guard.Status) bool { return s.Held.DeletedFiles >= 2 })
	time.Sleep(600 * time.Millisecond) // longer than a file must have been deleted to be judged
	close(cloud.reply)
	s := g.await("the incident", func(s guard.Status) bool {
		for _, i := range s.Incidents {
			if i.UUID == off.UUID {
				return true
			}
		}
		return false
	})
	if n := s.Released[keeper.ReleasedUnneeded]; n != 0 {
		t.Errorf("%d files were let go", n)
	}
	if v := h.Scan(off).Verdict; v != recover.VerdictRecoverable {
		t.Errorf("the verdict is %s", v)
	}
}
