package run_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/journal"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/test/lab/patience"
)

// rebootHost is a host with guests of which nothing is lost.
func rebootHost(t *testing.T, n int) (*runtest.Host, []*recovertest.Guest) {
	t.Helper()
	h := runtest.NewHost(t)
	var all []*recovertest.Guest
	for i := range n {
		all = append(all, h.Add(i+1, recovertest.GuestOptions{}))
	}
	h.Online()
	return h, all
}

func rebootAll() recover.Options {
	return recover.Options{Selection: recover.Selection{All: true}, Parallel: 2}
}

func TestRebootRebootsEachIntactInstanceOnce(t *testing.T) {
	for name, remote := range map[string]bool{"of this host": false, "of another host's scan": true} {
		t.Run(name, func(t *testing.T) {
			h, all := rebootHost(t, 3)
			o := rebootAll()
			o.Parallel = 1
			o.Reboot = recover.RebootOptions{BatchSize: 2, BatchWait: time.Millisecond}
			if remote {
				o.Reboot = remotely(h)
			}
			report, err := h.Run(t.Context(), recover.CommandReboot, o)
			recovertest.Must(t, err)
			for _, g := range all {
				if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
					t.Errorf("%+v", r)
				}
				recovertest.Must(t, g.Serving(recover.StateRunning))
				recovertest.Must(t, h.Cloud.In(g.UUID, recover.VMActive, false, 1))
				if n := h.HV.Called("suspend", g.UUID) + h.HV.Called("destroy", g.UUID) + g.Pinned(); n > 0 {
					t.Errorf("it was suspended, destroyed or pinned")
				}
			}
			if n := h.Cloud.Called("Lock", "") + h.Cloud.Called("Unlock", ""); n > 0 {
				t.Errorf("%d calls about locks", n)
			}
			asked := 0
			if remote { // when it is planned, and before it is asked for
				asked = 2 * len(all)
			}
			if n := h.Cloud.Called("LastReboot", ""); n != asked {
				t.Errorf("Nova was asked for the last reboot %d times, not %d", n, asked)
			}
			if err := engineStatus(h, report.Run, recover.RunFinished); err != nil {
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
	report, err := h.Run(t.Context(), recover.CommandReboot, o)
	recovertest.Must(t, err)
	var order []string
	for _, r := range h.Journal(report.Run) {
		if r.Step == journal.StepInstance {
			order = append(order, string(r.Phase))
		}
	}
	if n := slices.Index(order[2:], "begin"); len(order) != 2*len(all) || n != 2 {
		t.Errorf("%v", order)
	}
}

// Nova fetches it again before it starts the guest.
func TestAnInstanceThatLacksNothingButItsKernelIsRebooted(t *testing.T) {
	for kernel, reboots := range map[string]int{"kernel": 1, "kernel-6.1": 0} {
		h, all := rebootHost(t, 1)
		g := all[0]
		h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) {
			d.Boot = recover.BootFiles(filepath.Join(g.Dir, kernel), "", "")
		})
		if i := h.Scan(g); i.Verdict != recover.VerdictConflict || i.LacksBootFilesOnly() != (reboots > 0) {
			t.Errorf("%s: %s %v", kernel, i.Verdict, i.Reasons)
		}
		report, err := h.Run(t.Context(), recover.CommandReboot, rebootAll())
		recovertest.Must(t, err)
		if n := h.Cloud.Get(g.UUID).Reboots; n != reboots {
			t.Errorf("%s: rebooted %d times: %+v", kernel, n, g.Report(report))
		}
	}
}

func TestRebootMeansTheStatesThatAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		states []string
		named  bool
		want   []string // the states of those that are rebooted
		left   string   // in a warning
	}{
		"ACTIVE when none is named": {nil, false, []string{recover.VMActive}, "2 more instances are not ACTIVE"},
		"those named":               {[]string{"active", "ERROR"}, false, []string{recover.VMActive, recover.VMError}, "1 more"},
		"but an instance that is named and not meant is refused": {nil, true, []string{recover.VMActive}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, all := rebootHost(t, 3)
			for n, vm := range []string{recover.VMActive, recover.VMError, recover.VMSuspended} {
				h.Cloud.Instances[all[n].UUID].To(vm)
			}
			o := rebootAll()
			if c.named {
				o.Selection = recovertest.Options(all...).Selection
			}
			o.Reboot.States = c.states
			report, err := h.Run(t.Context(), recover.CommandReboot, o)
			recovertest.Must(t, err)
			for n, vm := range []string{recover.VMActive, recover.VMError, recover.VMSuspended} {
				want := 0
				if slices.Contains(c.want, vm) {
					want = 1
				}
				if s := h.Cloud.Get(all[n].UUID); s.Reboots != want {
					t.Errorf("%s: rebooted %d times", vm, s.Reboots)
				}
				if c.named && want == 0 {
					if r := all[n].Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "reboots only ACTIVE instances") {
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
			o := recovertest.Options(g)
			if remote {
				o.Reboot = remotely(h)
			}
			// A soft reboot: the same QEMU goes on.
			h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) {
				s.TaskState, s.Status, s.Last = "reboot_started", "REBOOT", "req-owner"
				s.Looks, s.Task = 4, func(s *recovertest.FakeServer) { s.To(recover.VMActive) }
			})
			report, err := h.Run(t.Context(), recover.CommandReboot, o)
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Errorf("%+v", r)
			}
			recovertest.Must(t, h.Cloud.In(g.UUID, recover.VMActive, false, 0))
			if h.Cloud.Called("HardReboot", "") > 0 {
				t.Error("it was rebooted again")
			}
		})
	}
}

