package recover

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover/keeper"
)

// guarding is a guard that runs on a host of the tests.
type guarding struct {
	*Guard
	t    testing.TB
	h    *host
	log  *syncBuffer
	stop func() error
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// guard starts a guard in this process, and ends it with the test.
func (h *host) guard(o GuardOptions, shelf Shelf, inherited []*os.File) *guarding {
	t := h.t
	t.Helper()
	if h.cloud != nil && o.SignIn == nil {
		o.SignIn = func(context.Context) (Cloud, error) { return h.cloud, nil }
	}
	if o.Interval == 0 {
		o.Interval = 200 * time.Millisecond
	}
	g, err := h.engine().NewGuard(o, shelf, inherited)
	must(t, err)
	g.settled = func() time.Duration { return 300 * time.Millisecond }
	log := &syncBuffer{}
	ctx, cancel := context.WithCancel(zerolog.New(log).Level(zerolog.InfoLevel).WithContext(context.Background()))
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- g.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("the guard ended at once: %v", err)
	}
	var once sync.Once
	var result error
	stop := func() error {
		once.Do(func() { cancel(); result = <-ended })
		return result
	}
	t.Cleanup(func() { stop() })
	return &guarding{Guard: g, t: t, h: h, log: log, stop: stop}
}

// await waits until the guard's status is so.
func (g *guarding) await(what string, ok func(GuardStatus) bool) GuardStatus {
	g.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s, err := g.h.engine().Guard(context.Background())
		must(g.t, err)
		if ok(s) {
			return s
		}
		if time.Now().After(end) {
			g.t.Fatalf("%s: not in 20 s; the guard says %+v\n%s", what, s, g.log)
		}
	}
}

// paths are the paths of what is held, and whether they are deleted.
func (g *guarding) paths() map[string]bool {
	paths := map[string]bool{}
	g.holds.lookAtEach(func(h guardHold, st unix.Stat_t) { paths[h.Path] = st.Nlink == 0 })
	return paths
}

// destroyed ends a guest's QEMU, forgotten has libvirt forget the domain besides.
func (g *guest) destroyed()         { must(g.h.t, g.h.hv.Destroy(context.Background(), g.uuid)) }
func (g *guest) forgotten()         { g.destroyed(); g.h.hv.forget(g.uuid) }
func (g *guest) rm()                { must(g.h.t, os.RemoveAll(g.dir)) }
func offlineOf(g ...*guest) Options { o := options(g...); o.Offline = true; return o }

func TestAGuardHoldsTheFilesOfEveryInstance(t *testing.T) {
	h := newHost(t)
	running := h.add(1, guestOptions{base: "b1", console: true, config: true})
	off := h.add(2, guestOptions{base: "b1", state: StateShutOff})
	resize := off.dir + "_resize"
	must(t, os.Mkdir(resize, 0o755))
	must(t, os.WriteFile(filepath.Join(resize, "disk"), []byte("old"), 0o600))
	must(t, os.Symlink("/etc/passwd", filepath.Join(off.dir, "link")))
	must(t, os.MkdirAll(filepath.Join(h.settings.InstancesPath, "locks"), 0o755))
	must(t, os.WriteFile(filepath.Join(h.settings.InstancesPath, "locks", "nova-x"), nil, 0o600))
	g := h.guard(GuardOptions{}, nil, nil)
	g.await("the first scan", func(s GuardStatus) bool { return !s.Scanned.IsZero() })
	paths := g.paths()
	for path := range running.content {
		if _, ok := paths[path]; !ok && filepath.Base(path) != diskInfoName {
			t.Errorf("%s is not held", path)
		}
	}
	if _, ok := paths[filepath.Join(resize, "disk")]; !ok {
		t.Error("what a resize can be reverted to is not held")
	}
	for _, path := range []string{filepath.Join(off.dir, "link"), "/etc/passwd", filepath.Join(h.settings.InstancesPath, "locks/nova-x")} {
		if _, ok := paths[path]; ok {
			t.Errorf("%s is held", path)
		}
	}
	// A file that comes later, and one that is renamed.
	late := filepath.Join(running.dir, "disk.eph0")
	must(t, os.WriteFile(late, []byte("x"), 0o600))
	must(t, os.Rename(resize, off.dir+"_del"))
	g.await("the new names", func(GuardStatus) bool {
		p := g.paths()
		_, one := p[late]
		_, two := p[filepath.Join(off.dir+"_del", "disk")]
		return one && two
	})
	if st := g.Status(); st.Held.DeletedFiles != 0 || len(st.Incidents) != 0 || len(st.Problems) != 0 {
		t.Errorf("nothing happened, and it says %+v", st)
	}
}

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
	g := h.guard(GuardOptions{Interval: time.Hour}, nil, nil)
	g.await("the first scan", func(s GuardStatus) bool { return !s.Scanned.IsZero() })
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

