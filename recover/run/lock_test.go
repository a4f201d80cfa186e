package run_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
)

func TestARescueWithNovaLocksBeforeItTouchesAndUnlocksAtTheEnd(t *testing.T) {
	h, g := onlineHost(t, recovertest.GuestOptions{Base: "b", Console: true, Config: true, Agent: true})
	h.HV.Before = func(method, uuid string) {
		if method != "suspend" && method != "freeze" && method != "destroy" {
			return
		}
		s := h.Cloud.Get(uuid)
		if !s.Locked || !strings.HasPrefix(s.LockedReason, "os-rescue 20") {
			t.Errorf("at %s it was not locked: %q", method, s.LockedReason)
		}
		h.Cloud.Mu.Lock()
		defer h.Cloud.Mu.Unlock()
		lock := slices.Index(h.Cloud.Calls, "Lock "+uuid)
		if !slices.Contains(h.Cloud.Calls[lock:], "Server "+uuid) {
			t.Errorf("at %s it was not read again after its lock", method)
		}
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued || r.Error != "" || r.DowntimeSeconds <= 0 {
		t.Fatalf("%+v", r)
	}
	brought(t, "", h, g, report.Run, recover.StateRunning, false)
	if n := h.Cloud.Called("HardReboot", g.UUID); n != 1 {
		t.Errorf("%d requests for a hard reboot", n)
	}
	at := 0
	for _, want := range []string{"lock.begin", "lock.done", "instance.begin", "suspend.begin", "destroy.done", "publish.done",
		"reboot.begin", "reboot.done", "unpin.done", "unlock.done", "instance.done"} {
		n := slices.Index(runtest.Points(h.Journal(report.Run))[at:], want)
		if n < 0 {
			t.Fatalf("%s does not come in its turn in %v", want, runtest.Points(h.Journal(report.Run)))
		}
		at += n
	}
}

func TestOnlyTheRunsOwnLockIsUndone(t *testing.T) {
	for name, c := range map[string]struct {
		before, during func(*recovertest.FakeServer)
		locked         bool
		note           string
		noReasons      bool
	}{
		"found locked": {func(s *recovertest.FakeServer) { s.Locked, s.LockedReason = true, "" }, nil, true, "", false},
		"locked again by somebody else": {nil, func(s *recovertest.FakeServer) { s.LockedReason = "under investigation" }, true,
			"under investigation", false},
		"locked again without a reason": {nil, func(s *recovertest.FakeServer) { s.LockedReason = "" }, true, "somebody else", false},
		"unlocked by somebody else":     {nil, func(s *recovertest.FakeServer) { s.Locked, s.LockedReason = false, "" }, false, "", false},
		"where Nova keeps no reasons":   {nil, func(s *recovertest.FakeServer) { s.LockedReason = "" }, false, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			h, g := onlineHost(t, recovertest.GuestOptions{})
			h.Cloud.NoReasons = c.noReasons
			if c.before != nil {
				h.Cloud.Change(g.UUID, c.before)
			}
			h.HV.Before = func(method, uuid string) {
				if method == "destroy" && c.during != nil {
					h.Cloud.Change(uuid, c.during)
				}
			}
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			r := g.Report(report)
			if r.Outcome != recover.OutcomeRescued || !strings.Contains(strings.Join(r.Notes, ";"), c.note) {
				t.Errorf("%+v", r)
			}
			brought(t, name, h, g, report.Run, recover.StateRunning, c.locked)
			if c.before != nil && h.Cloud.Called("Lock", "")+h.Cloud.Called("Unlock", "") > 0 {
				t.Error("somebody else's lock was touched")
			}
		})
	}
}

// What stops an instance at its lock leaves it as it was found, and not locked.
func TestAnInstanceThatCantBeLockedForItselfIsNotTouched(t *testing.T) {
	afterLock := func(do func(*recovertest.FakeServer)) func(*runtest.Host) {
		return func(h *runtest.Host) {
			h.Cloud.Point = func(point string) {
				if point == "after Lock" {
					for uuid := range h.Cloud.Instances {
						h.Cloud.Change(uuid, do)
					}
				}
			}
		}
	}
	for name, c := range map[string]struct {
		broken func(*runtest.Host)
		says   string
	}{
		"a task accepted before the lock": {
			afterLock(func(s *recovertest.FakeServer) { s.TaskState = "powering-off" }),
			"powering-off",
		},
		"it was moved before the lock": {
			afterLock(func(s *recovertest.FakeServer) { s.Host = "other" }),
			"host other",
		},
		"it was rescued before the lock": {
			afterLock(func(s *recovertest.FakeServer) { s.To(recover.VMRescued) }),
			"RESCUE",
		},
		"the lock is forbidden": {
			func(h *runtest.Host) { h.Cloud.Errs["Lock"] = recover.ErrForbidden },
			recover.ErrForbidden.Error(),
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, g := onlineHost(t, recovertest.GuestOptions{Agent: true})
			pid := h.HV.Get(g.UUID).PID
			c.broken(h)
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, c.says) {
				t.Errorf("%+v", r)
			}
			recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
			if n := h.HV.Called("suspend", g.UUID) + h.HV.Called("freeze", g.UUID) + h.HV.Called("destroy", g.UUID); n > 0 {
				t.Errorf("%d calls touched the guest", n)
			}
			if s := h.Cloud.Get(g.UUID); s.Locked || s.Reboots > 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestAnInstanceWhoseCellGoesDownAfterThePlanIsNotLockedBlindly(t *testing.T) {
	h, g := onlineHost(t, recovertest.GuestOptions{})
	pid := h.HV.Get(g.UUID).PID
	s, err := h.Engine().Prepare(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	defer s.Close()
	h.Cloud.Down = true
	report, err := s.Execute(t.Context())
	recovertest.Must(t, err)
	r := g.Report(report)
	if r.Outcome != recover.OutcomeSkipped || !strings.Contains(r.Error, "its cell is down") || h.Cloud.Called("Lock", "") > 0 {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
}

// A cell that is down says that nothing is locked: that is no answer.
func TestALockOfAnInstanceWhoseCellIsDownIsNotForgotten(t *testing.T) {
	h, g := onlineHost(t, recovertest.GuestOptions{})
	e := h.Engine()
	e.Failpoint = func(point string) {
		if point == "unlock.begin" {
			h.Cloud.Down = true
		}
	}
	s, err := e.Prepare(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	report, err := s.Execute(t.Context())
	s.Close()
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "still locked") {
		t.Errorf("%+v", r)
	}
	h.Cloud.Down = false
	report, err = h.Resume(t.Context(), report.Run)
	recovertest.Must(t, err)
	brought(t, "", h, g, report.Run, recover.StateRunning, false)
}