// Nova destroys a domain before it looks for its files: what QEMU holds is not put
// at risk, however late its files were deleted.
func TestRebootNeverEndsAQEMUThatHoldsLostFiles(t *testing.T) {
	lose := func(g *recovertest.Guest) {
		if err := os.Remove(g.Disk); err != nil {
			g.H.T.Error(err)
		}
	}
	check := func(t *testing.T, h *runtest.Host, g *recovertest.Guest, report recover.RunReport, pid int) {
		t.Helper()
		if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "rescue it first") &&
			!strings.Contains(r.Error, "by now") {
			t.Errorf("%+v", r)
		}
		recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
		recovertest.Must(t, h.Cloud.In(g.UUID, recover.VMActive, false, 0))
	}
	t.Run("lost before", func(t *testing.T) {
		h, all := rebootHost(t, 1)
		lose(all[0])
		pid := h.HV.Get(all[0].UUID).PID
		report, err := h.Run(t.Context(), recover.CommandReboot, rebootAll())
		recovertest.Must(t, err)
		check(t, h, all[0], report, pid)
	})
	t.Run("lost before the scan of its host", func(t *testing.T) {
		h, all := rebootHost(t, 1)
		lose(all[0])
		pid := h.HV.Get(all[0].UUID).PID
		o := rebootAll()
		o.Reboot = remotely(h)
		report, err := h.Run(t.Context(), recover.CommandReboot, o)
		recovertest.Must(t, err)
		check(t, h, all[0], report, pid)
	})
	for _, at := range []string{"plan.done", "instance.begin", "reboot.begin"} {
		t.Run("lost at "+at, func(t *testing.T) {
			h, all := rebootHost(t, 1)
			pid := h.HV.Get(all[0].UUID).PID
			e := h.Engine()
			e.Failpoint = func(point string) {
				if point == at {
					lose(all[0])
				}
			}
			s, err := e.Prepare(t.Context(), recover.CommandReboot, rebootAll())
			recovertest.Must(t, err)
			defer s.Close()
			report, err := s.Execute(t.Context())
			recovertest.Must(t, err)
			check(t, h, all[0], report, pid)
		})
		t.Run("lost between a kill and its resume, at "+at, func(t *testing.T) {
			h, all := rebootHost(t, 1)
			pid := h.HV.Get(all[0].UUID).PID
			id, _ := h.CrashIn(recover.CommandReboot, rebootAll(), func(e *run.Engine, here func(string)) {
				e.Failpoint = func(point string) {
					if point == at {
						here(point)
					}
				}
			})
			lose(all[0])
			report, err := h.Resume(t.Context(), id)
			recovertest.Must(t, err)
			check(t, h, all[0], report, pid)
		})
	}
	t.Run("lost while Nova answers 409", func(t *testing.T) {
		h, all := rebootHost(t, 1)
		pid := h.HV.Get(all[0].UUID).PID
		h.Cloud.Once["HardReboot"] = []error{recover.ErrTaskUnderWay}
		h.Cloud.Point = func(point string) {
			if point == "after HardReboot" {
				lose(all[0])
			}
		}
		report, err := h.Run(t.Context(), recover.CommandReboot, rebootAll())
		recovertest.Must(t, err)
		check(t, h, all[0], report, pid)
	})
}