// The guard is there, the guest and libvirt's knowledge of it are not.
func TestAGuestComesBackFromTheGuardAlone(t *testing.T) {
	h := newHost(t)
	v := h.add(1, guestOptions{base: "b1", console: true, config: true})
	g := h.guard(GuardOptions{}, nil, nil)
	g.await("the first scan", func(s GuardStatus) bool { return !s.Scanned.IsZero() })
	h.purge()
	g.await("the incident", func(s GuardStatus) bool { return len(s.Incidents) == 1 })
	v.forgotten()
	report, err := h.engine().Scan(t.Context())
	must(t, err)
	if len(report.Instances) != 1 || report.Instances[0].Verdict != VerdictRecoverable {
		t.Fatalf("the scan says %+v", report.Instances)
	}
	ran, err := h.run(t.Context(), CommandRescue, offlineOf(v))
	must(t, err)
	if ran.Instances[0].Outcome != OutcomeRescued {
		t.Fatalf("it says %+v", ran.Instances[0])
	}
	v.hasContent(t)
	if d := h.hv.get(v.uuid); d.State != StateRunning {
		t.Errorf("it is %s", d.State)
	}
	s := g.await("the end of the incident", func(s GuardStatus) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
	if s.Released[keeper.ReleasedProven] == 0 {
		t.Errorf("it released %v", s.Released)
	}
}

func TestAStoppedGuestsFilesComeBackAndItStaysOff(t *testing.T) {
	h := newHost(t)
	v := h.add(1, guestOptions{base: "b1", console: true})
	g := h.guard(GuardOptions{}, nil, nil)
	g.await("the first scan", func(s GuardStatus) bool { return !s.Scanned.IsZero() })
	v.destroyed()
	g.await("it is off", func(s GuardStatus) bool { return s.Report.Instances[0].State == StateShutOff })
	h.purge()
	g.await("the incident", func(s GuardStatus) bool { return len(s.Incidents) == 1 })
	ran, err := h.run(t.Context(), CommandRescue, offlineOf(v))
	must(t, err)
	if ran.Instances[0].Outcome != OutcomeRescued {
		t.Fatalf("it says %+v", ran.Instances[0])
	}
	v.hasContent(t)
	if d := h.hv.get(v.uuid); d.State != StateShutOff {
		t.Errorf("it is %s", d.State)
	}
}

func (g *guest) hasContent(t *testing.T) {
	t.Helper()
	for path, want := range g.content {
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) && !strings.HasSuffix(path, ".log") {
			t.Errorf("%s is not what it was: %v", path, err)
		}
	}
}

