package recover

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// rebootHost is a host with guests of which nothing is lost.
func rebootHost(t *testing.T, n int) (*host, []*testGuest) {
	t.Helper()
	h := newHost(t)
	var all []*testGuest
	for i := range n {
		all = append(all, h.add(i+1, guestOptions{}))
	}
	h.online()
	return h, all
}

func rebootAll() Options { return Options{Selection: Selection{All: true}, Parallel: 2} }

func TestRebootRebootsEachIntactInstanceOnce(t *testing.T) {
	for name, remote := range map[string]bool{"of this host": false, "of another host's scan": true} {
		t.Run(name, func(t *testing.T) {
			h, all := rebootHost(t, 3)
			o := rebootAll()
			o.Parallel = 1
			o.Reboot = RebootOptions{BatchSize: 2, BatchWait: time.Millisecond}
			if remote {
				o.Reboot = remotely(h)
			}
			report, err := h.run(t.Context(), CommandReboot, o)
			must(t, err)
			for _, g := range all {
				if r := g.report(report); r.Outcome != OutcomeRescued {
					t.Errorf("%+v", r)
				}
				must(t, g.serving(StateRunning))
				must(t, h.cloud.in(g.uuid, VMActive, false, 1))
				if n := h.hv.called("suspend", g.uuid) + h.hv.called("destroy", g.uuid) + g.pinned(); n > 0 {
					t.Errorf("it was suspended, destroyed or pinned")
				}
			}
			if n := h.cloud.called("Lock", "") + h.cloud.called("Unlock", ""); n > 0 {
				t.Errorf("%d calls about locks", n)
			}
			asked := 0
			if remote { // when it is planned, and before it is asked for
				asked = 2 * len(all)
			}
			if n := h.cloud.called("LastReboot", ""); n != asked {
				t.Errorf("Nova was asked for the last reboot %d times, not %d", n, asked)
			}
			if err := engineStatus(h, report.Run, RunFinished); err != nil {
				t.Error(err)
			}
		})
	}
}

// The instances of one batch are done before the next begins.
func TestRebootGoesByBatches(t *testing.T) {
	h, all := rebootHost(t, 4)
	o := rebootAll()
	o.Parallel = 2
	o.Reboot.BatchSize = 2
	report, err := h.run(t.Context(), CommandReboot, o)
	must(t, err)
	var order []string
	for _, r := range h.records(report.Run) {
		if r.Step == stepInstance {
			order = append(order, string(r.Phase))
		}
	}
	if n := slices.Index(order[2:], "begin"); len(order) != 2*len(all) || n != 2 {
		t.Errorf("%v", order)
	}
}

func TestRebootMeansTheStatesThatAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		states []string
		named  bool
		want   []string // the states of those that are rebooted
		left   string   // in a warning
	}{
		"ACTIVE when none is named": {nil, false, []string{VMActive}, "2 more instances are not ACTIVE"},
		"those named":               {[]string{"active", "ERROR"}, false, []string{VMActive, VMError}, "1 more"},
		"but an instance that is named and not meant is refused": {nil, true, []string{VMActive}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, all := rebootHost(t, 3)
			for n, vm := range []string{VMActive, VMError, VMSuspended} {
				h.cloud.servers[all[n].uuid].to(vm)
			}
			o := rebootAll()
			if c.named {
				o.Selection = options(all...).Selection
			}
			o.Reboot.States = c.states
			report, err := h.run(t.Context(), CommandReboot, o)
			must(t, err)
			for n, vm := range []string{VMActive, VMError, VMSuspended} {
				want := 0
				if slices.Contains(c.want, vm) {
					want = 1
				}
				if s := h.cloud.get(all[n].uuid); s.reboots != want {
					t.Errorf("%s: rebooted %d times", vm, s.reboots)
				}
				if c.named && want == 0 {
					if r := all[n].report(report); r.Outcome != OutcomeSkipped || !strings.Contains(r.Error, "reboots only ACTIVE instances") {
						t.Errorf("%+v", r)
					}
				}
			}
			if !strings.Contains(strings.Join(report.Warnings, ";"), c.left) {
				t.Errorf("%v", report.Warnings)
			}
		})
	}
}

func TestAnInstanceThatIsRebootingIsWaitedForAndNotRebootedTwice(t *testing.T) {
	for name, remote := range map[string]bool{"here": false, "elsewhere": true} {
		t.Run(name, func(t *testing.T) {
			h, all := rebootHost(t, 1)
			g := all[0]
			o := options(g)
			if remote {
				o.Reboot = remotely(h)
			}
			// A soft reboot: the same QEMU goes on.
			h.cloud.change(g.uuid, func(s *fakeServer) {
				s.TaskState, s.Status, s.last = "reboot_started", "REBOOT", "req-owner"
				s.looks, s.task = 4, func(s *fakeServer) { s.to(VMActive) }
			})
			report, err := h.run(t.Context(), CommandReboot, o)
			must(t, err)
			if r := g.report(report); r.Outcome != OutcomeRescued {
				t.Errorf("%+v", r)
			}
			must(t, h.cloud.in(g.uuid, VMActive, false, 0))
			if h.cloud.called("HardReboot", "") > 0 {
				t.Error("it was rebooted again")
			}
		})
	}
}

