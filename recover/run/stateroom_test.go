package run_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

// smallState puts the host's state directory on a file system of that size.
func smallState(t *testing.T, h *runtest.Host, size string) {
	t.Helper()
	recovertest.Must(t, unix.Mount("none", h.Settings.StateDir, "tmpfs", 0, "mode=700,size="+size))
	t.Cleanup(func() {
		h.HV.EndAll()
		h.KillKeeper()
		_ = unix.Unmount(h.Settings.StateDir, unix.MNT_DETACH)
	})
}

func TestAStateDirectoryThatFillsUpDoesNotStopARun(t *testing.T) {
	h := runtest.NewHost(t)
	smallState(t, h, "2m")
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Console: true})
	h.Purge()
	h.HV.Before = func(method, _ string) {
		if method == "destroy" {
			// As large as it gets.
			_ = os.WriteFile(filepath.Join(h.Settings.StateDir, "somebody's"), make([]byte, 4<<20), 0o600)
		}
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	var room unix.Statfs_t
	recovertest.Must(t, unix.Statfs(h.Settings.StateDir, &room))
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
}

func TestARunWithoutRoomForItsJournalTouchesNothing(t *testing.T) {
	h := runtest.NewHost(t)
	smallState(t, h, "128k")
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Console: true})
	pid := h.HV.Get(g.UUID).PID
	h.Purge()
	plan, err := h.Engine().DryRun(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if !strings.Contains(strings.Join(plan.Warnings, " "), h.Settings.StateDir) {
		t.Errorf("the dry run says %q", plan.Warnings)
	}
	_, err = h.Engine().Prepare(t.Context(), recover.CommandRescue, recovertest.Options(g))
	if !errors.Is(err, recover.ErrNoSpace) || !errors.Is(err, recover.ErrUnusable) {
		t.Fatalf("%v", err)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
}

func TestAResumeWithoutRoomForItsJournalTouchesNothing(t *testing.T) {
	h := runtest.NewHost(t)
	smallState(t, h, "2m")
	g := h.Add(1, recovertest.GuestOptions{})
	h.Purge()
	name := killedAt(t, h, recover.CommandRescue, recovertest.Options(g), "copy.done")
	path := filepath.Join(h.State().Run(name), journal.FileName)
	st, err := os.Stat(path)
	recovertest.Must(t, err)
	recovertest.Must(t, os.Truncate(path, st.Size())) // as a run that is interrupted in order leaves it
	full := filepath.Join(h.Settings.StateDir, "somebody's")
	_ = os.WriteFile(full, make([]byte, 4<<20), 0o600)
	_, err = h.Engine().PrepareResume(t.Context(), name, false)
	if !errors.Is(err, recover.ErrNoSpace) || !errors.Is(err, recover.ErrUnusable) {
		t.Fatalf("%v", err)
	}
	if d := h.HV.Get(g.UUID); d.State != recover.StatePaused {
		t.Errorf("it is %s", d.State)
	}
	recovertest.Must(t, os.Remove(full))
	report, err := h.Resume(t.Context(), name)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
}
