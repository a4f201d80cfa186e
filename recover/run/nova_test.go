package run_test

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

	"github.com/os-rescue/os-rescue/recover"
	"github.com/os-rescue/os-rescue/recover/recovertest"
	"github.com/os-rescue/os-rescue/recover/run/runtest"
	"github.com/os-rescue/os-rescue/recover/statedir"
)

// onlineHost is a host with one running guest, all of whose files were deleted.
func onlineHost(t *testing.T, add recovertest.GuestOptions) (*runtest.Host, *recovertest.Guest) {
	t.Helper()
	h := runtest.NewHost(t)
	g := h.Add(1, add)
	h.Online()
	h.Purge()
	return h, g
}

func TestAFailureBeforeTheDestroyLeavesTheGuestRunningAndUnlocked(t *testing.T) {
	h, g := onlineHost(t, recovertest.GuestOptions{Agent: true})
	pid := h.HV.Get(g.UUID).PID
	h.HV.Change(g.UUID, func(d *recovertest.FakeDomain) { d.Counters["vda"] = recover.BlockCounters{HighestOffset: 1 << 30} })
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, recover.ErrUnproven.Error()) {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.AsFound(recover.StateRunning, pid))
	recovertest.Must(t, h.Cloud.In(g.UUID, recover.VMActive, false, 0))
}

// Of every journal point: a wish to stop leaves the guest as it was found and not
// locked, or back in service if its destruction had begun.
func TestCtrlCWithNovaLeavesNothingLocked(t *testing.T) {
	t.Parallel()
	first := runtest.NewHost(t)
	for _, at := range []string{"run.begin", "plan.done", "lock.begin", "lock.done", "instance.begin", "suspend.done", "compare.done",
		"destroy.begin", "destroy.done", "reboot.begin", "reboot.done", "unlock.begin"} {
		h := first.Elsewhere(t)
		g := h.Add(len(at), recovertest.GuestOptions{Agent: true})
		h.Online()
		pid := h.HV.Get(g.UUID).PID
		h.Purge()
		err := cancelled(t, h, g, func(point string) bool { return point == at })
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", at, err)
		}
		reboots := 0
		if h.HV.Called("destroy", g.UUID) == 0 {
			err = g.AsFound(recover.StateRunning, pid)
		} else {
			err, reboots = g.Serving(recover.StateRunning), 1
		}
		if err := errors.Join(err, h.Cloud.In(g.UUID, recover.VMActive, false, reboots)); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		h.HV.EndAll()
	}
}