func TestAStaleScanIsNotRebootedBy(t *testing.T) {
	h, all := rebootHost(t, 1)
	o := rebootAll()
	o.Reboot = remotely(h)
	o.Reboot.Reports[0].Taken = time.Now().Add(-time.Hour)
	report, err := h.Run(t.Context(), recover.CommandReboot, o)
	recovertest.Must(t, err)
	if r := all[0].Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "scan that host again") {
		t.Errorf("%+v", r)
	}
	// And not by a fresh one that a kill made old.
	o.Reboot = remotely(h)
	o.Reboot.MaxAge = patience.Of(2 * time.Second)
	id, _ := h.CrashIn(recover.CommandReboot, o, func(e *run.Engine, here func(string)) {
		e.Failpoint = func(point string) {
			if point == "reboot.begin" {
				here(point)
			}
		}
	})
	time.Sleep(o.Reboot.MaxAge)
	report, err = h.Resume(t.Context(), id)
	recovertest.Must(t, err)
	if r := all[0].Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "scan that host again") {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, h.Cloud.In(all[0].UUID, recover.VMActive, false, 0))
}

func TestAnInstanceThatMovedSinceTheScanIsNotRebooted(t *testing.T) {
	h, all := rebootHost(t, 1)
	o := rebootAll()
	o.Reboot = remotely(h)
	e := h.Engine()
	e.Failpoint = func(point string) {
		if point == "plan.done" {
			h.Cloud.Change(all[0].UUID, func(s *recovertest.FakeServer) { s.Host = "other" })
		}
	}
	s, err := e.Prepare(t.Context(), recover.CommandReboot, o)
	recovertest.Must(t, err)
	defer s.Close()
	report, err := s.Execute(t.Context())
	recovertest.Must(t, err)
	if r := all[0].Report(report); r.Outcome != recover.OutcomeSkipped || h.Cloud.Called("HardReboot", "") > 0 {
		t.Errorf("%+v", r)
	}
}

// A reboot that was asked for is waited for; no other begins.
func TestCtrlCDuringARebootEndsWhatHasBegunAndNothingElse(t *testing.T) {
	h, all := rebootHost(t, 2)
	h.Cloud.Taking = 5
	o := rebootAll()
	o.Parallel = 1
	ctx, cancel := context.WithCancel(t.Context())
	h.Cloud.Point = func(point string) {
		if point == "after HardReboot" {
			cancel()
		}
	}
	s, err := h.Engine().Prepare(ctx, recover.CommandReboot, o)
	recovertest.Must(t, err)
	defer s.Close()
	report, err := s.Execute(ctx)
	recovertest.Must(t, err)
	first, second := all[0].Report(report), all[1].Report(report)
	if first.Outcome != recover.OutcomeRescued || second.Outcome != recover.OutcomeInterrupted || !report.Interrupted {
		t.Errorf("%+v\n%+v\n%+v", first, second, report.Interrupted)
	}
	recovertest.Must(t, h.Cloud.In(all[0].UUID, recover.VMActive, false, 1))
	recovertest.Must(t, h.Cloud.In(all[1].UUID, recover.VMActive, false, 0))
}

