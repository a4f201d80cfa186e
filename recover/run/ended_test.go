package run_test

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestAGuestThatPowersItselfOffDuringTheRunStaysOffWithItsFilesBack(t *testing.T) {
	for _, when := range []string{"xml", "freeze", "suspend"} {
		t.Run("before "+when, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b", Agent: true})
			h.Purge()
			var once atomic.Bool
			h.HV.Before = func(method, uuid string) {
				if method == when && once.CompareAndSwap(false, true) {
					h.HV.Change(uuid, func(d *recovertest.FakeDomain) { d.Off() })
				}
			}
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			recovertest.Must(t, g.Serving(recover.StateShutOff))
			if n := h.HV.Called("start", g.UUID); n != 1 {
				t.Errorf("it was started again")
			}
		})
	}
}

// endsWhen has somebody end a guest at the n-th call of a hypervisor's method
// since its suspend.
func endsWhen(h *runtest.Host, method string, n int) {
	suspended, calls := false, 0
	h.HV.Before = func(called, uuid string) {
		suspended = suspended || called == "suspend"
		if suspended && called == method {
			if calls++; calls == n {
				h.HV.Change(uuid, (*recovertest.FakeDomain).Off)
			}
		}
	}
}

func TestAGuestThatSomebodyEndsWhileItIsCopiedIsBackAndOff(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Agent: true})
	h.Purge()
	endsWhen(h, "domain", 2) // the look before the destroy
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateShutOff))
}

func TestAGuestThatWroteAndWasEndedWhileItIsCopiedIsCopiedAgain(t *testing.T) {
	for name, occupied := range map[string]bool{"": false, "with something new at its path": true} {
		t.Run(name, func(t *testing.T) {
			h := runtest.NewHost(t)
			g := h.Add(1, recovertest.GuestOptions{Base: "b"})
			disk, err := os.OpenFile(g.Disk, os.O_RDWR, 0)
			recovertest.Must(t, err)
			defer disk.Close()
			h.Purge()
			endsWhen(h, "domain", 2)
			end := h.HV.Before
			h.HV.Before = func(method, uuid string) {
				if end(method, uuid); h.HV.Get(uuid).State == recover.StateShutOff && h.HV.Get(uuid).QEMU == nil && g.Content[g.Disk][0] != 'X' {
					g.Content[g.Disk][0] = 'X'
					_, err := disk.WriteAt([]byte("X"), 0)
					recovertest.Must(t, err)
					if occupied {
						recovertest.Must(t, os.MkdirAll(g.Dir, 0o755))
						recovertest.Must(t, os.WriteFile(g.Disk, []byte("another"), 0o600))
					}
				}
			}
			g.Content[g.Disk][0] = '.'
			_, err = disk.WriteAt([]byte("."), 0)
			recovertest.Must(t, err)
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			r := g.Report(report)
			if !occupied {
				if r.Outcome != recover.OutcomeRescued {
					t.Fatalf("%+v", r)
				}
				recovertest.Must(t, g.Serving(recover.StateShutOff))
				return
			}
			if r.Outcome == recover.OutcomeRescued || !strings.Contains(r.Error, recover.ErrConflict.Error()) {
				t.Errorf("%+v", r)
			}
			// Out of the way, it goes on.
			h.HV.Before = nil
			recovertest.Must(t, os.Remove(g.Disk))
			report, err = h.Resume(t.Context(), report.Run)
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Errorf("%+v", r)
			}
			recovertest.Must(t, g.Back())
		})
	}
}

func TestAGuestThatEndsInTheVeryMomentOfTheLastLookLosesNothing(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Agent: true})
	h.Purge()
	endsWhen(h, "counters", 2)
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	r := g.Report(report)
	if r.Outcome != recover.OutcomeRescued {
		if strings.Contains(r.Error, "is as it was found") {
			t.Errorf("it ran and is off now, and yet: %s", r.Error)
		}
		report, err = h.Resume(t.Context(), report.Run)
		recovertest.Must(t, err)
		if r = g.Report(report); r.Outcome != recover.OutcomeRescued {
			t.Fatalf("%+v", r)
		}
	}
	recovertest.Must(t, g.Serving(recover.StateShutOff))
}

func TestADestroyThatFailsLeavesTheGuestAsItWasFound(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Agent: true})
	pid := h.HV.Get(g.UUID).PID
	h.Purge()
	h.HV.Errs["destroy"] = errors.New("authentication failed")
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeFailed {
		t.Fatalf("%+v", r)
	}
	if err := g.AsFound(recover.StateRunning, pid); err != nil {
		t.Error(err)
	}
	h.HV.Errs = map[string]error{}
	report, err = h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome == recover.OutcomeSkipped {
		report, err = h.Resume(t.Context(), report.Run)
		recovertest.Must(t, err)
	}
	if err := g.Serving(recover.StateRunning); err != nil {
		t.Error(err)
	}
}

func TestAGuestThatWroteAfterItsSuspendIsNotDestroyed(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Agent: true})
	pid := h.HV.Get(g.UUID).PID
	h.Purge()
	n := 0
	h.HV.Before = func(method, uuid string) {
		if method != "counters" {
			return
		}
		if n++; n == 2 {
			h.HV.Change(uuid, (*recovertest.FakeDomain).Write)
		}
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, recover.ErrUnproven.Error()) {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
	if h.HV.Called("destroy", g.UUID) != 0 {
		t.Error("it was destroyed")
	}
	if left := h.Staged(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if g.Pinned() == 0 {
		t.Error("its lost files are not held any more")
	}
}