// Nova destroys a domain before it looks for its files: what QEMU holds is not put
// at risk, however late its files were deleted.
func TestRebootNeverEndsAQEMUThatHoldsLostFiles(t *testing.T) {
	lose := func(g *testGuest) {
		if err := os.Remove(g.disk); err != nil {
			g.h.t.Error(err)
		}
	}
	check := func(t *testing.T, h *host, g *testGuest, report RunReport, pid int) {
		t.Helper()
		if r := g.report(report); r.Outcome != OutcomeSkipped || !strings.Contains(r.Error, "rescue it first") &&
			!strings.Contains(r.Error, "by now") {
			t.Errorf("%+v", r)
		}
		must(t, g.asFound(StateRunning, pid))
		must(t, h.cloud.in(g.uuid, VMActive, false, 0))
	}
	t.Run("lost before", func(t *testing.T) {
		h, all := rebootHost(t, 1)
		lose(all[0])
		pid := h.hv.get(all[0].uuid).PID
		report, err := h.run(t.Context(), CommandReboot, rebootAll())
		must(t, err)
		check(t, h, all[0], report, pid)
	})
	t.Run("lost before the scan of its host", func(t *testing.T) {
		h, all := rebootHost(t, 1)
		lose(all[0])
		pid := h.hv.get(all[0].uuid).PID
		o := rebootAll()
		o.Reboot = remotely(h)
		report, err := h.run(t.Context(), CommandReboot, o)
		must(t, err)
		check(t, h, all[0], report, pid)
	})
	for _, at := range []string{"plan.done", "instance.begin", "reboot.begin"} {
		t.Run("lost at "+at, func(t *testing.T) {
			h, all := rebootHost(t, 1)
			pid := h.hv.get(all[0].uuid).PID
			e := h.engine()
			e.Failpoint = func(point string) {
				if point == at {
					lose(all[0])
				}
			}
			s, err := e.Prepare(t.Context(), CommandReboot, rebootAll())
			must(t, err)
			defer s.Close()
			report, err := s.Execute(t.Context())
			must(t, err)
			check(t, h, all[0], report, pid)
		})
		t.Run("lost between a kill and its resume, at "+at, func(t *testing.T) {
			h, all := rebootHost(t, 1)
			pid := h.hv.get(all[0].uuid).PID
			run, _ := h.crashIn(CommandReboot, rebootAll(), func(e *Engine, here func(string)) {
				e.Failpoint = func(point string) {
					if point == at {
						here(point)
					}
				}
			})
			lose(all[0])
			report, err := h.resume(t.Context(), run)
			must(t, err)
			check(t, h, all[0], report, pid)
		})
	}
	t.Run("lost while Nova answers 409", func(t *testing.T) {
		h, all := rebootHost(t, 1)
		pid := h.hv.get(all[0].uuid).PID
		h.cloud.once["HardReboot"] = []error{ErrTaskUnderWay}
		h.cloud.point = func(point string) {
			if point == "after HardReboot" {
				lose(all[0])
			}
		}
		report, err := h.run(t.Context(), CommandReboot, rebootAll())
		must(t, err)
		check(t, h, all[0], report, pid)
	})
}

func TestAStaleScanIsNotRebootedBy(t *testing.T) {
	h, all := rebootHost(t, 1)
	o := rebootAll()
	o.Reboot = remotely(h)
	o.Reboot.Reports[0].Taken = time.Now().Add(-time.Hour)
	report, err := h.run(t.Context(), CommandReboot, o)
	must(t, err)
	if r := all[0].report(report); r.Outcome != OutcomeSkipped || !strings.Contains(r.Error, "scan that host again") {
		t.Errorf("%+v", r)
	}
	// And not by a fresh one that a kill made old.
	o.Reboot = remotely(h)
	o.Reboot.MaxAge = 200 * time.Millisecond
	run, _ := h.crashIn(CommandReboot, o, func(e *Engine, here func(string)) {
		e.Failpoint = func(point string) {
			if point == "reboot.begin" {
				here(point)
			}
		}
	})
	time.Sleep(o.Reboot.MaxAge)
	report, err = h.resume(t.Context(), run)
	must(t, err)
	if r := all[0].report(report); r.Outcome != OutcomeSkipped || !strings.Contains(r.Error, "scan that host again") {
		t.Errorf("%+v", r)
	}
	must(t, h.cloud.in(all[0].uuid, VMActive, false, 0))
}