// Somebody else's reboot does not hold up who wants to stop, and nothing is asked
// for after that.
func TestCtrlCWhileSomebodyElsesRebootIsWaitedForStopsTheWaiting(t *testing.T) {
	h, all := rebootHost(t, 1)
	h.Cloud.Change(all[0].UUID, func(s *recovertest.FakeServer) { s.TaskState = "reboot_started_hard" })
	ctx, cancel := context.WithCancel(t.Context())
	looks := 0
	h.Cloud.Point = func(point string) {
		if looks++; looks == 6 {
			cancel()
		}
	}
	s, err := h.Engine().Prepare(ctx, recover.CommandReboot, rebootAll())
	recovertest.Must(t, err)
	defer s.Close()
	report, err := s.Execute(ctx)
	recovertest.Must(t, err)
	r := all[0].Report(report)
	if r.Outcome != recover.OutcomeInterrupted || !strings.Contains(r.Error, "It was not rebooted") || h.Cloud.Called("HardReboot", "") > 0 {
		t.Errorf("%+v", r)
	}
}

func TestARebootWhoseEndIsNotKnownIsLeftToResume(t *testing.T) {
	h, all := rebootHost(t, 1)
	g := all[0]
	h.Cloud.Taking = 1 << 30
	o := rebootAll()
	o.Reboot.Timeout = 50 * time.Millisecond
	report, err := h.Run(t.Context(), recover.CommandReboot, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "os-rescue resume "+report.Run) {
		t.Errorf("%+v", r)
	}
	h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { s.Looks = 0 })
	report, err = h.Resume(t.Context(), report.Run)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, h.Cloud.In(g.UUID, recover.VMActive, false, 1))
}

func TestARebootThatNovaFailsSaysWhyAndIsOver(t *testing.T) {
	h, all := rebootHost(t, 1)
	h.Cloud.Point = func(point string) {
		if point == "after HardReboot" {
			recovertest.Must(t, os.Remove(all[0].Disk))
		}
	}
	report, err := h.Run(t.Context(), recover.CommandReboot, rebootAll())
	recovertest.Must(t, err)
	if r := all[0].Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "No disk at") {
		t.Errorf("%+v", r)
	}
	if err := engineStatus(h, report.Run, recover.RunFinished); err != nil {
		t.Error(err)
	}
}

func TestARebootIsNeverMadeOffline(t *testing.T) {
	h, all := rebootHost(t, 1)
	o := recovertest.Options(all[0])
	o.Offline = true
	if _, err := h.Engine().Prepare(t.Context(), recover.CommandReboot, o); !errors.Is(err, recover.ErrUsage) {
		t.Error(err)
	}
}

// The task is set before Nova answers, so one that it has accepted needs no record
// to be seen; one whose answer was lost does.
func TestARebootElsewhereWhoseAnswerWasLostIsLookedForOnRecord(t *testing.T) {
	h, all := rebootHost(t, 1)
	h.Cloud.Lost["HardReboot"] = recovertest.ErrAnswer
	o := rebootAll()
	o.Reboot = remotely(h)
	report, err := h.Run(t.Context(), recover.CommandReboot, o)
	recovertest.Must(t, err)
	if r := all[0].Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, h.Cloud.In(all[0].UUID, recover.VMActive, false, 1))
	if n := h.Cloud.Called("LastReboot", ""); n != 3 {
		t.Errorf("Nova was asked for the last reboot %d times, not 3: planned, before, after", n)
	}
}

// The plan and every look after it compare what was replaced with the same bytes.
func TestAnInstanceWhoseBaseWasMadeAgainWithItsBytesIsRebooted(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b"})
	h.Online()
	content, err := os.ReadFile(g.Base)
	recovertest.Must(t, err)
	recovertest.Must(t, os.Remove(g.Base))
	recovertest.Must(t, os.WriteFile(g.Base, content, 0o644))
	report, err := h.Run(t.Context(), recover.CommandReboot, rebootAll())
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, h.Cloud.In(g.UUID, recover.VMActive, false, 1))
}