func TestTheHardRebootOfARescue(t *testing.T) {
	for name, c := range map[string]struct {
		broken   func(*runtest.Host, *recovertest.Guest)
		requests int    // that reached Nova
		reboots  int    // that it accepted
		says     string // in the error; empty when it is rescued
	}{
		"is asked for again after 409": {func(h *runtest.Host, _ *recovertest.Guest) {
			h.Cloud.Once["HardReboot"] = []error{recover.ErrTaskUnderWay, fmt.Errorf("%w: 409", recover.ErrTaskUnderWay)}
		}, 3, 1, ""},
		"is not sent twice when only its answer was lost": {func(h *runtest.Host, _ *recovertest.Guest) {
			h.Cloud.Lost["HardReboot"] = recovertest.ErrAnswer
		}, 1, 1, ""},
		"is sent again when it did not arrive": {func(h *runtest.Host, _ *recovertest.Guest) {
			h.Cloud.Once["HardReboot"] = []error{recovertest.ErrAnswer}
		}, 2, 1, ""},
		"is given up after some that did not arrive": {func(h *runtest.Host, _ *recovertest.Guest) {
			h.Cloud.Errs["HardReboot"] = recovertest.ErrAnswer
		}, 3, 0, "asked for 3 times"},
		"waits for Nova's own stop": {func(h *runtest.Host, g *recovertest.Guest) {
			h.HV.Before = func(method, _ string) {
				if method == "destroy" {
					h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { h.Cloud.Stop(s, 4) })
				}
			}
		}, 1, 1, ""},
		"comes after Nova's own stop": {func(h *runtest.Host, g *recovertest.Guest) {
			h.HV.Before = func(method, _ string) {
				if method == "destroy" {
					h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { s.To(recover.VMStopped) })
				}
			}
		}, 1, 1, ""},
		"is asked for again when Nova stops the instance right after it": {func(h *runtest.Host, g *recovertest.Guest) {
			h.Cloud.Point = func(point string) {
				if s := h.Cloud.Get(g.UUID); point == "before Server" && s.Reboots == 1 && s.VMState == recover.VMActive && s.Task != nil &&
					s.TaskState == "rebooting_hard" {
					h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { h.Cloud.Stop(s, 2) })
				}
			}
		}, 2, 2, ""},
		"says why it ended in ERROR": {func(h *runtest.Host, g *recovertest.Guest) {
			h.Cloud.Point = func(point string) {
				if point == "before HardReboot" {
					recovertest.Must(h.T, os.Remove(g.Disk))
				}
			}
		}, 1, 1, "No disk at"},
		"is forbidden": {func(h *runtest.Host, _ *recovertest.Guest) {
			h.Cloud.Errs["HardReboot"] = recover.ErrForbidden
		}, 1, 0, recover.ErrForbidden.Error()},
		"is not waited for without end": {func(h *runtest.Host, _ *recovertest.Guest) {
			h.Cloud.Taking = 1 << 30
			h.Settings.RebootTimeout = 100 * time.Millisecond
		}, 1, 1, "has not ended"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, g := onlineHost(t, recovertest.GuestOptions{})
			c.broken(h, g)
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			r := g.Report(report)
			if n := h.Cloud.Called("HardReboot", g.UUID); n != c.requests {
				t.Errorf("%d requests, not %d", n, c.requests)
			}
			if c.says == "" {
				if r.Outcome != recover.OutcomeRescued {
					t.Errorf("%+v", r)
				}
				recovertest.Must(t, g.Serving(recover.StateRunning))
				recovertest.Must(t, h.Cloud.In(g.UUID, recover.VMActive, false, c.reboots))
				return
			}
			if r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, c.says) ||
				!strings.Contains(r.Error, "os-rescue resume "+report.Run) {
				t.Errorf("%+v", r)
			}
			s := h.Cloud.Get(g.UUID)
			if s.Locked || s.Reboots != c.reboots {
				t.Errorf("its files are back, and Nova has: %+v", s)
			}
		})
	}
}

func TestAnInstanceFoundPausedEndsPausedTheSameWay(t *testing.T) {
	for _, vm := range []string{recover.VMPaused, recover.VMActive} {
		t.Run(vm, func(t *testing.T) {
			h, g := onlineHost(t, recovertest.GuestOptions{State: recover.StatePaused})
			h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { s.To(vm) })
			report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
				t.Errorf("%+v", r)
			}
			recovertest.Must(t, g.Serving(recover.StatePaused))
			recovertest.Must(t, h.Cloud.In(g.UUID, vm, false, 1))
		})
	}
}

func TestNoRebootWithNovaLeavesItOffAndUnlocked(t *testing.T) {
	h, g := onlineHost(t, recovertest.GuestOptions{})
	o := recovertest.Options(g)
	o.NoReboot = true
	report, err := h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued || !strings.Contains(strings.Join(r.Notes, ";"),
		"os-rescue reboot --instance "+g.UUID) {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateShutOff))
	recovertest.Must(t, h.Cloud.In(g.UUID, recover.VMActive, false, 0))
	if h.Cloud.Called("Lock", "") != 1 {
		t.Error("it was not locked meanwhile")
	}
}

