package leftover_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/leftover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// The test binary can be a keeper.
func TestMain(m *testing.M) { recovertest.Main(m) }

func TestALastCopyIsLetGoOnlyIfThatIsSaid(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	if _, err := leftover.Holds(t.Context(), h.Settings, nil); !errors.Is(err, keeper.ErrNoKeeper) {
		t.Errorf("without a keeper: %v", err)
	}
	h.Purge()
	s, err := h.Engine().Prepare(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
	recovertest.Must(t, err)
	holds, err := leftover.Holds(t.Context(), h.Settings, nil)
	recovertest.Must(t, err)
	if len(holds) == 0 || holds[0].Last {
		t.Fatalf("its QEMU has it open: %+v", holds)
	}
	if _, err := leftover.Release(t.Context(), h.Settings, holds, true); !errors.Is(err, recover.ErrBusy) {
		t.Errorf("while a run is under way: %v", err)
	}
	s.Close()
	if none, err := leftover.Holds(t.Context(), h.Settings, []string{recovertest.UUID(9)}); err != nil || len(none) != 0 {
		t.Errorf("of another instance: %+v, %v", none, err)
	}

	g.Destroyed()
	holds, err = leftover.Holds(t.Context(), h.Settings, []string{g.UUID})
	recovertest.Must(t, err)
	if len(holds) == 0 || !holds[0].Last {
		t.Fatalf("nobody else has it open: %+v", holds)
	}
	done, err := leftover.Release(t.Context(), h.Settings, holds, false)
	if !errors.Is(err, recover.ErrRefused) || done[0].Released || g.Pinned() == 0 {
		t.Errorf("it was let go: %+v, %v", done, err)
	}
	working := append([]leftover.Hold{}, holds...)
	working[0].Run = "20260101-000000-0000"
	done, err = leftover.Release(t.Context(), h.Settings, working, true)
	if !errors.Is(err, recover.ErrRefused) || done[0].Released || g.Pinned() == 0 {
		t.Errorf("an unfinished run works with it: %+v, %v", done, err)
	}
	holds[0].Run = ""
	if done, err := leftover.Release(t.Context(), h.Settings, holds, true); err != nil || !done[0].Released || g.Pinned() != 0 {
		t.Errorf("it is held: %+v, %v", done, err)
	}
}

// Whoever may read a file can have it open, and anything on its command line.
func TestAProcessOfAnybodysKeepsNoLastCopy(t *testing.T) {
	for user, want := range map[uint32]bool{65534: true, 0: false} {
		h := runtest.NewHost(t)
		g := h.Add(1, recovertest.GuestOptions{})
		disk := g.Opened(t)
		h.Purge()
		s, err := h.Engine().Prepare(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
		recovertest.Must(t, err)
		s.Close()
		g.Destroyed()
		other := exec.CommandContext(t.Context(), "sh", "-c", "read x", "-uuid", g.UUID)
		other.ExtraFiles = []*os.File{disk}
		other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		in, err := other.StdinPipe()
		recovertest.Must(t, err)
		recovertest.Must(t, other.Start())
		disk.Close()
		holds, err := leftover.Holds(t.Context(), h.Settings, []string{g.UUID})
		recovertest.Must(t, err)
		n := slices.IndexFunc(holds, func(h leftover.Hold) bool { return h.Path == g.Disk })
		if n < 0 || holds[n].Last != want {
			t.Errorf("a process of user %d has it open too: %+v, want it to be the last copy: %v", user, holds, want)
		}
		in.Close()
		_ = other.Wait()
	}
}

func TestASharedBaseStaysHeldForTheInstancesThatWereNotNamed(t *testing.T) {
	h := runtest.NewHost(t)
	a, b := h.Add(1, recovertest.GuestOptions{Base: "b"}), h.Add(2, recovertest.GuestOptions{Base: "b"})
	h.Purge()
	s, err := h.Engine().Prepare(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(a, b))
	recovertest.Must(t, err)
	s.Close()
	a.Destroyed()
	b.Destroyed()
	before := b.Pinned()
	holds, err := leftover.Holds(t.Context(), h.Settings, []string{a.UUID})
	recovertest.Must(t, err)
	shared := 0
	for _, hold := range holds {
		switch {
		case slices.Equal(hold.KeptFor, []string{b.UUID}):
			shared++
			if hold.Last {
				t.Errorf("%s is lost with it: %+v", hold.Path, hold)
			}
		case !hold.Last:
			t.Errorf("%s is held elsewhere: %+v", hold.Path, hold)
		}
	}
	if shared != 1 {
		t.Fatalf("%d files are shared: %+v", shared, holds)
	}
	_, err = leftover.Release(t.Context(), h.Settings, holds, true)
	recovertest.Must(t, err)
	if a.Pinned() != 0 || b.Pinned() != before {
		t.Errorf("of the one that was named %d files are held, of the other one %d of %d", a.Pinned(), b.Pinned(), before)
	}
}

func TestStagedCopiesThatNoJournalClaimsAreNamed(t *testing.T) {
	h := runtest.NewHost(t)
	dir := filepath.Join(h.Settings.InstancesPath, recover.StagePrefix+"20260101-000000-0000")
	recovertest.Must(t, os.MkdirAll(dir, 0o700))
	recovertest.Must(t, os.WriteFile(filepath.Join(dir, recovertest.UUID(1)+".disk.0123abcd"), []byte("content"), 0o600))
	// What others may enter is none of a run's.
	recovertest.Must(t, os.MkdirAll(filepath.Join(h.Settings.InstancesPath, recover.StagePrefix+"planted"), 0o755))
	list, err := leftover.Unclaimed(h.Settings)
	recovertest.Must(t, err)
	want := []string{recovertest.UUID(1)}
	if len(list) != 1 || list[0].Path != dir || list[0].Files != 1 || !slices.Equal(list[0].Instances, want) {
		t.Errorf("it names %+v", list)
	}
	recovertest.Must(t, os.MkdirAll(filepath.Join(h.Settings.StateDir, "runs", "20260101-000000-0000"), 0o700))
	if list, err := leftover.Unclaimed(h.Settings); err != nil || len(list) != 0 {
		t.Errorf("its run is known: %+v, %v", list, err)
	}
}
