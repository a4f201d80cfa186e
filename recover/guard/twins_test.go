package guard_test

import (
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/guard"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// keptPaths are the paths of what the keeper holds, each once.
func keptPaths(h *runtest.Host) []string {
	status, err := pin.Keeper(h.T.Context(), h.Settings.StateDir)
	recovertest.Must(h.T, err)
	paths := []string{}
	for _, k := range status.Holds {
		paths = append(paths, k.Path)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// A guard that is killed may leave nothing behind: the keeper has what instances have lost as long as the
// guard has it, and not longer.
func TestTheKeeperHoldsWhatInstancesLostAsLongAsTheGuardDoes(t *testing.T) {
	h := runtest.NewHost(t)
	v, whole := h.Add(1, recovertest.GuestOptions{Base: "b1"}), h.Add(2, recovertest.GuestOptions{Base: "b2"})
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	if _, err := keeper.Connect(t.Context(), h.Settings.StateDir); err == nil {
		t.Error("a keeper runs, and nothing is lost")
	}
	v.Rm()
	recovertest.Must(t, os.Remove(v.Base))
	want := []string{v.Disk, v.Base}
	slices.Sort(want)
	g.await("the keeper has the lost files", func(guard.Status) bool { return slices.Equal(keptPaths(h), want) })

	// Another life takes nothing from the keeper that it could lose.
	recovertest.Must(t, g.stop())
	g = startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	for range 3 {
		last := g.await("a scan", func(s guard.Status) bool { return !s.Scanned.IsZero() }).Scanned
		g.await("one more scan", func(s guard.Status) bool { return s.Scanned.After(last) })
	}
	if got := keptPaths(h); !slices.Equal(got, want) {
		t.Errorf("a guard that was started again left the keeper %q", got)
	}

	ran, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(v))
	recovertest.Must(t, err)
	if r := v.Report(ran); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	hasContent(t, v)
	hasContent(t, whole)
	g.await("nobody holds the old files", func(s guard.Status) bool { return s.Held.DeletedFiles == 0 && len(keptPaths(h)) == 0 })
}

// What the guard lets go frees its room also where the keeper has it.
func TestWhatAGuardLetsGoTheKeeperLetsGo(t *testing.T) {
	h := runtest.NewHost(t)
	v, other := h.Add(1, recovertest.GuestOptions{}), h.Add(2, recovertest.GuestOptions{})
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	h.Purge()
	g.await("the keeper has both", func(guard.Status) bool { return len(keptPaths(h)) == 2 })
	v.Destroyed()
	recovertest.Must(t, guard.ReleaseByHand(t.Context(), h.Settings.StateDir, v.UUID))
	g.await("the keeper has the other one's alone", func(guard.Status) bool { return slices.Equal(keptPaths(h), []string{other.Disk}) })
}

// What is let go for one of its owners stays held for the other, and the keeper is no reason to take it up
// again.
func TestASharedFileIsLetGoForOneOfItsOwners(t *testing.T) {
	h := runtest.NewHost(t)
	v, other := h.Add(1, recovertest.GuestOptions{Base: "b"}), h.Add(2, recovertest.GuestOptions{Base: "b"})
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	h.Purge()
	g.await("the keeper has all", func(guard.Status) bool { return len(keptPaths(h)) == 3 })
	v.Destroyed()
	g.await("it is off", func(s guard.Status) bool { return s.Report.Instances[0].State == recover.StateShutOff })
	recovertest.Must(t, guard.ReleaseByHand(t.Context(), h.Settings.StateDir, v.UUID))
	want := []string{other.Disk, other.Base}
	slices.Sort(want)
	g.await("the keeper has the other one's", func(guard.Status) bool { return slices.Equal(keptPaths(h), want) })
	for range 2 {
		last := g.await("a scan", func(s guard.Status) bool { return !s.Scanned.IsZero() }).Scanned
		g.await("one more scan", func(s guard.Status) bool { return s.Scanned.After(last) })
	}
	if got := keptPaths(h); !slices.Equal(got, want) {
		t.Errorf("the keeper has %q again", got)
	}
}

// A run that ends without having done anything leaves what the guard gave the keeper as it was.
func TestAnAbandonedRunLeavesNoTwinBehind(t *testing.T) {
	h := runtest.NewHost(t)
	v := h.Add(1, recovertest.GuestOptions{})
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	h.Purge()
	g.await("the keeper has it", func(guard.Status) bool { return len(keptPaths(h)) == 1 })
	s, err := h.Engine().Prepare(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(v))
	recovertest.Must(t, err)
	recovertest.Must(t, s.Abandon(t.Context()))
	if got := keptPaths(h); !slices.Equal(got, []string{v.Disk}) {
		t.Errorf("the keeper has %q", got)
	}
	v.Destroyed()
	recovertest.Must(t, guard.ReleaseByHand(t.Context(), h.Settings.StateDir, v.UUID))
	g.await("nobody holds it", func(s guard.Status) bool { return s.Held.DeletedFiles == 0 && len(keptPaths(h)) == 0 })
}

// A keeper that hangs holds what it has, and gets nothing more: another one gets that.
func TestAKeeperThatHangsIsReplaced(t *testing.T) {
	h := runtest.NewHost(t)
	v, other := h.Add(1, recovertest.GuestOptions{}), h.Add(2, recovertest.GuestOptions{})
	g := startGuard(h, guard.Options{}, nil, nil)
	g.awaitScan()
	v.Rm()
	g.await("the keeper has it", func(guard.Status) bool { return slices.Equal(keptPaths(h), []string{v.Disk}) })
	c, err := keeper.Connect(t.Context(), h.Settings.StateDir)
	recovertest.Must(t, err)
	pid := c.PID()
	c.Close()
	recovertest.Must(t, syscall.Kill(pid, syscall.SIGSTOP))
	defer syscall.Kill(pid, syscall.SIGKILL)
	other.Rm()
	want := []string{v.Disk, other.Disk}
	slices.Sort(want)
	g.await("another keeper has both", func(guard.Status) bool {
		c, err := keeper.Connect(t.Context(), h.Settings.StateDir)
		if err != nil {
			return false
		}
		defer c.Close()
		list, err := c.List(t.Context())
		var paths []string
		for _, k := range list {
			meta, err := pin.MetaOf(k)
			recovertest.Must(t, err)
			paths = append(paths, meta.Path)
		}
		slices.Sort(paths)
		return err == nil && c.PID() != pid && slices.Equal(paths, want)
	})
}