func TestAnInstanceThatMovedSinceTheScanIsNotRebooted(t *testing.T) {
	h, all := rebootHost(t, 1)
	o := rebootAll()
	o.Reboot = remotely(h)
	e := h.engine()
	e.Failpoint = func(point string) {
		if point == "plan.done" {
			h.cloud.change(all[0].uuid, func(s *fakeServer) { s.Host = "other" })
		}
	}
	s, err := e.Prepare(t.Context(), CommandReboot, o)
	must(t, err)
	defer s.Close()
	report, err := s.Execute(t.Context())
	must(t, err)
	if r := all[0].report(report); r.Outcome != OutcomeSkipped || h.cloud.called("HardReboot", "") > 0 {
		t.Errorf("%+v", r)
	}
}

// A reboot that was asked for is waited for; no other begins.
func TestCtrlCDuringARebootEndsWhatHasBegunAndNothingElse(t *testing.T) {
	h, all := rebootHost(t, 2)
	h.cloud.taking = 5
	o := rebootAll()
	o.Parallel = 1
	ctx, cancel := context.WithCancel(t.Context())
	h.cloud.point = func(point string) {
		if point == "after HardReboot" {
			cancel()
		}
	}
	s, err := h.engine().Prepare(ctx, CommandReboot, o)
	must(t, err)
	defer s.Close()
	report, err := s.Execute(ctx)
	must(t, err)
	first, second := all[0].report(report), all[1].report(report)
	if first.Outcome != OutcomeRescued || second.Outcome != OutcomeSkipped || !report.Interrupted {
		t.Errorf("%+v\n%+v\n%+v", first, second, report.Interrupted)
	}
	must(t, h.cloud.in(all[0].uuid, VMActive, false, 1))
	must(t, h.cloud.in(all[1].uuid, VMActive, false, 0))
}

// Somebody else's reboot does not hold up who wants to stop, and nothing is asked
// for after that.
func TestCtrlCWhileSomebodyElsesRebootIsWaitedForStopsTheWaiting(t *testing.T) {
	h, all := rebootHost(t, 1)
	h.cloud.change(all[0].uuid, func(s *fakeServer) { s.TaskState = "reboot_started_hard" })
	ctx, cancel := context.WithCancel(t.Context())
	looks := 0
	h.cloud.point = func(point string) {
		if looks++; looks == 6 {
			cancel()
		}
	}
	s, err := h.engine().Prepare(ctx, CommandReboot, rebootAll())
	must(t, err)
	defer s.Close()
	report, err := s.Execute(ctx)
	must(t, err)
	if r := all[0].report(report); r.Outcome != OutcomeSkipped || h.cloud.called("HardReboot", "") > 0 {
		t.Errorf("%+v", r)
	}
}

func TestARebootWhoseEndIsNotKnownIsLeftToResume(t *testing.T) {
	h, all := rebootHost(t, 1)
	g := all[0]
	h.cloud.taking = 1 << 30
	o := rebootAll()
	o.Reboot.Timeout = 50 * time.Millisecond
	report, err := h.run(t.Context(), CommandReboot, o)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeFailed || !strings.Contains(r.Error, "os-rescue resume "+report.Run) {
		t.Errorf("%+v", r)
	}
	h.cloud.change(g.uuid, func(s *fakeServer) { s.looks = 0 })
	report, err = h.resume(t.Context(), report.Run)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Errorf("%+v", r)
	}
	must(t, h.cloud.in(g.uuid, VMActive, false, 1))
}

func TestARebootThatNovaFailsSaysWhyAndIsOver(t *testing.T) {
	h, all := rebootHost(t, 1)
	h.cloud.point = func(point string) {
		if point == "after HardReboot" {
			must(t, os.Remove(all[0].disk))
		}
	}
	report, err := h.run(t.Context(), CommandReboot, rebootAll())
	must(t, err)
	if r := all[0].report(report); r.Outcome != OutcomeFailed || !strings.Contains(r.Error, "No disk at") {
		t.Errorf("%+v", r)
	}
	if err := engineStatus(h, report.Run, RunFinished); err != nil {
		t.Error(err)
	}
}

func TestARebootIsNeverMadeOffline(t *testing.T) {
	h, all := rebootHost(t, 1)
	o := options(all[0])
	o.Offline = true
	if _, err := h.engine().Prepare(t.Context(), CommandReboot, o); !errors.Is(err, ErrUsage) {
		t.Error(err)
	}
}

// The task is set before Nova answers, so one that it has accepted needs no record
// to be seen; one whose answer was lost does.
func TestARebootElsewhereWhoseAnswerWasLostIsLookedForOnRecord(t *testing.T) {
	h, all := rebootHost(t, 1)
	h.cloud.lost["HardReboot"] = errAnswer
	o := rebootAll()
	o.Reboot = remotely(h)
	report, err := h.run(t.Context(), CommandReboot, o)
	must(t, err)
	if r := all[0].report(report); r.Outcome != OutcomeRescued {
		t.Errorf("%+v", r)
	}
	must(t, h.cloud.in(all[0].uuid, VMActive, false, 1))
	if n := h.cloud.called("LastReboot", ""); n != 3 {
		t.Errorf("Nova was asked for the last reboot %d times, not 3: planned, before, after", n)
	}
}
