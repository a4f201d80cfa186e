package recover

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
)

// brought checks that an instance is back in service after a run and its resume:
// in Nova and in libvirt, with its data, rebooted exactly once.
func brought(t *testing.T, where string, h *host, g *testGuest, run string, found DomainState, locked bool) {
	t.Helper()
	vm := VMActive
	if found == StatePaused {
		vm = VMPaused
	}
	if err := g.serving(found); err != nil {
		t.Errorf("%s: %v", where, err)
	}
	if err := h.cloud.in(g.uuid, vm, locked, 1); err != nil {
		t.Errorf("%s: %v", where, err)
	}
	if n := h.hv.called("destroy", g.uuid); n != 1 {
		t.Errorf("%s: destroyed %d times", where, n)
	}
	if left := h.staged(); len(left) > 0 {
		t.Errorf("%s: left behind: %v", where, left)
	}
	if n := g.pinned(); n != 0 {
		t.Errorf("%s: the keeper still holds %d files", where, n)
	}
	if status, err := h.runs().find(run); err != nil || status.State != RunFinished {
		t.Errorf("%s: the run is %s, %v", where, status.State, err)
	}
}

// firstOnline runs a rescue with Nova that nothing disturbs, and returns the number
// of its first journal record of that name.
func firstOnline(t *testing.T, first *host, add guestOptions, point string) int {
	t.Helper()
	h := first.elsewhere(t)
	g := h.add(900, add)
	h.online()
	h.purge()
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	said := points(h.records(report.Run))
	n := slices.Index(said, point)
	if n < 0 {
		t.Fatalf("no record %s in %v", point, said)
	}
	h.hv.endAll()
	return n + 1
}

// Every point that a run with Nova adds, and all between them.
func TestResumeOnlineAfterKill9AtEveryJournalPointRebootsOnceAndUnlocks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		state  DomainState
		locked bool
		from   string
	}{
		"running":                 {StateRunning, false, "lock.begin"},
		"paused and found locked": {StatePaused, true, "destroy.begin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := newHost(t)
			add := guestOptions{base: "b", agent: true, state: c.state}
			for k := firstOnline(t, first, add, c.from); ; k++ {
				h := first.elsewhere(t)
				add.base = fmt.Sprint("b", k)
				g := h.add(k, add)
				cloud := h.online()
				if c.locked {
					cloud.change(g.uuid, func(s *fakeServer) { s.Locked, s.LockedReason = true, "the owner's" })
				}
				h.purge()
				run, point := h.crashAt(CommandRescue, options(g), k)
				if run == "" {
					if k < 20 {
						t.Fatalf("only %d journal points", k)
					}
					return
				}
				if point == "run.done" {
					continue
				}
				where := fmt.Sprintf("%d %s", k, point)
				report, err := h.resume(t.Context(), run)
				if err != nil {
					t.Errorf("%s: %v", where, err)
				} else if r := g.report(report); r.Outcome != OutcomeRescued && r.Outcome != OutcomeIntact {
					t.Errorf("%s: %+v", where, r)
				}
				brought(t, where, h, g, run, c.state, c.locked)
				h.hv.endAll()
			}
		})
	}
}

// A kill between what Nova did and what the run could note of it.
func TestResumeOnlineAfterKill9AroundEveryRequestRebootsOnceAndUnlocks(t *testing.T) {
	t.Parallel()
	for state, from := range map[DomainState]string{StateRunning: "before Lock", StatePaused: "before HardReboot"} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			first := newHost(t)
			for k := int32(1); ; k++ {
				h := first.elsewhere(t)
				g := h.add(int(k), guestOptions{state: state})
				cloud := h.online()
				h.purge()
				var n atomic.Int32
				run, point := h.crashIn(CommandRescue, options(g), func(_ *Engine, here func(string)) {
					cloud.point = func(point string) {
						if n.Load() == 0 && point != from {
							return
						}
						if n.Add(1) == k {
							here(point)
						}
					}
				})
				cloud.point = nil
				if run == "" {
					if k < 10 {
						t.Fatalf("only %d points around requests", k)
					}
					return
				}
				where := fmt.Sprintf("%d %s", k, point)
				report, err := h.resume(t.Context(), run)
				if err != nil {
					t.Errorf("%s: %v", where, err)
				} else if r := g.report(report); r.Outcome != OutcomeRescued {
					t.Errorf("%s: %+v", where, r)
				}
				brought(t, where, h, g, run, state, false)
				h.hv.endAll()
			}
		})
	}
}

