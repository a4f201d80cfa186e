package recover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onlineHost is a host with one running guest, all of whose files were deleted.
func onlineHost(t *testing.T, add guestOptions) (*host, *testGuest) {
	t.Helper()
	h := newHost(t)
	g := h.add(1, add)
	h.online()
	h.purge()
	return h, g
}

func TestAFailureBeforeTheDestroyLeavesTheGuestRunningAndUnlocked(t *testing.T) {
	h, g := onlineHost(t, guestOptions{agent: true})
	pid := h.hv.get(g.uuid).PID
	h.hv.change(g.uuid, func(d *fakeDomain) { d.counters["vda"] = BlockCounters{HighestOffset: 1 << 30} })
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeFailed || !strings.Contains(r.Error, ErrUnproven.Error()) {
		t.Fatalf("%+v", r)
	}
	must(t, g.asFound(StateRunning, pid))
	must(t, h.cloud.in(g.uuid, VMActive, false, 0))
}

// Of every journal point: a wish to stop leaves the guest as it was found and not
// locked, or back in service if its destruction had begun.
func TestCtrlCWithNovaLeavesNothingLocked(t *testing.T) {
	t.Parallel()
	first := newHost(t)
	for _, at := range []string{"run.begin", "plan.done", "lock.begin", "lock.done", "instance.begin", "suspend.done", "compare.done",
		"destroy.begin", "destroy.done", "reboot.begin", "reboot.done", "unlock.begin"} {
		h := first.elsewhere(t)
		g := h.add(len(at), guestOptions{agent: true})
		h.online()
		pid := h.hv.get(g.uuid).PID
		h.purge()
		ctx, cancel := context.WithCancel(t.Context())
		e := h.engine()
		e.Failpoint = func(point string) {
			if point == at {
				cancel()
			}
		}
		s, err := e.Prepare(ctx, CommandRescue, options(g))
		if err == nil {
			_, err = s.Execute(ctx)
			s.Close()
		}
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", at, err)
		}
		reboots := 0
		if h.hv.called("destroy", g.uuid) == 0 {
			err = g.asFound(StateRunning, pid)
		} else {
			err, reboots = g.serving(StateRunning), 1
		}
		if err := errors.Join(err, h.cloud.in(g.uuid, VMActive, false, reboots)); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		h.hv.endAll()
	}
}

