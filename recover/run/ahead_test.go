package run_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/copier"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestWhatTheGuestWritesWhileItsDiskIsCopiedIsInTheCopy(t *testing.T) {
	for _, point := range []string{"ahead.begin", "ahead.done", "freeze.done", "suspend.begin"} {
		t.Run(point, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b", Agent: true})
			disk := g.Opened(t)
			h.Purge()
			e := h.Engine()
			e.Failpoint = func(at string) {
				if at == point {
					g.Writes(t, disk, 5, "written")
					g.Writes(t, disk, 70<<10, "into a hole")
					g.Writes(t, disk, 200<<10, "behind the end")
				}
			}
			s, err := e.Prepare(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			defer s.Close()
			report, err := s.Execute(t.Context())
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.Serving(recover.StateRunning))
		})
	}
}

// The guest goes on after the crash, so that what was copied ahead is old.
func TestWhatWasCopiedAheadOfACrashIsNeverTakenForProven(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]bool{"the guest runs on": false, "the guest ends": true} {
		first := runtest.NewHost(t)
		for k := crashPoint(t, first, recovertest.GuestOptions{}, "ahead.begin"); ; k++ {
			h := first.Elsewhere(t)
			g := h.Add(k, recovertest.GuestOptions{})
			disk := g.Opened(t)
			h.Purge()
			run, point := h.CrashAt(recover.CommandRescue, recovertest.Options(g), k)
			where := fmt.Sprintf("%s, %d %s", name, k, point)
			if run == "" || point == "suspend.done" {
				h.HV.EndAll()
				break
			}
			g.Writes(t, disk, 7, "after the crash")
			want := recover.StateRunning
			if off {
				h.HV.Change(g.UUID, (*recovertest.FakeDomain).Off)
				want = recover.StateShutOff
			}
			report, err := h.Resume(t.Context(), run)
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Errorf("%s: %+v", where, r)
			}
			if err := g.Serving(want); err != nil {
				t.Errorf("%s: %v", where, err)
			}
			if left := h.Staged(); len(left) > 0 {
				t.Errorf("%s: left behind: %v", where, left)
			}
			h.HV.EndAll()
		}
	}
}

func TestAResumeGoesOnWithWhatWasCopiedAhead(t *testing.T) {
	h, g, run := crashed(t, recovertest.GuestOptions{}, "ahead.done")
	h.HV.Change(g.UUID, (*recovertest.FakeDomain).Off)
	_, err := h.Resume(t.Context(), run)
	recovertest.Must(t, err)
	recovertest.Must(t, g.Serving(recover.StateShutOff))
	histories, err := journal.HistoriesOf(h.Journal(run))
	recovertest.Must(t, err)
	if rec := histories[g.UUID].Copies[g.Disk]; rec.Method != copier.MethodAhead {
		t.Errorf("it was copied anew: %+v", rec)
	}
}

// After a power cut what was copied while the guest ran is all that is left of it.
func TestAPowerCutLeavesWhatWasCopiedAheadAndSaysWhere(t *testing.T) {
	h, g, run := crashed(t, recovertest.GuestOptions{}, "suspend.begin")
	h.HV.Change(g.UUID, (*recovertest.FakeDomain).Off)
	h.KillKeeper()
	report, err := h.Resume(t.Context(), run)
	recovertest.Must(t, err)
	r := g.Report(report)
	var left string
	for _, path := range h.Staged() {
		if strings.HasPrefix(filepath.Base(path), g.UUID) {
			left = path
		}
	}
	if r.Outcome != recover.OutcomeFailed || left == "" || !strings.Contains(r.Error, left) {
		t.Errorf("left: %q, and it says %+v", left, r)
	}
}

func TestAGuestThatDoesNotRunIsNotCopiedAhead(t *testing.T) {
	for _, state := range []recover.DomainState{recover.StatePaused} {
		h := runtest.NewHost(t)
		g := h.Add(1, recovertest.GuestOptions{State: state})
		h.Purge()
		report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
		recovertest.Must(t, err)
		for _, p := range runtest.Points(h.Journal(report.Run)) {
			if strings.HasPrefix(p, journal.StepAhead) {
				t.Errorf("%s: %s", state, p)
			}
		}
	}
}

func TestWhatGoesWrongWhileADiskIsCopiedAheadLeavesTheGuestAlone(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, h *runtest.Host, cancel func()){
		"it is interrupted": func(_ *testing.T, _ *runtest.Host, cancel func()) { cancel() },
		"the file system fills up": func(t *testing.T, h *runtest.Host, _ func()) {
			err := os.WriteFile(filepath.Join(h.Settings.InstancesPath, "other"), make([]byte, 4<<20), 0o600)
			if !errors.Is(err, unix.ENOSPC) {
				t.Errorf("there is room left: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := runtest.SmallHost(t, "2m")
			g := h.Add(1, recovertest.GuestOptions{Agent: true})
			disk := g.Opened(t)
			pid := h.HV.Get(g.UUID).PID
			h.Purge()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			e := h.Engine()
			e.Failpoint = func(point string) {
				if point == "ahead.done" {
					g.Writes(t, disk, 300<<10, strings.Repeat("grown", 9999))
					spoil(t, h, cancel)
				}
			}
			s, err := e.Prepare(ctx, recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			defer s.Close()
			report, err := s.Execute(ctx)
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if r := g.Report(report); r.Outcome == recover.OutcomeRescued {
				t.Errorf("%+v", r)
			}
			recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
			if n := h.HV.Called("suspend", g.UUID); n > 0 {
				t.Error("the guest was suspended")
			}
			if left := h.Staged(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