func TestResumeOfARebootAfterKill9RebootsExactlyOnce(t *testing.T) {
	t.Parallel()
	for _, remote := range []bool{false, true} {
		t.Run(fmt.Sprintf("remote=%t", remote), func(t *testing.T) {
			t.Parallel()
			first := newHost(t)
			for k := int32(1); ; k++ {
				h := first.elsewhere(t)
				g := h.add(int(k), guestOptions{})
				cloud := h.online()
				o := options(g)
				if remote {
					o.Reboot = remotely(h)
				}
				var n atomic.Int32
				run, point := h.crashIn(CommandReboot, o, func(e *Engine, here func(string)) {
					at := func(point string) {
						if n.Add(1) == k {
							here(point)
						}
					}
					cloud.point, e.Failpoint = at, at
				})
				if run == "" {
					if k < 12 {
						t.Fatalf("only %d points", k)
					}
					return
				}
				where := fmt.Sprintf("%d %s", k, point)
				planned := slices.Contains(points(h.records(run)), "plan.done")
				cloud.point = nil
				report, err := h.resume(t.Context(), run)
				want := 1
				switch {
				case point == "run.done":
				case remote && !planned: // the scans are gone
					want = 0
					if err == nil {
						t.Errorf("%s: it was resumed without its scans: %+v", where, report)
					}
				case err != nil:
					t.Errorf("%s: %v", where, err)
				case g.report(report).Outcome != OutcomeRescued:
					t.Errorf("%s: %+v", where, report)
				}
				if err := cloud.in(g.uuid, VMActive, false, want); err != nil {
					t.Errorf("%s: %v", where, err)
				}
				h.hv.endAll()
			}
		})
	}
}

// remotely is how another place reboots this host's instances, by a scan made now.
func remotely(h *host) RebootOptions {
	h.t.Helper()
	scan, err := h.scanAll(h.t.Context())
	must(h.t, err)
	return RebootOptions{Remote: true, Reports: []Report{scan}, MaxAge: 600e9}
}

// crashOnline kills a rescue at the first record of that name.
func crashOnline(t *testing.T, add guestOptions, point string) (*host, *testGuest, string) {
	t.Helper()
	first := newHost(t)
	h := first.elsewhere(t)
	g := h.add(1, add)
	h.online()
	h.purge()
	run, _ := h.crashIn(CommandRescue, options(g), func(e *Engine, here func(string)) {
		e.Failpoint = func(p string) {
			if p == point {
				here(p)
			}
		}
	})
	if run == "" {
		t.Fatalf("it was never at %s", point)
	}
	return h, g, run
}

func resumeOffline(h *host, ctx context.Context, run string) (RunReport, error) {
	h.t.Helper()
	s, err := h.engine().PrepareResume(ctx, run, true)
	if err != nil {
		return RunReport{}, err
	}
	defer s.Close()
	return s.Execute(ctx)
}

// It was paused again before the kill: who lets it go on after that means it.
func TestResumeDoesNotPauseAGuestThatSomebodyLetGoOnSince(t *testing.T) {
	h, g, run := crashOnline(t, guestOptions{state: StatePaused}, "unpin.done")
	must(t, h.hv.Resume(t.Context(), g.uuid))
	h.cloud.change(g.uuid, func(s *fakeServer) { s.to(VMActive) })
	report, err := h.resume(t.Context(), run)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Errorf("%+v", r)
	}
	brought(t, "", h, g, run, StateRunning, false)
}

// The domain is off at the first look and runs at the second.
func TestResumeInTheMiddleOfARebootWaitsForItsEnd(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{})
	cloud := h.online()
	cloud.taking = 6
	h.purge()
	run, _ := h.crashIn(CommandRescue, options(g), func(_ *Engine, here func(string)) {
		cloud.point = func(point string) {
			if point == "after HardReboot" {
				here(point)
			}
		}
	})
	cloud.point = nil
	h.hv.before = func(method, uuid string) {
		if method == "xml" { // the run takes it for off, and saves its definition
			for cloud.get(uuid).TaskState != "" {
				_, _ = cloud.Server(t.Context(), uuid)
			}
		}
	}
	report, err := h.resume(t.Context(), run)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Errorf("%+v", r)
	}
	brought(t, "", h, g, run, StateRunning, false)
}
