package recover

import (
	"slices"
	"strings"
	"testing"
)

func TestARescueWithNovaLocksBeforeItTouchesAndUnlocksAtTheEnd(t *testing.T) {
	h, g := onlineHost(t, guestOptions{base: "b", console: true, config: true, agent: true})
	h.hv.before = func(method, uuid string) {
		if method != "suspend" && method != "freeze" && method != "destroy" {
			return
		}
		s := h.cloud.get(uuid)
		if !s.Locked || !strings.HasPrefix(s.LockedReason, "os-rescue 20") {
			t.Errorf("at %s it was not locked: %q", method, s.LockedReason)
		}
		h.cloud.mu.Lock()
		defer h.cloud.mu.Unlock()
		lock := slices.Index(h.cloud.calls, "Lock "+uuid)
		if !slices.Contains(h.cloud.calls[lock:], "Server "+uuid) {
			t.Errorf("at %s it was not read again after its lock", method)
		}
	}
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued || r.Error != "" || r.DowntimeSeconds <= 0 {
		t.Fatalf("%+v", r)
	}
	brought(t, "", h, g, report.Run, StateRunning, false)
	if n := h.cloud.called("HardReboot", g.uuid); n != 1 {
		t.Errorf("%d requests for a hard reboot", n)
	}
	at := 0
	for _, want := range []string{"lock.begin", "lock.done", "instance.begin", "suspend.begin", "destroy.done", "publish.done",
		"reboot.begin", "reboot.done", "unpin.done", "unlock.done", "instance.done"} {
		n := slices.Index(points(h.records(report.Run))[at:], want)
		if n < 0 {
			t.Fatalf("%s does not come in its turn in %v", want, points(h.records(report.Run)))
		}
		at += n
	}
}

func TestOnlyTheRunsOwnLockIsUndone(t *testing.T) {
	for name, c := range map[string]struct {
		before, during func(*fakeServer)
		locked         bool
		note           string
		noReasons      bool
	}{
		"found locked": {func(s *fakeServer) { s.Locked, s.LockedReason = true, "" }, nil, true, "", false},
		"locked again by somebody else": {nil, func(s *fakeServer) { s.LockedReason = "under investigation" }, true,
			"under investigation", false},
		"locked again without a reason": {nil, func(s *fakeServer) { s.LockedReason = "" }, true, "somebody else", false},
		"unlocked by somebody else":     {nil, func(s *fakeServer) { s.Locked, s.LockedReason = false, "" }, false, "", false},
		"where Nova keeps no reasons":   {nil, func(s *fakeServer) { s.LockedReason = "" }, false, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			h, g := onlineHost(t, guestOptions{})
			h.cloud.noReasons = c.noReasons
			if c.before != nil {
				h.cloud.change(g.uuid, c.before)
			}
			h.hv.before = func(method, uuid string) {
				if method == "destroy" && c.during != nil {
					h.cloud.change(uuid, c.during)
				}
			}
			report, err := h.run(t.Context(), CommandRescue, options(g))
			must(t, err)
			r := g.report(report)
			if r.Outcome != OutcomeRescued || !strings.Contains(strings.Join(r.Notes, ";"), c.note) {
				t.Errorf("%+v", r)
			}
			brought(t, name, h, g, report.Run, StateRunning, c.locked)
			if c.before != nil && h.cloud.called("Lock", "")+h.cloud.called("Unlock", "") > 0 {
				t.Error("somebody else's lock was touched")
			}
		})
	}
}

// What stops an instance at its lock leaves it as it was found, and not locked.
func TestAnInstanceThatCantBeLockedForItselfIsNotTouched(t *testing.T) {
	afterLock := func(h *host, do func(*fakeServer)) {
		h.cloud.point = func(point string) {
			if point == "after Lock" {
				for uuid := range h.cloud.servers {
					h.cloud.change(uuid, do)
				}
			}
		}
	}
	for name, c := range map[string]struct {
		broken func(*host)
		says   string
	}{
		"a task accepted before the lock": {func(h *host) {
			afterLock(h, func(s *fakeServer) { s.TaskState = "powering-off" })
		}, "powering-off"},
		"it was moved before the lock":   {func(h *host) { afterLock(h, func(s *fakeServer) { s.Host = "other" }) }, "host other"},
		"it was rescued before the lock": {func(h *host) { afterLock(h, func(s *fakeServer) { s.to(VMRescued) }) }, "RESCUED"},
		"the lock is forbidden":          {func(h *host) { h.cloud.errs["Lock"] = ErrForbidden }, ErrForbidden.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			h, g := onlineHost(t, guestOptions{agent: true})
			pid := h.hv.get(g.uuid).PID
			c.broken(h)
			report, err := h.run(t.Context(), CommandRescue, options(g))
			must(t, err)
			if r := g.report(report); r.Outcome != OutcomeSkipped || !strings.Contains(r.Error, c.says) {
				t.Errorf("%+v", r)
			}
			must(t, g.asFound(StateRunning, pid))
			if n := h.hv.called("suspend", g.uuid) + h.hv.called("freeze", g.uuid) + h.hv.called("destroy", g.uuid); n > 0 {
				t.Errorf("%d calls touched the guest", n)
			}
			if s := h.cloud.get(g.uuid); s.Locked || s.reboots > 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestAnInstanceWhoseCellGoesDownAfterThePlanIsNotLockedBlindly(t *testing.T) {
	h, g := onlineHost(t, guestOptions{})
	pid := h.hv.get(g.uuid).PID
	s, err := h.engine().Prepare(t.Context(), CommandRescue, options(g))
	must(t, err)
	defer s.Close()
	h.cloud.down = true
	report, err := s.Execute(t.Context())
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeSkipped || !strings.Contains(r.Error, "its cell is down") || h.cloud.called("Lock", "") > 0 {
		t.Errorf("%+v", r)
	}
	must(t, g.asFound(StateRunning, pid))
}

// A cell that is down says that nothing is locked: that is no answer.
func TestALockOfAnInstanceWhoseCellIsDownIsNotForgotten(t *testing.T) {
	h, g := onlineHost(t, guestOptions{})
	e := h.engine()
	e.Failpoint = func(point string) {
		if point == "unlock.begin" {
			h.cloud.down = true
		}
	}
	s, err := e.Prepare(t.Context(), CommandRescue, options(g))
	must(t, err)
	report, err := s.Execute(t.Context())
	s.Close()
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeFailed || !strings.Contains(r.Error, "still locked") {
		t.Errorf("%+v", r)
	}
	h.cloud.down = false
	report, err = h.resume(t.Context(), report.Run)
	must(t, err)
	brought(t, "", h, g, report.Run, StateRunning, false)
}
