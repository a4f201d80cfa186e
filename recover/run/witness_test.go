package run_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/check"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// killedAt runs a command on a guest up to a point of its journal.
func killedAt(t *testing.T, h *runtest.Host, command recover.Command, o recover.Options, point string) (name string) {
	t.Helper()
	name, at := h.CrashIn(command, o, func(e *run.Engine, here func(string)) {
		e.Failpoint = func(p string) {
			if p == point {
				here(p)
			}
		}
	})
	if at != point {
		t.Fatalf("it came to %q, not to %q", at, point)
	}
	return name
}

// undone has a killed run undone as its witness does it.
func undone(t *testing.T, h *runtest.Host, name string) {
	t.Helper()
	lock, err := h.State().Lock(statedir.LockInfo{Run: name, Command: recover.CommandRescue, PID: os.Getpid()})
	recovertest.Must(t, err)
	recovertest.Must(t, h.Engine().Undo(t.Context(), name, lock, nil))
}

// findings are the kinds that a check of the host finds about its runs.
func findings(t *testing.T, h *runtest.Host) string {
	t.Helper()
	r, err := check.Make(t.Context(), check.SourcesOf(h.Settings, h.ScanAll), check.Options{})
	recovertest.Must(t, err)
	var all []string
	for _, f := range r.Findings {
		if f.Kind != check.FindingLost {
			all = append(all, string(f.Level)+" "+string(f.Kind))
		}
	}
	return strings.Join(all, ", ")
}

func TestAKilledRunLeavesNoGuestSuspended(t *testing.T) {
	for _, c := range []struct {
		command recover.Command
		point   string
		found   recover.DomainState
		without string // what a check finds where nobody undoes it
		stays   bool   // only resume may go on with it
	}{
		{recover.CommandRescue, "freeze.done", recover.StateRunning, "CRITICAL suspended", false},
		{recover.CommandRescue, "suspend.begin", recover.StateRunning, "CRITICAL suspended", false},
		{recover.CommandRescue, "suspend.done", recover.StateRunning, "CRITICAL suspended", false},
		{recover.CommandRescue, "copy.done", recover.StateRunning, "CRITICAL suspended", false},
		{recover.CommandRescue, "copy.done", recover.StatePaused, "WARNING interrupted", false},
		{recover.CommandRescue, "destroy.begin", recover.StateRunning, "CRITICAL suspended", true},
		{recover.CommandRescue, "destroy.done", recover.StateRunning, "WARNING interrupted", true},
		{recover.CommandBackup, "suspend.done", recover.StateRunning, "CRITICAL suspended", false},
		{recover.CommandBackup, "store.done", recover.StateRunning, "CRITICAL suspended", false},
		{recover.CommandBackup, "backup.done", recover.StateRunning, "CRITICAL suspended", false},
	} {
		t.Run(string(c.command)+" of a guest that is "+string(c.found)+", at "+c.point, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Agent: true, State: c.found})
			h.Purge()
			o := recovertest.Options(g)
			if c.command == recover.CommandBackup {
				o.BackupDir = t.TempDir()
			}
			name := killedAt(t, h, c.command, o, c.point)
			before := h.HV.Get(g.UUID)
			if got := findings(t, h); got != c.without {
				t.Errorf("a check finds %s", got)
			}
			undone(t, h, name)
			if c.stays {
				if now := h.HV.Get(g.UUID); now.State != before.State || now.PID != before.PID {
					t.Errorf("it was %s, and is %s", before.State, now.State)
				}
				if n := h.HV.Called("resume", g.UUID); n > 0 {
					t.Error("it was let go on")
				}
			} else {
				recovertest.Must(t, g.AsFound(c.found, before.PID))
				if left := h.Staged(); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
				if got := findings(t, h); got != "WARNING interrupted" {
					t.Errorf("afterwards a check finds %s", got)
				}
			}
			if g.Pinned() == 0 {
				t.Error("its files are not held any more")
			}
			report, err := h.Resume(t.Context(), name)
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			if c.command == recover.CommandRescue {
				recovertest.Must(t, g.Serving(c.found))
			} else {
				recovertest.Must(t, g.AsFound(c.found, before.PID))
			}
			if got := findings(t, h); got != "" {
				t.Errorf("at the end a check finds %s", got)
			}
		})
	}
}

// What a guest writes after its killed run was undone is in no copy of that run.
func TestAGuestThatWritesAfterTheUndoOfAKilledRunLosesNothing(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	disk := g.Opened(t)
	h.Purge()
	name := killedAt(t, h, recover.CommandRescue, recovertest.Options(g), "copy.done")
	undone(t, h, name)
	g.Writes(t, disk, 0, "later")
	h.HV.Change(g.UUID, (*recovertest.FakeDomain).Off)
	if !slices.Contains(runtest.Points(h.Journal(name)), journal.StepCleanup+".done") {
		t.Error("its copies count still")
	}
	report, err := h.Resume(t.Context(), name)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.Back())
}

// libvirt carries a suspend out also when who has asked for it is gone, and everybody else waits
// for the domain meanwhile.
func TestAGuestGoesOnWhoseRunIsKilledInsideItsSuspend(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	pid := h.HV.Get(g.UUID).PID
	h.Purge()
	name := killedAt(t, h, recover.CommandRescue, recovertest.Options(g), "suspend.begin")
	pauses := sync.OnceFunc(func() {
		h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.State, d.PauseReason = recover.StatePaused, recover.PauseUser })
	})
	h.HV.Before = func(method, _ string) {
		if method == "counters" {
			pauses()
		}
	}
	undone(t, h, name)
	pauses() // if nobody has waited for it
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
}

func TestTheCopiesOfAGuestThatCanNotBeLetGoOnAreKept(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{})
	h.Purge()
	name := killedAt(t, h, recover.CommandRescue, recovertest.Options(g), "copy.done")
	h.HV.Errs["resume"] = recover.ErrUnavailable
	lock, err := h.State().Lock(statedir.LockInfo{Run: name, Command: recover.CommandRescue, PID: os.Getpid()})
	recovertest.Must(t, err)
	if err := h.Engine().Undo(t.Context(), name, lock, nil); !errors.Is(err, recover.ErrUnavailable) {
		t.Fatalf("its witness says %v", err)
	}
	if len(h.Staged()) == 0 || slices.Contains(runtest.Points(h.Journal(name)), journal.StepCleanup+".begin") {
		t.Error("its copies are given up")
	}
}
