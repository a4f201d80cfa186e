package run_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/keeper"
	"github.com/os-rescue/os-rescue/recover/pin"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// keeperOf returns the process of the host's keeper, which is ended after the test.
func keeperOf(t *testing.T, h *runtest.Host) int {
	t.Helper()
	status, err := pin.Keeper(t.Context(), h.Settings.StateDir)
	recovertest.Must(t, err)
	if !status.Running {
		t.Fatal("no keeper runs")
	}
	t.Cleanup(func() {
		_ = unix.Kill(status.PID, unix.SIGKILL)
		recovertest.Must(t, keeper.AwaitEnd(context.Background(), status.PID))
	})
	return status.PID
}

// stop stops a process, and waits until it stands still.
func stop(t *testing.T, pid int) {
	t.Helper()
	recovertest.Must(t, unix.Kill(pid, unix.SIGSTOP))
	patience.Wait(t, "the process stands still", func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		return err == nil && strings.Contains(string(status), "State:\tT")
	})
}

// heldAlone is a host with an instance that is off, and whose lost files the keeper alone holds.
func heldAlone(t *testing.T) (*runtest.Host, *recovertest.Guest, string) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	h.Purge()
	s, err := h.Engine().Prepare(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
	recovertest.Must(t, err)
	s.Close()
	g.Destroyed()
	return h, g, s.Plan().Run
}

func TestARunTakesOverTheKeeperOfARemovedStateDirectory(t *testing.T) {
	h, g, id := heldAlone(t)
	old := keeperOf(t, h)
	recovertest.Must(t, os.RemoveAll(h.Settings.StateDir))
	status, err := pin.Keeper(t.Context(), h.Settings.StateDir)
	recovertest.Must(t, err)
	if !status.Running || status.PID != old || len(status.Holds) == 0 || !status.Holds[0].Unclaimed || status.Holds[0].PinnedBy != id {
		t.Errorf("the keeper is %+v", status)
	}
	if i := h.Scan(g); i.Verdict != recover.VerdictRecoverable {
		t.Errorf("a scan calls it %s", i.Verdict)
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%s: %s", r.Outcome, r.Error)
	}
	recovertest.Must(t, g.Back())
	ctx, cancel := context.WithTimeout(t.Context(), patience.Limit())
	defer cancel()
	recovertest.Must(t, keeper.AwaitEnd(ctx, old)) // nothing is left for it to hold
}

func TestARunGoesOnWithAnotherKeeperWhenItsOwnIsStopped(t *testing.T) {
	for _, point := range []string{"pin.done", "suspend.done", "publish.done"} {
		t.Run(point, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b"})
			h.Purge()
			stopped, next := 0, 0
			e := h.Engine()
			e.Failpoint = func(at string) {
				switch {
				case at == point && stopped == 0:
					stopped = keeperOf(t, h)
					stop(t, stopped)
				case at == "destroy.done" && stopped != 0:
					next = keeperOf(t, h)
				}
			}
			s, err := e.Prepare(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
			recovertest.Must(t, err)
			defer s.Close()
			report, err := s.Execute(t.Context())
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Errorf("%s: %s", r.Outcome, r.Error)
			}
			recovertest.Must(t, g.Serving(recover.StateRunning))
			if stopped == 0 || point != "publish.done" && (next == 0 || next == stopped) {
				t.Errorf("process %d was stopped; at the destroy the keeper was %d", stopped, next)
			}
		})
	}
}

func TestWhatAStoppedKeeperHoldsIsRescuedAllTheSame(t *testing.T) {
	t.Run("by another run", func(t *testing.T) {
		h, g, _ := heldAlone(t)
		stop(t, keeperOf(t, h))
		if i := h.Scan(g); i.Verdict != recover.VerdictRecoverable {
			t.Errorf("a scan calls it %s", i.Verdict)
		}
		report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.OfflineOptions(g))
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
			t.Errorf("%s: %s", r.Outcome, r.Error)
		}
		recovertest.Must(t, g.Back())
	})
	t.Run("by a resume", func(t *testing.T) {
		h, g, id := heldAlone(t)
		stop(t, keeperOf(t, h))
		report, err := h.Resume(t.Context(), id)
		recovertest.Must(t, err)
		if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
			t.Errorf("%s: %s", r.Outcome, r.Error)
		}
		recovertest.Must(t, g.Back())
	})
}