func TestTheHardRebootOfARescue(t *testing.T) {
	for name, c := range map[string]struct {
		broken   func(*host, *testGuest)
		requests int    // that reached Nova
		reboots  int    // that it accepted
		says     string // in the error; empty when it is rescued
	}{
		"is asked for again after 409": {func(h *host, _ *testGuest) {
			h.cloud.once["HardReboot"] = []error{ErrTaskUnderWay, fmt.Errorf("%w: 409", ErrTaskUnderWay)}
		}, 3, 1, ""},
		"is not sent twice when only its answer was lost": {func(h *host, _ *testGuest) { h.cloud.lost["HardReboot"] = errAnswer }, 1, 1, ""},
		"is sent again when it did not arrive": {func(h *host,
			_ *testGuest) {
			h.cloud.once["HardReboot"] = []error{errAnswer}
		}, 2, 1, ""},
		"is given up after some that did not arrive": {func(h *host, _ *testGuest) { h.cloud.errs["HardReboot"] = errAnswer }, 3, 0,
			"asked for 3 times"},
		"waits for Nova's own stop": {func(h *host, g *testGuest) {
			h.hv.before = func(method, _ string) {
				if method == "destroy" {
					h.cloud.change(g.uuid, func(s *fakeServer) { h.cloud.stop(s, 4) })
				}
			}
		}, 1, 1, ""},
		"comes after Nova's own stop": {func(h *host, g *testGuest) {
			h.hv.before = func(method, _ string) {
				if method == "destroy" {
					h.cloud.change(g.uuid, func(s *fakeServer) { s.to(VMStopped) })
				}
			}
		}, 1, 1, ""},
		"is asked for again when Nova stops the instance right after it": {func(h *host, g *testGuest) {
			h.cloud.point = func(point string) {
				if s := h.cloud.get(g.uuid); point == "before Server" && s.reboots == 1 && s.VMState == VMActive && s.task != nil &&
					s.TaskState == "rebooting_hard" {
					h.cloud.change(g.uuid, func(s *fakeServer) { h.cloud.stop(s, 2) })
				}
			}
		}, 2, 2, ""},
		"says why it ended in ERROR": {func(h *host, g *testGuest) {
			h.cloud.point = func(point string) {
				if point == "before HardReboot" {
					must(h.t, os.Remove(g.disk))
				}
			}
		}, 1, 1, "No disk at"},
		"is forbidden": {func(h *host, _ *testGuest) { h.cloud.errs["HardReboot"] = ErrForbidden }, 1, 0, ErrForbidden.Error()},
		"is not waited for without end": {func(h *host, _ *testGuest) {
			h.cloud.taking = 1 << 30
			h.settings.RebootTimeout = 100 * time.Millisecond
		}, 1, 1, "has not ended"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, g := onlineHost(t, guestOptions{})
			c.broken(h, g)
			report, err := h.run(t.Context(), CommandRescue, options(g))
			must(t, err)
			r := g.report(report)
			if n := h.cloud.called("HardReboot", g.uuid); n != c.requests {
				t.Errorf("%d requests, not %d", n, c.requests)
			}
			if c.says == "" {
				if r.Outcome != OutcomeRescued {
					t.Errorf("%+v", r)
				}
				must(t, g.serving(StateRunning))
				must(t, h.cloud.in(g.uuid, VMActive, false, c.reboots))
				return
			}
			if r.Outcome != OutcomeFailed || !strings.Contains(r.Error, c.says) || !strings.Contains(r.Error, "os-rescue resume "+report.Run) {
				t.Errorf("%+v", r)
			}
			s := h.cloud.get(g.uuid)
			if s.Locked || s.reboots != c.reboots {
				t.Errorf("its files are back, and Nova has: %+v", s)
			}
		})
	}
}

func TestAnInstanceFoundPausedEndsPausedTheSameWay(t *testing.T) {
	for _, vm := range []string{VMPaused, VMActive} {
		t.Run(vm, func(t *testing.T) {
			h, g := onlineHost(t, guestOptions{state: StatePaused})
			h.cloud.change(g.uuid, func(s *fakeServer) { s.to(vm) })
			report, err := h.run(t.Context(), CommandRescue, options(g))
			must(t, err)
			if r := g.report(report); r.Outcome != OutcomeRescued {
				t.Errorf("%+v", r)
			}
			must(t, g.serving(StatePaused))
			must(t, h.cloud.in(g.uuid, vm, false, 1))
		})
	}
}

func TestNoRebootWithNovaLeavesItOffAndUnlocked(t *testing.T) {
	h, g := onlineHost(t, guestOptions{})
	o := options(g)
	o.NoReboot = true
	report, err := h.run(t.Context(), CommandRescue, o)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued || !strings.Contains(strings.Join(r.Notes, ";"),
		"os-rescue reboot --instance "+g.uuid) {
		t.Errorf("%+v", r)
	}
	must(t, g.serving(StateShutOff))
	must(t, h.cloud.in(g.uuid, VMActive, false, 0))
	if h.cloud.called("Lock", "") != 1 {
		t.Error("it was not locked meanwhile")
	}
}

