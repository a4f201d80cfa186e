package recover

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

func TestAGuestThatPowersItselfOffDuringTheRunStaysOffWithItsFilesBack(t *testing.T) {
	for _, when := range []string{"xml", "freeze", "suspend"} {
		t.Run("before "+when, func(t *testing.T) {
			h := newHost(t)
			g := h.add(1, guestOptions{base: "b", agent: true})
			h.purge()
			var once atomic.Bool
			h.hv.before = func(method, uuid string) {
				if method == when && once.CompareAndSwap(false, true) {
					h.hv.change(uuid, func(d *fakeDomain) { d.off() })
				}
			}
			report, err := h.run(t.Context(), CommandRescue, options(g))
			must(t, err)
			if r := g.report(report); r.Outcome != OutcomeRescued {
				t.Fatalf("%+v", r)
			}
			must(t, g.serving(StateShutOff))
			if n := h.hv.called("start", g.uuid); n != 1 {
				t.Errorf("it was started again")
			}
		})
	}
}

// endsWhen has somebody end a guest at the n-th call of a hypervisor's method
// since its suspend.
func endsWhen(h *host, method string, n int) {
	suspended, calls := false, 0
	h.hv.before = func(called, uuid string) {
		suspended = suspended || called == "suspend"
		if suspended && called == method {
			if calls++; calls == n {
				h.hv.change(uuid, (*fakeDomain).off)
			}
		}
	}
}

func TestAGuestThatSomebodyEndsWhileItIsCopiedIsBackAndOff(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b", agent: true})
	h.purge()
	endsWhen(h, "domain", 2) // the look before the destroy
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	must(t, g.serving(StateShutOff))
}

func TestAGuestThatWroteAndWasEndedWhileItIsCopiedIsCopiedAgain(t *testing.T) {
	for name, occupied := range map[string]bool{"": false, "with something new at its path": true} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			g := h.add(1, guestOptions{base: "b"})
			disk, err := os.OpenFile(g.disk, os.O_RDWR, 0)
			must(t, err)
			defer disk.Close()
			h.purge()
			endsWhen(h, "domain", 2)
			end := h.hv.before
			h.hv.before = func(method, uuid string) {
				if end(method, uuid); h.hv.get(uuid).State == StateShutOff && h.hv.get(uuid).qemu == nil && g.content[g.disk][0] != 'X' {
					g.content[g.disk][0] = 'X'
					_, err := disk.WriteAt([]byte("X"), 0)
					must(t, err)
					if occupied {
						must(t, os.MkdirAll(g.dir, 0o755))
						must(t, os.WriteFile(g.disk, []byte("another"), 0o600))
					}
				}
			}
			g.content[g.disk][0] = '.'
			_, err = disk.WriteAt([]byte("."), 0)
			must(t, err)
			report, err := h.run(t.Context(), CommandRescue, options(g))
			must(t, err)
			r := g.report(report)
			if !occupied {
				if r.Outcome != OutcomeRescued {
					t.Fatalf("%+v", r)
				}
				must(t, g.serving(StateShutOff))
				return
			}
			if r.Outcome == OutcomeRescued || !strings.Contains(r.Error, ErrConflict.Error()) {
				t.Errorf("%+v", r)
			}
			// Out of the way, it goes on.
			h.hv.before = nil
			must(t, os.Remove(g.disk))
			report, err = h.resume(t.Context(), report.Run)
			must(t, err)
			if r := g.report(report); r.Outcome != OutcomeRescued {
				t.Errorf("%+v", r)
			}
			must(t, g.back())
		})
	}
}

func TestAGuestThatEndsInTheVeryMomentOfTheLastLookLosesNothing(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b", agent: true})
	h.purge()
	endsWhen(h, "counters", 2)
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	r := g.report(report)
	if r.Outcome != OutcomeRescued {
		if strings.Contains(r.Error, "it is as it was found") {
			t.Errorf("it ran and is off now, and yet: %s", r.Error)
		}
		report, err = h.resume(t.Context(), report.Run)
		must(t, err)
		if r = g.report(report); r.Outcome != OutcomeRescued {
			t.Fatalf("%+v", r)
		}
	}
	must(t, g.serving(StateShutOff))
}

func TestADestroyThatFailsLeavesTheGuestAsItWasFound(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{agent: true})
	pid := h.hv.get(g.uuid).PID
	h.purge()
	h.hv.errs["destroy"] = errors.New("authentication failed")
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeFailed {
		t.Fatalf("%+v", r)
	}
	if err := g.asFound(StateRunning, pid); err != nil {
		t.Error(err)
	}
	h.hv.errs = map[string]error{}
	report, err = h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome == OutcomeSkipped {
		report, err = h.resume(t.Context(), report.Run)
		must(t, err)
	}
	if err := g.serving(StateRunning); err != nil {
		t.Error(err)
	}
}

func TestAGuestThatWroteAfterItsSuspendIsNotDestroyed(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{agent: true})
	pid := h.hv.get(g.uuid).PID
	h.purge()
	n := 0
	h.hv.before = func(method, uuid string) {
		if method != "counters" {
			return
		}
		if n++; n == 2 {
			h.hv.change(uuid, (*fakeDomain).write)
		}
	}
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeFailed || !strings.Contains(r.Error, ErrUnproven.Error()) {
		t.Fatalf("%+v", r)
	}
	must(t, g.asFound(StateRunning, pid))
	if h.hv.called("destroy", g.uuid) != 0 {
		t.Error("it was destroyed")
	}
	if left := h.staged(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if g.pinned() == 0 {
		t.Error("its lost files are not held any more")
	}
}