// The ways in which an instance ends, and what becomes of the files held for it.
func TestAGuardLetsGoOfNothingThatNovaHas(t *testing.T) {
	for _, c := range []struct {
		name  string
		nova  func(*host, *guest) // after the files and the domain are gone; nil: no Nova
		grace time.Duration
		want  keeper.ReleaseReason // empty: it holds on
		alone bool                 // Nova has no instance on a host of this name

		incident bool // it is one
	}{
		{"deleted through Nova", func(h *host, v *guest) { h.cloud.deletes(v.uuid) }, 0, keeper.ReleasedDeleted, false, false},
		{"moved to another host", func(h *host, v *guest) { h.cloud.change(v.uuid, func(s *fakeServer) { s.Host = "other" }) }, 0, keeper.ReleasedMoved, false, false},
		{"moved, and this host's name is not known to be Nova's", func(h *host, v *guest) { h.cloud.change(v.uuid, func(s *fakeServer) { s.Host = "other" }) }, 0, "", true, false},
		{"shelved: on no host", func(h *host, v *guest) { h.cloud.change(v.uuid, func(s *fakeServer) { s.Host = "" }) }, 0, keeper.ReleasedMoved, false, false},
		{"a task under way", func(h *host, v *guest) {
			h.cloud.change(v.uuid, func(s *fakeServer) { s.TaskState = "deleting"; s.Host = "other" })
		}, 0, "", false, false},
		{"the last moment of a deletion", func(h *host, v *guest) { h.cloud.change(v.uuid, func(s *fakeServer) { s.to(VMDeleted) }) }, 0, "", false, false},
		{"the last moment of a shelving", func(h *host, v *guest) { h.cloud.change(v.uuid, func(s *fakeServer) { s.to(VMShelvedOffloaded) }) }, 0, "", false, false},
		{"a cell that is down", func(h *host, v *guest) { h.cloud.mu.Lock(); h.cloud.down = true; h.cloud.mu.Unlock() }, 0, "", false, false},
		{"Nova that does not answer", func(h *host, v *guest) { h.cloud.away("Server", "Deleted") }, 0, "", false, false},
		{"a 404 without proof", func(h *host, v *guest) { h.cloud.mu.Lock(); delete(h.cloud.servers, v.uuid); h.cloud.mu.Unlock() }, 0, "", false, false},
		{"it still exists", func(h *host, v *guest) {}, 0, "", false, true},
		{"no Nova, within the grace", nil, time.Hour, "", false, false},
		{"no Nova, after the grace", nil, 200 * time.Millisecond, keeper.ReleasedGrace, false, false},
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
			g := h.guard(GuardOptions{Grace: c.grace}, nil, nil)
			g.await("the first scan", func(s GuardStatus) bool { return !s.Scanned.IsZero() })
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
					_, err := os.Stat(g.state.guardRecord(v.uuid))
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

// fail has a method fail from now on, or with nil no longer.
func (c *fakeCloud) fail(method string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs[method] = err
}

// deletes has Nova have deleted an instance.
func (c *fakeCloud) deletes(uuid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.servers, uuid)
	if c.deleted == nil {
		c.deleted = map[string]bool{}
	}
	c.deleted[uuid] = true
}

func TestWhatARunningGuestNoLongerHasIsLetGo(t *testing.T) {
	h := newHost(t)
	v := h.add(1, guestOptions{})
	extra := filepath.Join(v.dir, "disk.rescue")
	must(t, os.WriteFile(extra, []byte("x"), 0o600))
	g := h.guard(GuardOptions{}, nil, nil)
	g.await("the first scan", func(s GuardStatus) bool { return !s.Scanned.IsZero() })
	must(t, os.Remove(extra))
	s := g.await("it is let go", func(s GuardStatus) bool { return s.Released[keeper.ReleasedUnneeded] == 1 })
	if len(s.Incidents) != 0 {
		t.Errorf("incidents: %+v", s.Incidents)
	}
}

// What an instance loses in an incident besides its disks is held with them, and
// goes back with them.
func TestFilesThatNoDefinitionNamesGoBackWithTheOthers(t *testing.T) {
	h := newHost(t)
	v := h.add(1, guestOptions{base: "b1"})
	for name, path := range map[string]string{"kernel": filepath.Join(v.dir, "kernel"), "old": filepath.Join(v.dir+"_resize", "disk"), "unrescue": filepath.Join(v.dir, unrescueName)} {
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(name), 0o640))
		v.content[path] = []byte(name)
	}
	g := h.guard(GuardOptions{}, nil, nil)
	g.await("the first scan", func(s GuardStatus) bool { return !s.Scanned.IsZero() })
	h.purge()
	g.await("the incident", func(s GuardStatus) bool { return len(s.Incidents) == 1 })
	time.Sleep(time.Second) // longer than settled
	ran, err := h.run(t.Context(), CommandRescue, offlineOf(v))
	must(t, err)
	if ran.Instances[0].Outcome != OutcomeRescued {
		t.Fatalf("it says %+v", ran.Instances[0])
	}
	v.hasContent(t)
	g.await("the end of the incident", func(s GuardStatus) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
}

// Somebody starts the guest on an older file: the newer one must not be lost.
func TestAFileThatWasNeededIsHeldWhenItsGuestRunsOnAnother(t *testing.T) {
	h := newHost(t)
	v := h.add(1, guestOptions{})
	g := h.guard(GuardOptions{}, nil, nil)
	g.await("the first scan", func(s GuardStatus) bool { return !s.Scanned.IsZero() })
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
	must(t, h.engine().GuardRelease(t.Context(), v.uuid))
	s := g.await("the operator's word", func(s GuardStatus) bool { return len(s.Incidents) == 0 && s.Held.DeletedFiles == 0 })
	if s.Released[keeper.ReleasedByHand] == 0 {
		t.Errorf("released %v", s.Released)
	}
}

func TestUnderTheFloorOnlyWhatNobodyNeedsIsLetGo(t *testing.T) {
	h := newHost(t)
	needed, unneeded := h.add(1, guestOptions{}), h.add(2, guestOptions{})
	g := h.guard(GuardOptions{Grace: time.Hour}, nil, nil)
	g.await("the first scan", func(s GuardStatus) bool { return !s.Scanned.IsZero() })
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

func TestAffectedInstancesAreLockedAtOnceAndUnlockedWhenTheyAreBack(t *testing.T) {
	h := newHost(t)
	v, theirs := h.add(1, guestOptions{}), h.add(2, guestOptions{})
	h.online()
	h.cloud.change(theirs.uuid, func(s *fakeServer) { s.Locked, s.LockedReason = true, "an admin's" })
	g := h.guard(GuardOptions{Lock: true}, nil, nil)
	g.await("the first scan", func(s GuardStatus) bool { return !s.Scanned.IsZero() })
	h.purge()
	g.await("both are locked", func(s GuardStatus) bool {
		return len(s.Incidents) == 2 && s.Incidents[0].Locked && s.Incidents[1].Locked
	})
	if s := h.cloud.get(v.uuid); !s.Locked || !strings.HasPrefix(s.LockedReason, guardLockReason) {
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