// An owner's hard reboot came first: the domain is undefined, the instance in ERROR.
func TestWhatAHolderHasOfAForgottenDomainBringsTheInstanceBack(t *testing.T) {
	h := newHost(t)
	g := h.add(1, guestOptions{base: "b", config: true})
	delete(g.content, g.dir+"/disk.info") // which Nova makes anew
	h.online()
	holder, err := hold("somebody", nil, []File{{Path: g.disk}, {Path: g.base}, {Path: g.dir + "/disk.config"}}, &unix.SysProcAttr{})
	must(t, err)
	defer holder.end()
	h.purge()
	h.cloud.change(g.uuid, func(s *fakeServer) { h.cloud.reboot(s); s.reboots = 0 })
	for h.cloud.get(g.uuid).TaskState != "" {
		_, _ = h.cloud.Server(t.Context(), g.uuid)
	}
	if s := h.cloud.get(g.uuid); s.VMState != VMError {
		t.Fatalf("%+v", s)
	}
	o := options(g)
	if plan, err := planOnline(t, h, o); err != nil || planOf1(t, plan, g.uuid).Action != ActionRefuse {
		t.Errorf("without its holder: %+v, %v", plan, err)
	}
	o.Holders = []int{holder.cmd.Process.Pid}
	report, err := h.run(t.Context(), CommandRescue, o)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	must(t, g.serving(StateRunning))
	must(t, h.cloud.in(g.uuid, VMActive, false, 1))
	if n := g.pinned(); n != 0 {
		t.Errorf("the keeper still holds %d files", n)
	}
}

// An admin passes a lock: Nova ends the guest in the middle of its rescue.
func TestAnAdminsHardRebootInTheMiddleLosesNothing(t *testing.T) {
	h, g := onlineHost(t, guestOptions{base: "b"})
	once := false
	h.hv.before = func(method, uuid string) {
		if method == "counters" && len(h.staged()) > 1 && !once {
			once = true
			h.cloud.change(uuid, func(s *fakeServer) { h.cloud.reboot(s); s.reboots = 0 })
			for h.cloud.get(uuid).TaskState != "" {
				_, _ = h.cloud.Server(t.Context(), uuid)
			}
		}
	}
	report, err := h.run(t.Context(), CommandRescue, options(g))
	must(t, err)
	if r := g.report(report); r.Outcome == OutcomeRescued && !once {
		t.Fatalf("%+v", r)
	}
	if s, _ := h.runs().find(report.Run); s.State != RunFinished {
		report, err = h.resume(t.Context(), report.Run)
		must(t, err)
	}
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Errorf("%+v", r)
	}
	must(t, g.serving(StateRunning))
	must(t, h.cloud.in(g.uuid, VMActive, false, 1))
}