// An owner's hard reboot came first: the domain is undefined, the instance in ERROR.
func TestWhatAHolderHasOfAForgottenDomainBringsTheInstanceBack(t *testing.T) {
	h := runtest.NewHost(t)
	g := h.Add(1, recovertest.GuestOptions{Base: "b", Config: true})
	delete(g.Content, g.Dir+"/disk.info") // which Nova makes anew
	h.Online()
	files := []recover.File{{Path: g.Disk}, {Path: g.Base}, {Path: g.Dir + "/disk.config"}}
	holder, err := recovertest.Hold("somebody", nil, files, &unix.SysProcAttr{})
	recovertest.Must(t, err)
	defer holder.End()
	h.Purge()
	h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { h.Cloud.Reboot(s); s.Reboots = 0 })
	for h.Cloud.Get(g.UUID).TaskState != "" {
		_, _ = h.Cloud.Server(t.Context(), g.UUID)
	}
	if s := h.Cloud.Get(g.UUID); s.VMState != recover.VMError {
		t.Fatalf("%+v", s)
	}
	o := recovertest.Options(g)
	if plan, err := runtest.PlanOnline(t, h, o); err != nil || runtest.PlanOf(t, plan, g.UUID).Action != recover.ActionRefuse {
		t.Errorf("without its holder: %+v, %v", plan, err)
	}
	o.Holders = []int{holder.Cmd.Process.Pid}
	report, err := h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Fatalf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
	recovertest.Must(t, h.Cloud.In(g.UUID, recover.VMActive, false, 1))
	if n := g.Pinned(); n != 0 {
		t.Errorf("the keeper still holds %d files", n)
	}
}

// An admin passes a lock: Nova ends the guest in the middle of its rescue.
func TestAnAdminsHardRebootInTheMiddleLosesNothing(t *testing.T) {
	h, g := onlineHost(t, recovertest.GuestOptions{Base: "b"})
	once := false
	h.HV.Before = func(method, uuid string) {
		if method == "counters" && len(h.Staged()) > 1 && !once {
			once = true
			h.Cloud.Change(uuid, func(s *recovertest.FakeServer) { h.Cloud.Reboot(s); s.Reboots = 0 })
			for h.Cloud.Get(uuid).TaskState != "" {
				_, _ = h.Cloud.Server(t.Context(), uuid)
			}
		}
	}
	report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome == recover.OutcomeRescued && !once {
		t.Fatalf("%+v", r)
	}
	if s, _ := h.Runs().Find(report.Run); s.State != recover.RunFinished {
		report, err = h.Resume(t.Context(), report.Run)
		recovertest.Must(t, err)
	}
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
	recovertest.Must(t, h.Cloud.In(g.UUID, recover.VMActive, false, 1))
}