func TestWhenNovaGoesAwayTheRestIsLeftToResume(t *testing.T) {
	everything := []string{"Server", "Lock", "Unlock", "HardReboot"}
	for _, at := range []string{"before Lock", "after Lock", "before HardReboot", "after HardReboot", "before Unlock", "after Unlock"} {
		for _, offline := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, resumed offline first: %t", at, offline), func(t *testing.T) {
				t.Parallel()
				h, g := onlineHost(t, guestOptions{agent: true})
				pid := h.hv.get(g.uuid).PID
				h.cloud.point = func(point string) {
					if point == at {
						h.cloud.away(everything...)
					}
				}
				report, err := h.run(t.Context(), CommandRescue, options(g))
				must(t, err)
				h.cloud.point = nil
				r := g.report(report)
				locked := h.cloud.get(g.uuid).Locked
				if at == "after Unlock" {
					if r.Outcome != OutcomeRescued || locked {
						t.Errorf("%+v", r)
					}
					return
				}
				said := r.Error + strings.Join(r.Notes, ";")
				if r.Outcome != OutcomeFailed || !strings.Contains(said, "still locked in Nova") || !strings.Contains(r.Error,
					"os-rescue resume "+report.Run) {
					t.Errorf("%+v", r)
				}
				if strings.HasSuffix(at, "Lock") && at != "before Unlock" {
					if err := g.asFound(StateRunning, pid); err != nil {
						t.Error(err)
					}
				}
				if err := engineStatus(h, report.Run, RunInterrupted); err != nil {
					t.Error(err)
				}
				if offline {
					h.cloud.offline = true
					second, err := resumeOffline(h, t.Context(), report.Run)
					must(t, err)
					h.cloud.offline = false
					r := g.report(second)
					if r.Outcome != OutcomeFailed || !strings.Contains(r.Error, "still locked in Nova") {
						t.Errorf("offline: %+v", r)
					}
					// Nova's reboot, where there was one, stands still with Nova.
					if err := g.serving(StateRunning); err != nil && at != "after HardReboot" {
						t.Errorf("offline: %v", err)
					}
				}
				h.cloud.back()
				last, err := h.resume(t.Context(), report.Run)
				must(t, err)
				if r := g.report(last); r.Outcome != OutcomeRescued {
					t.Errorf("%+v", r)
				}
				must(t, g.serving(StateRunning))
				if s := h.cloud.get(g.uuid); s.Locked || s.reboots > 1 {
					t.Errorf("%+v", s)
				}
				if err := engineStatus(h, report.Run, RunFinished); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func engineStatus(h *host, run string, want RunState) error {
	status, err := h.runs().find(run)
	if err == nil && status.State != want {
		err = fmt.Errorf("the run is %s, not %s", status.State, want)
	}
	return err
}

// An evacuation came between the kill and the resume: the files may be the other
// host's, and the reboot would be its.
func TestResumeLeavesAnInstanceAloneThatWasEvacuatedMeanwhile(t *testing.T) {
	for _, at := range []string{"destroy.done", "publish.done", "reboot.begin"} {
		t.Run(at, func(t *testing.T) {
			h, g, run := crashOnline(t, guestOptions{}, at)
			_, before := os.Stat(g.disk)
			h.cloud.change(g.uuid, func(s *fakeServer) { s.Host = "other" })
			report, err := h.resume(t.Context(), run)
			must(t, err)
			if r := g.report(report); r.Outcome != OutcomeFailed || !strings.Contains(r.Error, `host "other"`) {
				t.Errorf("%+v", r)
			}
			if n := h.cloud.called("HardReboot", ""); n > 0 {
				t.Errorf("%d hard reboots of another host's instance", n)
			}
			if _, after := os.Stat(g.disk); (before == nil) != (after == nil) {
				t.Error("its disk was published over the other host's")
			}
			if err := engineStatus(h, run, RunInterrupted); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnOfflineRunNeverAsksNova(t *testing.T) {
	h, g := onlineHost(t, guestOptions{})
	h.cloud.offline = true
	o := options(g)
	o.Offline = true
	report, err := h.run(t.Context(), CommandRescue, o)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Errorf("%+v", r)
	}
	must(t, g.serving(StateRunning))
	b := options(g)
	b.BackupDir = filepath.Join(t.TempDir(), "b")
	report, err = h.run(t.Context(), CommandBackup, b)
	must(t, err)
	if r := g.report(report); r.Outcome != OutcomeRescued {
		t.Errorf("a backup: %+v", r)
	}
}

func TestTheErrorsOfSigningInStopTheRunBeforeAnythingIsTouched(t *testing.T) {
	for _, want := range []error{ErrCredentials, ErrCloudUnavailable, ErrForbidden} {
		h, g := onlineHost(t, guestOptions{})
		e := h.engine()
		e.SignIn = func(context.Context) (Cloud, error) { return nil, want }
		if _, err := e.Prepare(t.Context(), CommandRescue, options(g)); !errors.Is(err, want) {
			t.Errorf("%v, not %v", err, want)
		}
		// While somebody thinks about going on without Nova, the files stay held.
		if n := g.pinned(); (n > 0) != errors.Is(want, ErrCloudUnavailable) {
			t.Errorf("%v: %d pins are left", want, n)
		}
		if ids, _ := stateDir(h.settings.StateDir).list(); len(ids) > 0 {
			t.Errorf("a run that never was left %v", ids)
		}
	}
}