func TestWhenNovaGoesAwayTheRestIsLeftToResume(t *testing.T) {
	everything := []string{"Server", "Lock", "Unlock", "HardReboot"}
	for _, at := range []string{"before Lock", "after Lock", "before HardReboot", "after HardReboot", "before Unlock", "after Unlock"} {
		for _, offline := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, resumed offline first: %t", at, offline), func(t *testing.T) {
				t.Parallel()
				h, g := onlineHost(t, recovertest.GuestOptions{Agent: true})
				pid := h.HV.Get(g.UUID).PID
				h.Cloud.Point = func(point string) {
					if point == at {
						h.Cloud.Away(everything...)
					}
				}
				report, err := h.Run(t.Context(), recover.CommandRescue, recovertest.Options(g))
				recovertest.Must(t, err)
				h.Cloud.Point = nil
				r := g.Report(report)
				locked := h.Cloud.Get(g.UUID).Locked
				if at == "after Unlock" {
					if r.Outcome != recover.OutcomeRescued || locked {
						t.Errorf("%+v", r)
					}
					return
				}
				said := r.Error + strings.Join(r.Notes, ";")
				if r.Outcome != recover.OutcomeFailed || !strings.Contains(said, "still locked in Nova") || !strings.Contains(r.Error,
					"os-rescue resume "+report.Run) {
					t.Errorf("%+v", r)
				}
				if strings.HasSuffix(at, "Lock") && at != "before Unlock" {
					if err := g.AsFound(recover.StateRunning, pid); err != nil {
						t.Error(err)
					}
				}
				if err := engineStatus(h, report.Run, recover.RunInterrupted); err != nil {
					t.Error(err)
				}
				if offline {
					h.Cloud.Offline = true
					second, err := resumeOffline(t.Context(), h, report.Run)
					recovertest.Must(t, err)
					h.Cloud.Offline = false
					r := g.Report(second)
					if r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, "still locked in Nova") {
						t.Errorf("offline: %+v", r)
					}
					// Nova's reboot, where there was one, stands still with Nova.
					if err := g.Serving(recover.StateRunning); err != nil && at != "after HardReboot" {
						t.Errorf("offline: %v", err)
					}
				}
				h.Cloud.Back()
				last, err := h.Resume(t.Context(), report.Run)
				recovertest.Must(t, err)
				if r := g.Report(last); r.Outcome != recover.OutcomeRescued {
					t.Errorf("%+v", r)
				}
				recovertest.Must(t, g.Serving(recover.StateRunning))
				if s := h.Cloud.Get(g.UUID); s.Locked || s.Reboots > 1 {
					t.Errorf("%+v", s)
				}
				if err := engineStatus(h, report.Run, recover.RunFinished); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func engineStatus(h *runtest.Host, run string, want recover.RunState) error {
	status, err := h.Runs().Find(run)
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
			h, g, run := crashOnline(t, recovertest.GuestOptions{}, at)
			_, before := os.Stat(g.Disk)
			h.Cloud.Change(g.UUID, func(s *recovertest.FakeServer) { s.Host = "other" })
			report, err := h.Resume(t.Context(), run)
			recovertest.Must(t, err)
			if r := g.Report(report); r.Outcome != recover.OutcomeFailed || !strings.Contains(r.Error, `host "other"`) {
				t.Errorf("%+v", r)
			}
			if n := h.Cloud.Called("HardReboot", ""); n > 0 {
				t.Errorf("%d hard reboots of another host's instance", n)
			}
			if _, after := os.Stat(g.Disk); (before == nil) != (after == nil) {
				t.Error("its disk was published over the other host's")
			}
			isFinished(t, h, run)
			if g.Pinned() == 0 {
				t.Error("nobody holds its files")
			}
		})
	}
}

func TestAnOfflineRunNeverAsksNova(t *testing.T) {
	h, g := onlineHost(t, recovertest.GuestOptions{})
	h.Cloud.Offline = true
	o := recovertest.Options(g)
	o.Offline = true
	report, err := h.Run(t.Context(), recover.CommandRescue, o)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("%+v", r)
	}
	recovertest.Must(t, g.Serving(recover.StateRunning))
	b := recovertest.Options(g)
	b.BackupDir = filepath.Join(t.TempDir(), "b")
	report, err = h.Run(t.Context(), recover.CommandBackup, b)
	recovertest.Must(t, err)
	if r := g.Report(report); r.Outcome != recover.OutcomeRescued {
		t.Errorf("a backup: %+v", r)
	}
}

func TestTheErrorsOfSigningInStopTheRunBeforeAnythingIsTouched(t *testing.T) {
	for _, want := range []error{recover.ErrCredentials, recover.ErrCloudUnavailable, recover.ErrForbidden} {
		h, g := onlineHost(t, recovertest.GuestOptions{})
		e := h.Engine()
		e.SignIn = func(context.Context) (recover.Cloud, error) { return nil, want }
		if _, err := e.Prepare(t.Context(), recover.CommandRescue, recovertest.Options(g)); !errors.Is(err, want) {
			t.Errorf("%v, not %v", err, want)
		}
		// While somebody thinks about going on without Nova, the files stay held.
		if n := g.Pinned(); (n > 0) != errors.Is(want, recover.ErrCloudUnavailable) {
			t.Errorf("%v: %d pins are left", want, n)
		}
		if ids, _ := statedir.Dir(h.Settings.StateDir).List(); len(ids) > 0 {
			t.Errorf("a run that never was left %v", ids)
		}
	}
}
